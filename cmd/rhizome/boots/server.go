package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"rhizome/cmd/rhizome/internal/rig"
)

// server is one way to serve the node, with what was measured of it.
type server struct {
	kind    kind
	net     *rig.Net
	process *rig.Server
	cgroup  string
	took    []time.Duration
	cpu     time.Duration
}

// kind is a server's name and how it is started: the command, and what its
// output shows when it answers.
type kind struct {
	name  string
	start func(b *bench, s *server, dir string) (command []string, ready string, err error)
}

// start starts a server in a namespace and a cgroup of its own. A server that
// is returned must be closed, even beside an error.
func (b *bench) start(ctx context.Context, i int, k kind) (*server, error) {
	cidr := netip.PrefixFrom(b.network.Server, b.network.Subnet.Bits()).String()
	n, err := rig.NewNet(ctx, fmt.Sprintf("rz-boots-%d-%d", os.Getpid(), i), cidr)
	if err != nil {
		return nil, err
	}
	s := &server{kind: k, net: n}
	dir := filepath.Join(b.dir, strconv.Itoa(i))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return s, err
	}
	command, ready, err := k.start(b, s, dir)
	if err != nil {
		return s, err
	}
	if s.cgroup, err = makeCgroup(fmt.Sprintf("rhizome-boots-%d-%d", os.Getpid(), i)); err != nil {
		return s, err
	}
	// The command waits until its shell is in the cgroup, so that all that it
	// starts is counted.
	gate := filepath.Join(dir, "go")
	wait := fmt.Sprintf("until [ -e %s ]; do sleep 0.05; done; exec \"$@\"", gate)
	if s.process, err = n.Start(context.WithoutCancel(ctx), nil, append([]string{"sh", "-c", wait, "sh"}, command...)...); err != nil {
		return s, err
	}
	if err := os.WriteFile(filepath.Join(s.cgroup, "cgroup.procs"), []byte(strconv.Itoa(s.process.PID())), 0o644); err != nil {
		return s, err
	}
	if err := os.WriteFile(gate, nil, 0o644); err != nil {
		return s, err
	}
	within, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if _, _, err := s.process.Console.Wait(within, 0, ready); err != nil {
		return s, fmt.Errorf("%w\n%s", err, s.process.Console.Tail(2000))
	}
	return s, nil
}

func (s *server) close() error {
	if s.process != nil {
		s.process.Kill()
	}
	return errors.Join(s.net.Close(), removeCgroup(s.cgroup))
}

// measure boots the machine once; only what counts is kept.
func (s *server) measure(ctx context.Context, b *bench, counts bool) error {
	unlock, err := lock(ctx, b.lock)
	if err != nil {
		return err
	}
	defer unlock()
	before, err := cpuOf(s.cgroup)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, b.limit, errors.New("the machine did not come up in time"))
	defer cancel()
	began := time.Now()
	r, err := s.net.Boot(ctx, rig.Machine{Name: b.node.Name, MAC: b.node.MACs[0], MemoryMB: b.memory, CPU: b.cpu}, nil)
	if err != nil {
		return err
	}
	defer r.Off()
	if _, _, err := r.Console.Wait(ctx, 0, `NODE-UP name=`); err != nil {
		return fmt.Errorf("%w; the console ends with:\n%s\nand the server's output with:\n%s", err, r.Console.Tail(2000), s.process.Console.Tail(2000))
	}
	took := time.Since(began)
	after, err := cpuOf(s.cgroup)
	if err != nil || !counts {
		return err
	}
	s.took, s.cpu = append(s.took, took), s.cpu+after-before
	fmt.Fprintf(os.Stderr, "%-36s %6.1f s  %4.0f ms CPU\n", s.kind.name, took.Seconds(), float64((after-before).Microseconds())/1000)
	return nil
}

// lock waits for a file's lock; no name is none.
func lock(ctx context.Context, name string) (unlock func(), err error) {
	if name == "" {
		return func() {}, nil
	}
	f, err := os.OpenFile(name, os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), f.Close())
		case <-time.After(time.Second):
		}
	}
	return func() { f.Close() }, nil
}

// makeCgroup makes a cgroup in the unified hierarchy, which counts CPU without
// any controller (cgroup-v2, "cpu.stat"), wherever that is mounted.
func makeCgroup(name string) (string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			dir := filepath.Join(f[1], name)
			return dir, os.Mkdir(dir, 0o755)
		}
	}
	return "", errors.New("no cgroup2 is mounted here: mount -t cgroup2 none /sys/fs/cgroup/unified")
}

// removeCgroup waits for the last killed process to be gone.
func removeCgroup(dir string) (err error) {
	if dir == "" {
		return nil
	}
	for range 100 {
		if err = os.Remove(dir); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return err
}

// cpuOf reads what all processes of a cgroup have used.
func cpuOf(cgroup string) (time.Duration, error) {
	text, err := os.ReadFile(filepath.Join(cgroup, "cpu.stat"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "usage_usec "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			return time.Duration(n) * time.Microsecond, err
		}
	}
	return 0, fmt.Errorf("%s/cpu.stat has no usage_usec", cgroup)
}
