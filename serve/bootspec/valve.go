package bootspec

import (
	"sync"
	"time"
)

// StrangersPerSecond is how many events a protocol makes of addresses that no
// node has.
const StrangersPerSecond = 10

// Valve lets StrangersPerSecond events a second through and holds the rest, so
// that who has no node's address cannot fill the log. The zero Valve is ready.
type Valve struct {
	mu     sync.Mutex
	second int64
	count  int
}

// Open says whether one more event goes through at that time.
func (v *Valve) Open(now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if now.Unix() != v.second {
		v.second, v.count = now.Unix(), 0
	}
	v.count++
	return v.count <= StrangersPerSecond
}
