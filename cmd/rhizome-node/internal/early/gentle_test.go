package early

import (
	"testing"
	"time"
)

// reading is a node that reads over NFS for a while: calls a step, step by step.
type reading struct {
	steps []int64
	total int64
	slept time.Duration
}

func (r *reading) calls() int64 { return r.total }

func (r *reading) sleep(d time.Duration) bool {
	if r.slept += d; len(r.steps) > 0 {
		r.total += r.steps[0]
		r.steps = r.steps[1:]
	}
	return true
}

// A fill in the background waits while the node reads, goes on when it has
// stopped, and is not kept from its end by one that never stops.
func TestABackgroundFillLetsTheNodeReadFirst(t *testing.T) {
	for name, c := range map[string]struct {
		since int64 // calls since the last piece
		steps []int64
		want  time.Duration
	}{
		"idle":                {0, nil, 0},
		"one call":            {1, []int64{0}, gentleStep},
		"three steps of work": {50, []int64{40, 1}, 3 * gentleStep},
		"without end":         {50, []int64{9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9}, gentleMost},
	} {
		t.Run(name, func(t *testing.T) {
			node := &reading{steps: c.steps, total: 1000 + c.since}
			g := &gentle{calls: node.calls, sleep: node.sleep, last: 1000}
			if g.yield(); node.slept != c.want {
				t.Errorf("it waited %v, want %v", node.slept, c.want)
			}
			if g.last != node.total {
				t.Errorf("the next piece counts from %d, and the node is at %d", g.last, node.total)
			}
		})
	}
	var hurry *gentle
	if hurry.yield(); hurry.window() <= gentleWindow {
		t.Errorf("a boot that waits for its bundle has a window of %d", hurry.window())
	}
}
