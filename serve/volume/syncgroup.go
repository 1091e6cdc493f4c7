package volume

import "sync"

// syncGroup lets calls that wait for one file share an fsync: of sixteen stable
// writes in flight, the first is on its way to the disk while the others are
// written, and one more fsync is enough for all of those.
type syncGroup struct {
	mu   sync.Mutex
	done sync.Cond
	// started and finished count fsyncs; one runs at a time.
	started, finished uint64
	// failed is the last that failed, with err.
	failed uint64
	err    error
}

// wait returns after an fsync that began after the call.
func (g *syncGroup) wait(fsync func() error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.done.L = &g.mu
	want := g.started + 1
	for g.finished < want {
		if g.started > g.finished {
			g.done.Wait()
			continue
		}
		g.run(fsync)
	}
	if g.failed >= want {
		return g.err
	}
	return nil
}

// run does one fsync; g.mu is held before and after, not meanwhile.
func (g *syncGroup) run(fsync func() error) {
	g.started++
	n := g.started
	g.mu.Unlock()
	err := fsync()
	g.mu.Lock()
	g.finished = n
	if err != nil {
		g.failed, g.err = n, err
	}
	g.done.Broadcast()
}
