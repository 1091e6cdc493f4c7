package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"rhizome/cmd/rhizome-node/internal/agent"
	"rhizome/cmd/rhizome-node/internal/prefetch"
	"rhizome/cmd/rhizome-node/internal/runner"
	"rhizome/serve/node/nodeapi"
)

// prefetchOptions are prefetch's flags.
type prefetchOptions struct {
	readOnly bool
	ttl      time.Duration
	// wait is how long to wait for a region that another has, retry how long
	// for a server that is away when the changes are to go back.
	wait, retry time.Duration
	// memory is the most that the region may take, in bytes; 0 is half of what
	// is free beyond what it needs.
	memory int64
}

// session is one run of prefetch.
type session struct {
	*program
	prefetchOptions
	c       *agent.Client
	paths   []string
	command prefetch.Bound
	lease   nodeapi.Lease
	keeper  *keeper
	root    *os.Root
	list    prefetch.Listing
	state   *stateFile
	// left is set when the memory holds changes that are nowhere else.
	left bool
}

func (p *program) prefetch(ctx context.Context, args []string) error {
	s, err := p.newSession(args)
	if err != nil {
		return err
	}
	return s.told(ctx, s.run(ctx))
}

func (o *prefetchOptions) flags() *flag.FlagSet {
	f := flag.NewFlagSet("prefetch", flag.ContinueOnError)
	f.BoolVar(&o.readOnly, "read-only", false, "write nothing back; the command cannot write to the region")
	f.DurationVar(&o.ttl, "ttl", nodeapi.DefaultTTL, "how long the lease lives without this program")
	f.DurationVar(&o.wait, "wait", 0, "how long to wait for a region that another has")
	f.DurationVar(&o.retry, "retry", 10*time.Minute, "how long to try to write back to a server that is away")
	f.Int64Var(&o.memory, "memory", 0, "the most memory in bytes that the region may take; 0 is half of what is free beyond what it needs")
	return f
}

func (p *program) newSession(args []string) (*session, error) {
	before, argv, err := split(args)
	if err != nil {
		return nil, err
	}
	s := &session{program: p}
	f := s.flags()
	f.SetOutput(p.err)
	if err := f.Parse(before); err != nil {
		return nil, &codeError{nil, exitUsage}
	}
	if f.NArg() == 0 {
		return nil, usagef("prefetch takes one or more paths and a command: rhizome-node prefetch PATH... -- COMMAND")
	}
	if s.ttl < nodeapi.MinTTL || s.ttl > nodeapi.MaxTTL {
		return nil, usagef("--ttl is between %v and %v, not %v", nodeapi.MinTTL, nodeapi.MaxTTL, s.ttl)
	}
	if s.c, err = agent.Find(p.dir); err != nil {
		return nil, &codeError{err, exitNetwork}
	}
	s.paths, s.command.Args = f.Args(), argv
	return s, nil
}

// told tells the server of what went wrong, unless it did so itself.
func (s *session) told(ctx context.Context, err error) error {
	var code *codeError
	if err == nil || errors.As(err, &code) && (code.err == nil || code.code == exitConflict) {
		return err
	}
	r := nodeapi.Report{Step: "prefetch", State: nodeapi.Failed, Message: err.Error(), Uptime: agent.Uptime().Seconds()}
	if tell := s.c.Report(ctx, r); tell != nil {
		s.note("the server does not know of it: %v", tell)
	}
	return err
}

// run is the whole of a session, in order.
func (s *session) run(ctx context.Context) error {
	if err := s.look(); err != nil {
		return err
	}
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.free(ctx)
	if err := s.enough(); err != nil {
		return err
	}
	if err := s.begin(); err != nil {
		return err
	}
	defer s.end()
	if err := s.fill(ctx); err != nil {
		return err
	}
	code, err := s.work()
	if err != nil || s.readOnly {
		return errors.Join(err, code0(code))
	}
	if err := s.writeBack(ctx); err != nil {
		return err
	}
	return code0(code)
}

// look makes sure of what can be known without the server: that the command is
// there, and the paths.
func (s *session) look() (err error) {
	if s.command.Path, err = runner.Look(s.command.Args[0]); err != nil {
		return s.noCommand(err)
	}
	if s.command.Path, err = filepath.Abs(s.command.Path); err != nil {
		return err
	}
	if s.command.Dir, err = os.Getwd(); err != nil {
		return err
	}
	for i, p := range s.paths {
		if p, err = filepath.Abs(p); err == nil {
			p, err = filepath.EvalSymlinks(p)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return &codeError{fmt.Errorf("there is no %q: make the folder first", s.paths[i]), exitNotFound}
		}
		if err != nil {
			return fmt.Errorf("finding %q: %w", s.paths[i], err)
		}
		if err := prefetch.Flush(p); err != nil {
			return fmt.Errorf("sending what this node wrote to %q to the server: %w", p, err)
		}
		s.paths[i] = p
	}
	s.command.Paths, s.command.ReadOnly = s.paths, s.readOnly
	return nil
}

// take leases the region.
func (s *session) take(ctx context.Context) (err error) {
	mode := nodeapi.Write
	if s.readOnly {
		mode = nodeapi.Read
	}
	req := nodeapi.LeaseRequest{Paths: s.paths, Mode: mode, TTL: int(s.ttl.Seconds())}
	for until := time.Now().Add(s.wait); ; {
		s.lease, err = s.c.Lease(ctx, req)
		if agent.Status(err) != 409 || time.Now().After(until) {
			break
		}
		time.Sleep(time.Second)
	}
	if err != nil {
		return s.refused(err)
	}
	s.keeper = keep(ctx, s.c, s.lease.ID, s.ttl, s.note)
	return nil
}

