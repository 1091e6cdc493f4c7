package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"rhizome/serve/boot"

	"github.com/opencontainers/go-digest"
)

// eventLog takes what serve sees: a line each on stdout, a JSON line each in
// the store's events folder, a file a day.
type eventLog struct {
	out   io.Writer
	json  bool
	dir   string
	mount func(boot.Event)

	mu   sync.Mutex
	told map[string]*minute
	day  string
	file *os.File
	// broken is the first error of the store's log; it is told once.
	broken error
	tell   func(error)
}

// maxNodeEvents is how many events of one node a minute are written. A boot has
// some thirty; a node that has more is broken, or wants to fill the disk.
const maxNodeEvents = 300

// minute counts one node's events.
type minute struct {
	at    int64
	count int
}

// admit says whether an event is written, or what is written in its place.
func (l *eventLog) admit(e boot.Event) (boot.Event, bool) {
	if e.Node == "" {
		return e, true // the protocols bound what strangers make
	}
	m, now := l.told[e.Node], e.Time.Unix()/60
	if m == nil {
		m = &minute{}
		l.told[e.Node] = m
	}
	if m.at != now {
		*m = minute{at: now}
	}
	m.count++
	if m.count == maxNodeEvents+1 {
		return boot.Event{Time: e.Time, Kind: boot.EventsDropped, Node: e.Node,
			Error: fmt.Sprintf("more than %d events of this node in a minute: the rest of them is not kept", maxNodeEvents)}, true
	}
	return e, m.count <= maxNodeEvents
}

func (h *host) openEvents() (*eventLog, error) {
	dir, err := h.store.EventsDir(h.cluster)
	if err != nil {
		return nil, err
	}
	return &eventLog{out: h.out, json: h.json, dir: dir, told: map[string]*minute{}, mount: h.noteMount, tell: func(err error) {
		h.term.logger().Warn("events are no longer kept in the store", "error", err)
	}}, nil
}

func (l *eventLog) take(e boot.Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	if e.Kind == boot.MountDone {
		l.mount(e)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.admit(e)
	if !ok {
		return
	}
	line, err := json.Marshal(e)
	if err != nil {
		return
	}
	line = append(line, '\n')
	if l.json {
		fmt.Fprintf(l.out, "%s", line)
	} else {
		fmt.Fprintln(l.out, eventText(e))
	}
	if err := l.keep(e.Time, line); err != nil && l.broken == nil {
		l.broken = err
		l.tell(err)
	}
}

func (l *eventLog) keep(at time.Time, line []byte) error {
	if day := at.UTC().Format(time.DateOnly); day != l.day {
		l.closeFile()
		f, err := os.OpenFile(filepath.Join(l.dir, day+".jsonl"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		l.day, l.file = day, f
	}
	_, err := l.file.Write(line)
	return err
}

func (l *eventLog) closeFile() {
	if l.file != nil {
		l.file.Close()
	}
	l.file, l.day = nil, ""
}

func (l *eventLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closeFile()
}

// eventText is an event as a line for people: when, what, who, and the rest.
func eventText(e boot.Event) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", e.Time.UTC().Format("2006-01-02T15:04:05.000Z"), e.Kind)
	for _, f := range []struct{ name, value string }{
		{"node", e.Node}, {"mac", e.MAC}, {"client", e.Client}, {"file", e.File}, {"digest", e.Digest},
		{"detail", e.Detail}, {"error", e.Error},
	} {
		if f.value != "" {
			fmt.Fprintf(&b, " %s=%s", f.name, quoted(f.value))
		}
	}
	if e.Addr.IsValid() {
		fmt.Fprintf(&b, " addr=%s", e.Addr)
	}
	if e.Bytes > 0 {
		fmt.Fprintf(&b, " bytes=%d", e.Bytes)
	}
	if e.Took > 0 {
		fmt.Fprintf(&b, " took=%s", e.Took.Round(time.Millisecond))
	}
	return b.String()
}

// quoted keeps one event on one line, whatever a packet put into a name.
func quoted(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == '"' || r == 0x7f }) {
		return fmt.Sprintf("%q", s)
	}
	return s
}

// noteMount remembers what a node runs from, so that it is neither collected
// nor forgotten over a restart.
func (h *host) noteMount(e boot.Event) {
	if e.Node == "" || e.Digest == "" {
		return
	}
	if err := h.store.SetMounted(h.cluster, e.Node, digest.Digest(e.Digest)); err != nil {
		h.term.logger().Warn("a mount could not be noted", "node", e.Node, "error", err)
	}
}
