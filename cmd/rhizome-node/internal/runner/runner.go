// Package runner runs the command of a user and stands for it: signals are
// passed on, and its exit code is given as a shell would give it.
package runner

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/term"
)

// Command is what to run.
type Command struct {
	// Path is the program's file, Args its arguments with its name first.
	Path string
	Args []string
	// Env is the environment; nil is this process's.
	Env            []string
	Dir            string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Attr           *syscall.SysProcAttr
}

// Look finds a command as execvp(3) does.
func Look(name string) (string, error) {
	path, err := exec.LookPath(name)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("there is no command %q: %w", name, fs.ErrNotExist)
	}
	if err != nil {
		return "", fmt.Errorf("the command %q cannot be run: %w", name, err)
	}
	return path, nil
}

// Missing tells whether Look found no such command.
func Missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// passed are the signals that are passed on.
var passed = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2}

// Run runs a command to its end and gives its exit code; 128 and the signal's
// number where one ended it. An error means that it never began.
func Run(c Command) (int, error) {
	// A child that dies with its parent (Pdeathsig) dies with this thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, passed...)
	defer signal.Stop(signals)
	cmd := &exec.Cmd{Path: c.Path, Args: c.Args, Env: c.Env, Dir: c.Dir, Stdin: c.Stdin, Stdout: c.Stdout, Stderr: c.Stderr, SysProcAttr: c.Attr}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("running %q: %w", c.Path, err)
	}
	done := make(chan struct{})
	go pass(cmd.Process, signals, done, term.IsTerminal(int(os.Stdin.Fd())))
	err := cmd.Wait()
	close(done)
	return Code(cmd.ProcessState, err), nil
}

// pass hands signals to the command. At a terminal the whole foreground group
// gets those of the keyboard, the command among it: twice would be too often.
func pass(p *os.Process, signals <-chan os.Signal, done <-chan struct{}, terminal bool) {
	for {
		select {
		case <-done:
			return
		case s := <-signals:
			if terminal && (s == syscall.SIGINT || s == syscall.SIGQUIT) {
				continue
			}
			_ = p.Signal(s)
		}
	}
}

// Code is the exit code of a command that ended, as sh(1) has it in $?.
func Code(state *os.ProcessState, err error) int {
	if state == nil {
		return 126
	}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	if err != nil && state.ExitCode() == 0 {
		return 1 // its output could not be passed on
	}
	return state.ExitCode()
}
