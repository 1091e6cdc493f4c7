package tftp

import "time"

// Waiting for an acknowledgement. RFC 1350 leaves it open; RFC 1123 section
// 4.2.3.2 asks for an adaptive, growing time. The floor is far above a network's
// round trip, for firmware that draws a progress bar between two blocks.
const (
	firstWait = time.Second
	leastWait = 200 * time.Millisecond
	mostWait  = 3 * time.Second
	tries     = 6
)

// patience says how long to wait for the next acknowledgement, from how long
// the earlier ones took (RFC 6298's estimator).
type patience struct {
	// fixed is the negotiated timeout; 0 for none.
	fixed     time.Duration
	mean, dev time.Duration
	failed    int
}

// wait is the time until the window is sent again.
func (p *patience) wait() time.Duration {
	if p.fixed > 0 {
		return p.fixed
	}
	base := firstWait
	if p.mean > 0 {
		base = min(max(p.mean+4*p.dev, leastWait), firstWait)
	}
	return min(base<<p.failed, mostWait)
}

// answered takes one round trip's time; repeated ones say nothing (Karn).
func (p *patience) answered(took time.Duration, repeated bool) {
	p.failed = 0
	if repeated {
		return
	}
	if p.mean == 0 {
		p.mean, p.dev = took, took/2
		return
	}
	p.dev += (max(took-p.mean, p.mean-took) - p.dev) / 4
	p.mean += (took - p.mean) / 8
}

// expired notes that nothing came, and says whether to try again. Long
// negotiated timeouts get fewer tries, so that a client that is gone is not
// kept for half an hour.
func (p *patience) expired() bool {
	p.failed++
	limit := tries
	if p.fixed > 0 {
		limit = min(max(int(time.Minute/p.fixed), 2), tries)
	}
	return p.failed < limit
}