// refused gives the exit code to an answer of the server, or of the network.
func (s *session) refused(err error) error {
	switch status := agent.Status(err); {
	case status == 409:
		return &codeError{err, exitConflict}
	case status == 404:
		return &codeError{err, exitNotFound}
	case status == 400:
		return &codeError{err, exitUsage}
	case agent.IsNetwork(err):
		return &codeError{err, exitNetwork}
	}
	return err
}

// free ends the lease; one that cannot be freed ends with its time.
func (s *session) free(ctx context.Context) {
	s.keeper.end()
	if err := s.c.Free(ctx, s.lease.ID); err != nil && agent.Status(err) != 404 {
		s.note("the lease ends with its time (%v): %v", s.ttl, err)
	}
}

// need is what the region takes in memory, in bytes: its files in whole pages,
// and what the kernel keeps of each.
func (s *session) need() int64 { return s.lease.Bytes + s.lease.Files*5<<10 + 1<<20 }

// enough checks the memory first: a node that runs out of it kills its jobs.
func (s *session) enough() error {
	have, err := prefetch.Memory()
	if err != nil {
		return fmt.Errorf("asking how much memory there is: %w", err)
	}
	need := s.need()
	if s.memory > 0 && need > s.memory {
		return fmt.Errorf("%s takes %s in memory, and --memory allows %s", s.what(), size(need), size(s.memory))
	}
	if need > have-have/16 {
		return fmt.Errorf("there is no memory for %s: it takes %s, and %s is free: lease less of it", s.what(), size(need), size(have))
	}
	if s.memory == 0 {
		s.memory = need + (have-need)/2
	}
	return nil
}

func (s *session) what() string { return strings.Join(s.paths, " ") }

// size is bytes for people.
func size(n int64) string {
	for _, u := range []struct {
		unit  string
		shift int
	}{{"G", 30}, {"M", 20}, {"K", 10}} {
		if n >= 1<<u.shift {
			return fmt.Sprintf("%.1f%s", float64(n)/float64(int64(1)<<u.shift), u.unit)
		}
	}
	return fmt.Sprint(n)
}

// begin mounts the memory.
func (s *session) begin() (err error) {
	if s.state, err = newState(s.dir, s.lease, s.command.Args); err != nil {
		return err
	}
	s.command.Base = s.state.base
	if err := prefetch.MountMemory(s.state.base, s.memory); err != nil {
		s.state.remove()
		return err
	}
	if s.root, err = os.OpenRoot(s.state.base); err != nil {
		s.end()
	}
	return err
}

// end takes the memory away, unless it holds what is nowhere else.
func (s *session) end() {
	if s.root != nil {
		s.root.Close()
	}
	if s.left {
		s.state.release()
		return
	}
	if err := prefetch.Unmount(s.state.base); err != nil {
		s.note("%v", err)
		s.state.release()
		return
	}
	s.state.remove()
}

// fill streams the region into memory. Where somebody writes to it meanwhile,
// or the connection breaks, it begins again.
func (s *session) fill(ctx context.Context) (err error) {
	const tries = 5
	for try := range tries {
		if try > 0 {
			s.note("streaming %s again: %v", s.what(), err)
			time.Sleep(time.Duration(try) * time.Second)
			if cleared := s.clear(); cleared != nil {
				return cleared
			}
		}
		if err = s.fillOnce(ctx); err == nil {
			return nil
		}
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.ENOMEM) {
			return fmt.Errorf("there is no memory for %s: it takes more than the %s it may have: %w", s.what(), size(s.memory), err)
		}
		if agent.Status(err) != 0 && !agent.IsNetwork(err) || errors.Is(err, fs.ErrPermission) {
			break
		}
	}
	if agent.Status(err) == 0 && agent.IsNetwork(err) {
		return &codeError{fmt.Errorf("streaming %s: %w", s.what(), err), exitNetwork}
	}
	return s.refused(fmt.Errorf("streaming %s: %w", s.what(), err))
}

func (s *session) fillOnce(ctx context.Context) error {
	tree, err := s.c.Tree(ctx, s.lease.ID)
	if err != nil {
		return err
	}
	defer tree.Close()
	if s.list, err = prefetch.Fill(s.root, tree); err != nil {
		return err
	}
	// The tar's end is not the body's: only that says that it is whole.
	_, err = io.Copy(io.Discard, tree)
	return err
}

// clear empties the memory for another try.
func (s *session) clear() error {
	names, err := os.ReadDir(s.state.base)
	for _, n := range names {
		err = errors.Join(err, s.root.RemoveAll(n.Name()))
	}
	return err
}

// work runs the command with the region in its place.
func (s *session) work() (int, error) {
	undo, err := prefetch.Place(s.command)
	if err != nil {
		return 0, err
	}
	path, args, attr, err := prefetch.Inside(s.command)
	if err == nil {
		var code int
		code, err = runner.Run(runner.Command{Path: path, Args: args, Dir: s.command.Dir, Stdin: os.Stdin, Stdout: s.out, Stderr: s.err, Attr: attr})
		if err == nil {
			return code, s.undone(undo())
		}
	}
	return 0, errors.Join(&codeError{err, exitCannot}, undo())
}

// undone tells of a mount that would not go: the changes go back all the same.
func (s *session) undone(err error) error {
	if err != nil {
		s.note("%v", err)
	}
	return nil
}

// inside is the inner side of prefetch on Linux.
func (p *program) inside(_ context.Context, args []string) error {
	return &codeError{prefetch.Become(args), exitCannot}
}
