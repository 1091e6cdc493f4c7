package freebsd

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// tailLines is how many of a failed build's last lines are shown.
const tailLines = 30

// stopTime is how long a build may take to end after a signal before it gets a
// harder one.
const stopTime = 3 * time.Second

// Runner runs commands and keeps what they print.
type Runner struct {
	// Logs is the folder for whole logs, a file a target.
	Logs string
	// Progress gets the lines that say where a build is; nil is silence.
	Progress func(line string)
}

// MakeError is a build that failed: what was made, the last lines it printed,
// and where all of them are.
type MakeError struct {
	Target string
	Log    string
	Tail   []string
	Cause  error
}

// Error is a sentence with a remedy where one is known, then the last lines.
func (e *MakeError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "make %s: %v", e.Target, e.Cause)
	if hint := explain(e.Tail); hint != "" {
		fmt.Fprintf(&b, ": %s", hint)
	}
	fmt.Fprintf(&b, "; the whole log is %q, and its last lines are:", e.Log)
	for _, l := range e.Tail {
		b.WriteString("\n    " + l)
	}
	return b.String()
}

// Unwrap gives the cause, so that a build that was stopped is known by
// context.Canceled.
func (e *MakeError) Unwrap() error { return e.Cause }

// Run runs a command under a target's name. Cancelling stops the command and
// every process it started.
func (r Runner) Run(ctx context.Context, target string, c Command) error {
	if err := ctx.Err(); err != nil {
		return stopped(target, err)
	}
	log, err := r.open(target, c)
	if err != nil {
		return err
	}
	defer log.Close()
	tail, err := r.run(ctx, c, log)
	if ctx.Err() != nil {
		return stopped(target, ctx.Err())
	}
	if err != nil {
		return &MakeError{Target: target, Log: log.Name(), Tail: tail, Cause: err}
	}
	return nil
}

func stopped(target string, err error) error {
	return fmt.Errorf("make %s was stopped: %w; what is built so far is kept, and the next build goes on from there", target, err)
}

// Log is the file that a target's output goes to.
func (r Runner) Log(target string) string { return filepath.Join(r.Logs, target+".log") }

// open appends, so that the log of a build that was interrupted stays whole.
func (r Runner) open(target string, c Command) (*os.File, error) {
	if err := os.MkdirAll(r.Logs, 0o755); err != nil {
		return nil, fmt.Errorf("making a folder for logs: %w", err)
	}
	f, err := os.OpenFile(r.Log(target), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening the log of make %s: %w", target, err)
	}
	fmt.Fprintf(f, "# in %s: %s\n", c.Dir, strings.Join(c.Args, " "))
	return f, nil
}

func (r Runner) run(ctx context.Context, c Command, log io.Writer) ([]string, error) {
	cmd := exec.Command(c.Args[0], c.Args[1:]...)
	cmd.Dir, cmd.Env = c.Dir, c.Env
	// make's children are in its process group, so that all of them can be
	// stopped at once, and a Ctrl-C at the terminal reaches them through us.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = in, in
	err = cmd.Start()
	in.Close()
	if err != nil {
		return nil, fmt.Errorf("starting %q: %w", c.Args[0], err)
	}
	g := group{pid: cmd.Process.Pid, silent: make(chan struct{}), stopped: make(chan struct{})}
	unhook := context.AfterFunc(ctx, g.stop)
	tail := r.follow(out, log)
	close(g.silent)
	if !unhook() {
		<-g.stopped
	}
	return tail, cmd.Wait()
}

// group is a process group whose leader is our child. Until the leader is
// waited for, its number cannot become another group's.
type group struct {
	pid int
	// silent is closed when no process holds the output any more, stopped when
	// stop is done.
	silent, stopped chan struct{}
}

// stop ends the group: by SIGINT, on which make removes half-made targets; by
// SIGTERM for what a shell has put into the background, where SIGINT is
// ignored; and whatever is left is killed.
func (g group) stop() {
	defer close(g.stopped)
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		_ = syscall.Kill(-g.pid, sig)
		if g.silentWithin(stopTime) {
			break
		}
	}
	_ = syscall.Kill(-g.pid, syscall.SIGKILL)
}

func (g group) silentWithin(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-g.silent:
		return true
	case <-t.C:
		return false
	}
}

// follow copies output into the log and keeps the last lines. It ends when the
// last process that holds the pipe has ended.
func (r Runner) follow(out io.Reader, log io.Writer) []string {
	var tail []string
	in := bufio.NewReaderSize(out, 64<<10)
	for {
		line, err := in.ReadString('\n')
		if line != "" {
			_, _ = io.WriteString(log, line)
			line = strings.TrimRight(line, "\r\n")
			tail = keepLast(tail, line, tailLines)
			r.progress(line)
		}
		if err != nil {
			return tail
		}
	}
}

func keepLast(tail []string, line string, n int) []string {
	const longest = 2000 // a compiler's call may be longer than a screen
	if len(line) > longest {
		line = line[:longest] + "..."
	}
	tail = append(tail, line)
	if len(tail) > n {
		tail = tail[1:]
	}
	return tail
}

// progress passes on make's own headings: ">>> stage 4.2: building libraries"
// and "===> lib/libc (all)".
func (r Runner) progress(line string) {
	if r.Progress != nil && (strings.HasPrefix(line, ">>> ") || strings.HasPrefix(line, "===> ")) {
		r.Progress(line)
	}
}
