// Package sandbox runs a command over a root file system and says what the
// root is afterwards. The command sees the root, its inputs and nothing else
// of the machine: no network, no other process, no host name; and nothing that
// it mounted or started outlives it.
//
// The root is unpacked into a folder of the build's own, inside namespaces: as
// root, or as a user whose range of ids stands for the root's owners. Only what
// the command touched is read back, so an attribute that the build's disk
// cannot hold is not lost by passing through it.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"rhizome/pipeline/tree"
	"rhizome/stages/debian/tool"
)

// InputsAt is where the command finds its inputs, read-only; it is also where
// it starts.
const InputsAt = "/run/rhizome/inputs"

// Env is what a run may use of the machine.
type Env struct {
	// Work is a folder of the run's own; bodies of the result lie in it.
	Work string
	// LogFile keeps the command's whole output; empty for none.
	LogFile string
	// Line takes each line of output; nil is silence.
	Line func(string)
	// WriteTar writes a tree as a tar.
	WriteTar func(w io.Writer, t *tree.Tree, epoch time.Time) error
}

// Command is what to run.
type Command struct {
	// Doing begins an error's sentence: "running the script".
	Doing string
	// Args are the program, a path in the root, and its arguments.
	Args []string
	// Inputs is a folder on this machine that appears at InputsAt; empty for
	// an empty one.
	Inputs string
	// Epoch becomes SOURCE_DATE_EPOCH.
	Epoch time.Time
	// Extra are further settings of the environment, "NAME=value".
	Extra []string
}

// Try finds out whether this machine can run a command apart, and keeps nothing
// of it.
func Try(ctx context.Context) error {
	_, err := enter(ctx)
	return err
}

// mountPoints of the root are covered while the command runs. What it writes
// there is gone with it.
var mountPoints = []string{"proc", "sys", "dev", "run", "tmp"}

// Run unpacks lower, runs the command over it and returns the root as it is
// then: what was not touched is lower's own. Devices stay as they are, since
// nobody but root could make any.
func Run(ctx context.Context, env Env, lower *tree.Tree, c Command) (*tree.Tree, error) {
	if err := checkMountPoints(lower); err != nil {
		return nil, fmt.Errorf("%s: %w", c.Doing, err)
	}
	m, err := enter(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Doing, err)
	}
	work, err := filepath.Abs(env.Work)
	if err != nil {
		return nil, fmt.Errorf("%s: finding the build's folder: %w", c.Doing, err)
	}
	env.Work = work
	r := &run{env: env, m: m, c: c, lower: lower, root: filepath.Join(work, "root")}
	return r.all(ctx)
}

// checkMountPoints refuses a root in which mounting would follow a link.
func checkMountPoints(t *tree.Tree) error {
	for _, p := range mountPoints {
		if e := t.Lookup(p); e != nil && e.Kind != tree.Dir {
			return fmt.Errorf("the root's %q is a %s; a command can only run where it is a directory", "/"+p, e.Kind)
		}
	}
	return nil
}

// run is one run of one command.
type run struct {
	env   Env
	m     machine
	c     Command
	lower *tree.Tree
	root  string
}

func (r *run) all(ctx context.Context) (upper *tree.Tree, err error) {
	if err := r.m.removeAll(r.root); err != nil {
		return nil, fmt.Errorf("%s: %w", r.c.Doing, err)
	}
	// The folder is the root itself where no layer describes it: whoever builds
	// has no say in its mode.
	if err := errors.Join(os.MkdirAll(r.root, 0o755), os.Chmod(r.root, 0o755)); err != nil {
		return nil, fmt.Errorf("%s: making the build's folder: %w", r.c.Doing, err)
	}
	defer func() {
		if cerr := r.m.removeAll(r.root); err == nil && cerr != nil {
			err = fmt.Errorf("%s: %w", r.c.Doing, cerr)
		}
	}()
	before, err := r.unpack(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.command(ctx); err != nil {
		return nil, err
	}
	return r.collect(ctx, before)
}

// tick is longer than the kernel's, by which files are stamped (10 ms where HZ
// is 100). Without it a file that the command changes at once would bear the
// stamp that unpacking gave it.
const tick = 20 * time.Millisecond

// unpack lays out the lower tree and lists it.
func (r *run) unpack(ctx context.Context) (stamps, error) {
	unpacked, err := withoutDevices(r.lower)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.c.Doing, err)
	}
	pr, pw := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := r.env.WriteTar(pw, unpacked, r.c.Epoch)
		pw.CloseWithError(err)
		written <- err
	}()
	err = tool.Command{
		Doing: "unpacking the layers below", Args: r.m.unpack(r.root), Stdin: pr, Env: plainEnv(),
		LogFile: r.env.LogFile, Explain: explain(r.env.Work), Kill: true,
	}.Run(ctx)
	pr.CloseWithError(errStopped)
	if werr := <-written; werr != nil && !errors.Is(werr, errStopped) {
		err = fmt.Errorf("unpacking the layers below: %w", werr)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.c.Doing, err)
	}
	time.Sleep(tick)
	return r.list(ctx)
}

var errStopped = errors.New("the reader of the tar stopped")

func withoutDevices(t *tree.Tree) (*tree.Tree, error) {
	out := tree.New()
	for _, e := range t.Entries() {
		if device(e) {
			continue
		}
		if err := out.Add(*e); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (r *run) command(ctx context.Context) error {
	inputs := r.c.Inputs
	if inputs == "" {
		inputs = filepath.Join(r.env.Work, "no-inputs")
		if err := errors.Join(os.MkdirAll(inputs, 0o755), os.Chmod(inputs, 0o755)); err != nil {
			return fmt.Errorf("%s: making the build's folder: %w", r.c.Doing, err)
		}
	}
	err := tool.Command{
		Doing: r.c.Doing, Args: r.m.run(r.root, inputs, r.c.Args), Env: r.environ(),
		LogFile: r.env.LogFile, Line: r.env.Line, Explain: explain(r.env.Work), Kill: true,
	}.Run(ctx)
	var failed *tool.Error
	if errors.As(err, &failed) {
		failed.Tool = "the command"
	}
	return err
}

// environ is the command's whole environment, the same on every machine.
func (r *run) environ() []string {
	return append(plainEnv(), append([]string{
		"HOME=/root", "USER=root", "LOGNAME=root", "SHELL=/bin/sh", "TZ=UTC", "TERM=dumb",
		"SOURCE_DATE_EPOCH=" + strconv.FormatInt(r.c.Epoch.Unix(), 10),
	}, r.c.Extra...)...)
}

func plainEnv() []string {
	return []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"}
}

// explain reads the last lines of tar, mount and chroot.
func explain(work string) func([]string) tool.Cause {
	return func(tail []string) tool.Cause {
		all := strings.Join(tail, "\n")
		switch {
		case strings.Contains(all, "No space left on device"):
			return tool.Cause{What: fmt.Sprintf("the disk that holds %q is full", filepath.Dir(work)), Remedy: "free some space and build again"}
		case strings.Contains(all, "Exec format error"):
			return tool.Cause{What: "this machine cannot run programs of the recipe's architecture or system", Remedy: "build on a machine of that kind, or, for another architecture, apt-get install qemu-user-static binfmt-support"}
		case strings.Contains(all, "chroot: failed to run command"):
			return tool.Cause{What: fmt.Sprintf("the root has no such program (%s)", tail[len(tail)-1]), Remedy: "add the package that brings it to the layers below"}
		}
		return tool.Cause{}
	}
}
