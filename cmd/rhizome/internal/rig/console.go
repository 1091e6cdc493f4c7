package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"sync"
)

// errEnded is in every error of a wait for what can no longer come.
var errEnded = errors.New("no more output comes")

// Console keeps all that a machine or a process printed and lets a test wait
// for a line. It is an io.Writer.
type Console struct {
	// Line, if set, is told every whole line as it comes.
	Line func(string)

	mu      sync.Mutex
	all     []byte
	partial []byte
	changed chan struct{}
	ended   error
	done    bool
}

// NewConsole returns an empty console; line may be nil.
func NewConsole(line func(string)) *Console {
	return &Console{Line: line, changed: make(chan struct{})}
}

// Write takes output.
func (c *Console) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.all = append(c.all, p...)
	c.partial = append(c.partial, p...)
	lines := c.cut()
	c.wake()
	c.mu.Unlock()
	if c.Line != nil {
		for _, l := range lines {
			c.Line(l)
		}
	}
	return len(p), nil
}

// cut takes the whole lines off the partial output.
func (c *Console) cut() []string {
	var lines []string
	for {
		i := bytes.IndexByte(c.partial, '\n')
		if i < 0 {
			return lines
		}
		lines = append(lines, string(bytes.TrimRight(c.partial[:i], "\r")))
		c.partial = c.partial[i+1:]
	}
}

func (c *Console) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// End says that nothing more will come, and why.
func (c *Console) End(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done, c.ended = true, err
	c.wake()
}

// Text is everything so far.
func (c *Console) Text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.all)
}

// Tail is the last n bytes, for error messages.
func (c *Console) Tail(n int) string {
	t := c.Text()
	if len(t) > n {
		t = t[len(t)-n:]
	}
	return t
}

// Wait returns the first match of a pattern in the output, at or after byte
// offset from, as soon as it is there; the match's groups come with it.
func (c *Console) Wait(ctx context.Context, from int, pattern string) ([]string, int, error) {
	re := regexp.MustCompile(pattern)
	for {
		c.mu.Lock()
		text, changed, done, ended := c.all, c.changed, c.done, c.ended
		c.mu.Unlock()
		if at := re.FindSubmatchIndex(text[from:]); at != nil {
			return groups(text[from:], at), from + at[1], nil
		}
		if done {
			return nil, from, fmt.Errorf("it ended before it printed %q: %w", pattern, errors.Join(errEnded, ended))
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, from, fmt.Errorf("waiting for %q: %w", pattern, context.Cause(ctx))
		}
	}
}

func groups(text []byte, at []int) []string {
	var g []string
	for i := 0; i < len(at); i += 2 {
		s := ""
		if at[i] >= 0 {
			s = string(text[at[i]:at[i+1]])
		}
		g = append(g, s)
	}
	return g
}
