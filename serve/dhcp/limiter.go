package dhcp

import (
	"sync"
	"time"
)

// limiter lets an event of one cause through a few times in a while: a machine
// that nobody knows asks every few seconds for ever. However many causes a
// hostile network thinks of, its memory and what it lets through are bounded.
type limiter struct {
	every time.Duration
	burst int
	most  int // causes that are remembered
	now   func() time.Time

	mu    sync.Mutex
	seen  map[string]window
	purge time.Time // when the map was last searched for what is over
}

type window struct {
	start time.Time
	count int
}

const (
	// maxCauses is for causes that anybody on the wire can think of.
	maxCauses = 1024
	// maxNodes is for causes of nodes, which are as many as the images name.
	maxNodes = 1 << 20
)

func newLimiter(every time.Duration, burst, most int, now func() time.Time) *limiter {
	return &limiter{every: every, burst: burst, most: most, now: now, seen: map[string]window{}}
}

// allow counts one occurrence and says whether to tell of it.
func (l *limiter) allow(cause string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	w, known := l.seen[cause]
	if !known || l.over(w, now) {
		w = window{start: now}
	}
	if !known && !l.room(now) {
		return false
	}
	w.count++
	l.seen[cause] = w
	return w.count <= l.burst
}

// over says whether a window has passed; one that begins in the future is from
// before the clock was set back.
func (l *limiter) over(w window, now time.Time) bool {
	age := now.Sub(w.start)
	return age >= l.every || age < 0
}

// room forgets what is over where there is no room, once a second at most.
func (l *limiter) room(now time.Time) bool {
	if len(l.seen) < l.most {
		return true
	}
	if age := now.Sub(l.purge); age >= 0 && age < time.Second {
		return false
	}
	l.purge = now
	for cause, w := range l.seen {
		if l.over(w, now) {
			delete(l.seen, cause)
		}
	}
	return len(l.seen) < l.most
}
