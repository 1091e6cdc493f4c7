package node

import (
	"net/netip"
	"sync"
	"time"
)

// How many requests a node may make: so many at once, and so many a second on
// the long run. A boot makes some thirty.
const (
	burst     = 200
	perSecond = 20
	maxKnown  = 16384
)

// limiter is a token bucket for every address.
type limiter struct {
	mu      sync.Mutex
	buckets map[netip.Addr]bucket
}

type bucket struct {
	left float64
	at   time.Time
}

// allow tells whether an address may make one more request now.
func (l *limiter) allow(a netip.Addr, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, known := l.buckets[a]
	if !known {
		if l.buckets == nil || len(l.buckets) >= maxKnown {
			l.buckets = map[netip.Addr]bucket{}
		}
		b = bucket{burst, now}
	}
	b.left = min(burst, b.left+max(0, now.Sub(b.at).Seconds())*perSecond)
	b.at = now
	ok := b.left >= 1
	if ok {
		b.left--
	}
	l.buckets[a] = b
	return ok
}
