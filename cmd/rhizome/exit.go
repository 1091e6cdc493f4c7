package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"rhizome/registry/layout"
)

// Exit codes, as the manual lists them.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitNetwork     = 4
	exitConflict    = 5
	exitFound       = 6
	exitInterrupted = 130
)

// usageError is a wrong call, or an invalid recipe.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// codeError carries an exit code that nothing else in the chain says.
type codeError struct {
	error
	code int
}

func (e *codeError) Unwrap() error { return e.error }

// silent is an outcome that was reported already.
var errReported = errors.New("reported")

func reported(code int) error { return &codeError{errReported, code} }

// exit says what went wrong, with a remedy where one is known, and returns the
// code to leave with.
func (a *app) exit(ctx context.Context, err error) int {
	if err == nil {
		return exitOK
	}
	code := exitCode(ctx, err)
	switch {
	case errors.Is(err, errReported):
	case code == exitInterrupted:
		fmt.Fprintln(a.err, "rhizome: interrupted; nothing half done has a name, and the next run goes on from what was finished")
	default:
		a.printTail(err)
		fmt.Fprintf(a.err, "rhizome: %v\n", err)
		if h := hint(err); h != "" && !strings.Contains(err.Error(), h) {
			fmt.Fprintf(a.err, "rhizome: hint: %s\n", h)
		}
	}
	return code
}

// printTail shows what a failed tool printed last, unless all of it was shown
// as it came.
func (a *app) printTail(err error) {
	var tool interface{ LastLines() []string }
	if a.verbose || !errors.As(err, &tool) {
		return
	}
	for _, l := range tool.LastLines() {
		fmt.Fprintf(a.err, "  | %s\n", l)
	}
}

func exitCode(ctx context.Context, err error) int {
	var coded *codeError
	var usage *usageError
	switch {
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.As(err, &coded):
		return coded.code
	case errors.As(err, &usage), isMisspelt(err), strings.HasPrefix(err.Error(), "unknown command "): // cobra's own has no type
		return exitUsage
	case isConflict(err):
		return exitConflict
	case isNotFound(err):
		return exitNotFound
	case isNetwork(err):
		return exitNetwork
	}
	return exitFailed
}

// hint is the remedy that the error knows, or that is known for what the
// operating system said. Most errors carry theirs in their sentence.
func hint(err error) string {
	var h hinted
	var image *layout.NotFoundError
	switch {
	case errors.As(err, &h) && h.Hint() != "":
		return h.Hint()
	case strings.Contains(err.Error(), "--store"), strings.Contains(err.Error(), "--output"), isOutput(err):
		return "" // it says what to do, or there is nothing to say
	case isDiskFull(err):
		return "free some space where the store lies, or name another one with --store; the store is as it was"
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0:
		return "run it as root, or as a user who may"
	case errors.As(err, &image) && !strings.Contains(err.Error(), "rhizome images"):
		return "`rhizome images` lists what is there; --store or RHIZOME_STORE names another store"
	}
	return ""
}
