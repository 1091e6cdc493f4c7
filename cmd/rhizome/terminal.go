package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"

	"rhizome/cmd/rhizome/internal/units"
	"rhizome/pipeline"
	"rhizome/registry/remote"

	"golang.org/x/term"
)

// streams are the program's ways out and in, handed in so that tests can watch.
type streams struct {
	in       io.Reader
	out, err io.Writer
	env      func(string) (string, bool)
}

func (s streams) getenv(name string) string {
	v, _ := s.env(name)
	return v
}

// results is stdout. It remembers the first error of a write: results that got
// lost are a failure, whatever wrote them. before is called first, to take away
// what stands on the terminal's last line.
type results struct {
	io.Writer
	before func()
	err    error
}

func (r *results) Write(p []byte) (int, error) {
	r.before()
	n, err := r.Writer.Write(p)
	if r.err == nil {
		r.err = err
	}
	return n, err
}

// terminal holds the program's manners: results go to stdout, all else to
// stderr; a person sees one line that changes, a log sees lines, a machine
// sees JSON.
type terminal struct {
	err     io.Writer
	style   string
	verbose bool
	width   int

	mu     sync.Mutex
	status bool
	last   time.Time
}

func newTerminal(s streams, style string, quiet, verbose bool) (*terminal, error) {
	t := &terminal{err: s.err, style: style, verbose: verbose, width: 80}
	switch style {
	case "auto":
		t.style = "plain"
		if f, ok := s.err.(*os.File); ok && term.IsTerminal(int(f.Fd())) && s.getenv("TERM") != "dumb" {
			t.style = "live"
			if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 20 {
				t.width = w
			}
		}
	case "plain", "json", "none":
	default:
		return nil, fmt.Errorf("--progress is auto, plain, json or none, not %q", style)
	}
	if quiet {
		t.style = "none"
	}
	return t, nil
}

// logger writes debug messages with --verbose and warnings always.
func (t *terminal) logger() *slog.Logger {
	level := slog.LevelWarn
	if t.verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(t.err, &slog.HandlerOptions{Level: level}))
}

// note is a sentence for the person at the terminal.
func (t *terminal) note(format string, args ...any) {
	if t.style == "none" || t.style == "json" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clear()
	fmt.Fprintf(t.err, format+"\n", args...)
}

// build shows an event of a build.
func (t *terminal) build(e pipeline.Event) {
	switch t.style {
	case "none":
		return
	case "json":
		t.line(e)
		return
	}
	switch e.Kind {
	case pipeline.StepProgress:
		t.changing(fmt.Sprintf("%s: %s", e.Step, amount(e)))
	case pipeline.StepLog:
		t.toolLine(e)
	case pipeline.StepFailed:
		// The error itself is printed at the end, once.
	default:
		t.note("%-8s %s: %s", e.Kind, e.Step, e.Message)
	}
}

// line writes a value as a line of JSON, for a program that watches.
func (t *terminal) line(v any) {
	data, err := json.Marshal(v)
	if err != nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.err, "%s\n", data)
}

func (t *terminal) toolLine(e pipeline.Event) {
	if t.verbose {
		t.note("  %s| %s", e.Step, e.Message)
		return
	}
	t.changing(fmt.Sprintf("%s: %s", e.Step, e.Message))
}

// changing replaces the status line, ten times a second at most; where output
// is a log, it says nothing.
func (t *terminal) changing(line string) {
	if t.style != "live" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if now.Sub(t.last) < 100*time.Millisecond {
		return
	}
	t.last = now
	r := []rune(strings.Map(plain, line))
	if len(r) > t.width-1 {
		r = r[:t.width-1]
	}
	t.clear()
	fmt.Fprint(t.err, string(r))
	t.status = true
}

// plain takes what would leave the line out of what a tool said.
func plain(r rune) rune {
	if unicode.IsControl(r) {
		return ' '
	}
	return r
}

func (t *terminal) clear() {
	if t.status {
		fmt.Fprint(t.err, "\r\x1b[K")
		t.status = false
	}
}

func (t *terminal) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clear()
}

func amount(e pipeline.Event) string {
	s := e.Message
	if e.Unit == "bytes" {
		s += " " + bytesText(e.Done)
		if e.Total > 0 {
			s += " of " + bytesText(e.Total)
		}
		return s
	}
	if e.Total > 0 {
		return fmt.Sprintf("%s %d of %d", s, e.Done, e.Total)
	}
	return s
}

// bytesText writes a number of bytes for people, in powers of ten.
func bytesText(n int64) string { return units.Bytes(n) }

// transfer shows how far a push or pull is.
func (t *terminal) transfer(p remote.Progress) {
	switch t.style {
	case "none":
	case "json":
		t.line(p)
	case "plain":
		if p.Note != "" {
			t.note("%-8s %s %s", p.Doing, p.Digest, p.Note)
		}
	default:
		t.changing(fmt.Sprintf("%s %s: %s of %s, %d of %d blobs", p.Doing, p.Ref, bytesText(p.Done), bytesText(p.Total), p.Blobs, p.BlobsTotal))
	}
}
