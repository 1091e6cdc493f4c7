package early

import "time"

// What a fill in the background takes of the link.
const (
	// gentleWindow is how many bytes may be on their way when the node begins to
	// read something else: a twentieth of a second of 10 Mbit/s.
	gentleWindow = 64 << 10
	// hastyWindow bounds that before the link is known: it comes over it even if the
	// fill is put off.
	hastyWindow = 256 << 10
	// gentleStep is how long the node must have asked nothing: a READ of 128 KiB, as
	// Linux reads ahead, takes a third of it at 10 Mbit/s. gentleMost is how long that
	// is waited for at most: a node that reads without end gets its bundle too, if
	// late.
	gentleStep = 300 * time.Millisecond
	gentleMost = 3 * time.Second
)

// gentle has a fill in the background let the node's own reads go first: it is what
// the node does later that a bundle helps, and nothing is to be slower for it
// meanwhile. A nil one is in a hurry.
type gentle struct {
	calls func() int64
	sleep func(time.Duration) bool
	last  int64
}

// window is what the connection is opened with.
func (g *gentle) window() int {
	if g == nil {
		return hastyWindow
	}
	return gentleWindow
}

// yield waits while the node reads over NFS.
func (g *gentle) yield() {
	if g == nil {
		return
	}
	before := g.last
	for waited := time.Duration(0); waited < gentleMost; waited += gentleStep {
		g.last = g.calls()
		if g.last == before || !g.sleep(gentleStep) {
			return
		}
		before = g.last
	}
	g.last = g.calls()
}
