package rig

import (
	"context"
	"fmt"
	"os/exec"
	"syscall"
	"time"
)

// Server is a process that runs inside the namespace, with its output kept.
type Server struct {
	Console *Console
	cmd     *exec.Cmd
	ended   chan struct{}
}

// Start starts a process inside the namespace. line, which may be nil, hears
// every line that it prints.
func (n *Net) Start(ctx context.Context, line func(string), args ...string) (*Server, error) {
	cmd := n.Command(ctx, args...)
	s := &Server{Console: NewConsole(line), cmd: cmd, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = s.Console, s.Console
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %v: %w", args, err)
	}
	go func() {
		defer close(s.ended)
		s.Console.End(cmd.Wait())
	}()
	return s, nil
}

// PID is the process's id: "ip netns exec" puts the program in its own place.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Stop asks the process to end and waits until it has.
func (s *Server) Stop() {
	s.cmd.Process.Signal(syscall.SIGTERM)
	<-s.ended
}

// Kill ends the process as a crash would, and waits until it is gone.
func (s *Server) Kill() {
	s.cmd.Process.Kill()
	<-s.ended
}
