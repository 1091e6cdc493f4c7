// Package tool runs the programs that make a Debian root: apt, dpkg-deb and
// mmdebstrap. A run can be stopped at any moment with everything it started,
// keeps its whole output in a log, and fails with a sentence.
package tool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Grace is how long a stopped program may clean up after SIGTERM before its
// whole process group is killed. mmdebstrap unmounts and removes its root.
const Grace = 30 * time.Second

// Command is one run of a program.
type Command struct {
	// Doing says what for, as the beginning of an error: "installing 140
	// packages".
	Doing string
	Args  []string
	Dir   string
	// Env is the whole environment; nil takes the caller's.
	Env []string
	// Stdout takes the program's output where that is its result; nil sends
	// it to the log with the rest.
	Stdout io.Writer
	// Stdin is what the program reads; nil is nothing.
	Stdin io.Reader
	// Kill ends a stopped program at once, for one that has nothing to clean
	// up: all that it made goes with its namespaces.
	Kill bool
	// LogFile keeps the whole output, appended; empty for none.
	LogFile string
	// Line is called with each line of output; nil is silence.
	Line func(string)
	// Explain turns the last lines of output into a cause and a remedy,
	// where it knows one. Nil knows none.
	Explain func(tail []string) Cause
}

// Cause is what a program's output means.
type Cause struct {
	// What happened, as a sentence without a full stop; empty when unknown.
	What string
	// Remedy says what to do.
	Remedy string
	// Network says that another machine did not answer, or not as it should.
	Network bool
}

// Error is a run that failed. Its text is one sentence; Tail and LogFile are
// for whoever wants to see more.
type Error struct {
	Doing string
	Tool  string
	Cause Cause
	// Tail holds the last lines of output, at most KeptLines of them.
	Tail []string
	// LogFile holds the whole output; empty when none was kept.
	LogFile string
	Err     error
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: ", e.Doing)
	if e.Cause.What != "" {
		b.WriteString(e.Cause.What)
	} else {
		fmt.Fprintf(&b, "%s failed (%v)", e.Tool, e.Err)
		if last := lastLine(e.Tail); last != "" {
			fmt.Fprintf(&b, ": %q", last)
		}
	}
	if e.LogFile != "" {
		fmt.Fprintf(&b, " (the whole log is in %q)", e.LogFile)
	}
	if e.Cause.Remedy != "" {
		fmt.Fprintf(&b, "; %s", e.Cause.Remedy)
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// LastLines are what the program printed last, for whoever was not watching.
func (e *Error) LastLines() []string { return e.Tail }

// Network reports whether another machine was at fault, for the exit code.
func (e *Error) Network() bool { return e.Cause.Network }

// lastLine prefers the last line that apt or mmdebstrap marked as an error.
func lastLine(tail []string) string {
	for i := len(tail) - 1; i >= 0; i-- {
		if strings.HasPrefix(tail[i], "E: ") {
			return tail[i]
		}
	}
	if len(tail) == 0 {
		return ""
	}
	return tail[len(tail)-1]
}

// Find looks a program up on the PATH and in the folders of system programs,
// which a user's PATH often lacks. The error names the package to install.
func Find(name, pkg string) (string, error) {
	if p, err := exec.LookPath(name); err == nil {
		return p, nil
	}
	for _, dir := range []string{"/usr/sbin/", "/sbin/", "/usr/lib/apt/"} {
		if p, err := exec.LookPath(dir + name); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("the program %q is not installed; on Debian, apt-get install %s", name, pkg)
}

// Run runs the command in a process group of its own and waits for it. When
// the context ends, the group gets SIGTERM and, after Grace, SIGKILL; Run
// then returns the context's cause.
func (c Command) Run(ctx context.Context) error {
	keep, closeLog, err := c.keeper()
	if err != nil {
		return err
	}
	defer closeLog()
	cmd := c.command(ctx, keep)
	err = cmd.Run()
	keep.flush()
	if ctx.Err() != nil {
		killGroup(cmd)
		return fmt.Errorf("%s: %w", c.Doing, context.Cause(ctx))
	}
	if err == nil {
		return nil
	}
	return c.failure(err, keep.tail())
}

func (c Command) command(ctx context.Context, keep *keeper) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdin = c.Dir, c.Env, c.Stdin
	cmd.Stdout, cmd.Stderr = io.Writer(keep), keep
	if c.Stdout != nil {
		cmd.Stdout = c.Stdout
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	end := syscall.SIGTERM
	if c.Kill {
		end = syscall.SIGKILL
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, end) }
	cmd.WaitDelay = Grace
	return cmd
}

// killGroup ends what outlived its leader; a group that is gone is no error.
func killGroup(cmd *exec.Cmd) {
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
}

func (c Command) keeper() (*keeper, func(), error) {
	k := &keeper{line: c.Line}
	if c.LogFile == "" {
		return k, func() {}, nil
	}
	f, err := os.OpenFile(c.LogFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: opening the log %q: %w", c.Doing, c.LogFile, err)
	}
	k.log = f
	return k, func() { f.Close() }, nil
}

func (c Command) failure(err error, tail []string) error {
	e := &Error{Doing: c.Doing, Tool: base(c.Args[0]), Tail: tail, LogFile: c.LogFile, Err: err}
	if c.Explain != nil {
		e.Cause = c.Explain(tail)
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) && e.Cause.What == "" {
		e.Cause.What = fmt.Sprintf("%s did not start: %v", e.Tool, err)
	}
	return e
}

func base(p string) string { return p[strings.LastIndexByte(p, '/')+1:] }
