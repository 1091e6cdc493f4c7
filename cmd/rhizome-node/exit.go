package main

import (
	"errors"
	"fmt"
)

// Exit codes, those of rhizome. prefetch and job leave with the command's own
// where it ran; 126 and 127 are what env(1) gives for a command that cannot be
// run and one that is not there.
const (
	exitOK       = 0
	exitFailed   = 1
	exitUsage    = 2
	exitNotFound = 3
	exitNetwork  = 4
	exitConflict = 5
	exitCannot   = 126
	exitMissing  = 127
)

// exitMeaning is what a code says, for the manual.
type exitMeaning struct {
	code  int
	means string
}

func exitMeanings() []exitMeaning {
	return []exitMeaning{
		{exitOK, "done"},
		{exitFailed, "failed; with prefetch also where there is no memory for the region"},
		{exitUsage, "a wrong call, or a path that is in no export of this node"},
		{exitNotFound, "a path or a region that is not there"},
		{exitNetwork, "the server is away; changes that could not go back are left in memory, and the message says where"},
		{exitConflict, "another has the region, or it changed meanwhile and the changes are kept aside"},
		{exitCannot, "the command of prefetch or job cannot be run"},
		{exitMissing, "the command of prefetch or job is not there"},
	}
}

// codeError is an error with the code to leave with; a nil error is silent.
type codeError struct {
	err  error
	code int
}

func (e *codeError) Error() string { return fmt.Sprint(e.err) }

func (e *codeError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &codeError{fmt.Errorf(format, args...), exitUsage}
}

// exit prints what went wrong and gives the code to leave with.
func (p *program) exit(err error) int {
	if err == nil {
		return exitOK
	}
	code := exitFailed
	var c *codeError
	if errors.As(err, &c) {
		code = c.code
		if c.err == nil {
			return code
		}
	}
	fmt.Fprintf(p.err, "rhizome-node: %v\n", err)
	return code
}

// note says something on the way that does not end the program.
func (p *program) note(format string, args ...any) {
	fmt.Fprintf(p.err, "rhizome-node: "+format+"\n", args...)
}
