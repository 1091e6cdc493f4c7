package reads

import (
	"container/heap"
	"path"
	"slices"
	"strings"

	"rhizome/serve/rootfs"
)

// callBytes is how many bytes weigh as much as one call: what a call costs in
// waiting, on links of every speed, is of the order of such a READ.
const callBytes = 32 << 10

// What a MiB of a node's memory must spare, in calls: to be held at all, each
// time; and, in one boot, to be worth the wait of a boot on any link. The latter
// is half of its bytes, which is more than a bundle has of them, compressed.
const (
	worth      = 4
	firstWorth = 1 << 20 / 2 / callBytes
)

// Wish says what is to be learned.
type Wish struct {
	// Limit is the most that the list may take of a node's memory in bytes; 0 is
	// as much as is worth it.
	Limit int64
	// Cost is what a file of so many bytes takes of it.
	Cost func(size int64) int64
	// Folders says that only whole folders can be held, and MaxFolders how many.
	Folders    bool
	MaxFolders int
	// Apart says what cannot be held: it differs between nodes, or something is
	// mounted over it.
	Apart func(p string, f rootfs.File) bool
	// Before says what is read before there is a bundle, and whole: to hold it
	// spares nothing. Nil is nothing.
	Before func(p string) bool
}

// Step is one path of a list, with what the list spares up to it.
type Step struct {
	Path string `json:"path"`
	// Whole says that the path is a folder, held with all that is in it.
	Whole bool `json:"whole,omitempty"`
	// First says that boots read it, and so would do well to wait for it.
	First bool `json:"first,omitempty"`
	// Memory is in bytes; Calls and Bytes are what nodes need not ask for.
	Memory int64  `json:"memory"`
	Calls  uint64 `json:"calls"`
	Bytes  uint64 `json:"bytes"`
}

// List is a hot list and what it was made of: what boots read comes first, both
// parts have their hottest first.
type List struct {
	Steps []Step `json:"steps"`
	// First is the memory in bytes of the steps that boots read.
	First int64 `json:"first,omitempty"`
	// Total are all counts, over Windows boots or jobs.
	Total   Counts `json:"total"`
	Windows int    `json:"windows"`
	// Gone are counted paths that the image has no more.
	Gone int `json:"gone,omitempty"`
}

// Learn makes the hot list of an image from what nodes asked for. A file that
// is held spares the calls about it. A folder that is held whole spares those
// that search it, too: its names need not be asked for. So each is taken with
// what it spares for its memory, the best first.
func Learn(v *rootfs.View, windows []Window, w Wish) (*List, error) {
	l := &learner{wish: w, byPath: map[string]*place{}, byFile: map[rootfs.File]*place{}}
	if err := l.plant(v); err != nil {
		return nil, err
	}
	out := &List{Windows: len(windows)}
	times := map[string]int{}
	for _, win := range windows {
		times[win.Name]++
		l.times = max(l.times, times[win.Name])
		for _, f := range win.Files {
			out.Total.Add(f.Counts)
			if !l.count(v, f, win.Name == BootWindow) {
				out.Gone++
			}
		}
	}
	l.boots = times[BootWindow]
	if w.Folders {
		// Each folder is a mount on the node: a handful of calls is not worth it.
		l.least = weight(out.Total) / 100
	}
	l.sum(l.byPath["/"])
	l.choose()
	out.Steps, out.First = inOrder(l.steps)
	return out, nil
}

// place is one path of the image.
type place struct {
	path     string
	up       *place
	children []*place
	dir      bool
	apart    bool
	counts   Counts
	boot     Counts // those of counts that boots asked for
	cost     int64
	// same are the other names of its file; head is the first, for those.
	same []*place
	head *place
	held bool
	// Of all at and below it that is not held yet: what it takes, and what it
	// would spare. bad says that something below cannot be held.
	restCost int64
	rest     Counts
	restBoot Counts
	bad      bool
	late     bool // something below it is held, and not first
	turn     int  // of the heap's newest item for it
}

type learner struct {
	wish   Wish
	byPath map[string]*place
	byFile map[rootfs.File]*place
	queue  queue
	// least is what a place must spare at all, in calls.
	least float64
	// times is how often the same was seen, at most; boots how often a boot was.
	times, boots int
	memory       int64
	steps        []Step
	whole        int
}

// plant makes a place for every path of the image.
func (l *learner) plant(v *rootfs.View) error {
	return v.Walk("/", func(p string, f rootfs.File, a rootfs.Attr) error {
		n := &place{path: strings.Clone(p), dir: a.Kind == rootfs.Dir, up: l.byPath[path.Dir(p)]}
		n.apart = l.wish.Apart != nil && l.wish.Apart(p, f)
		size := int64(0)
		if a.Kind == rootfs.Regular {
			size = int64(a.Size)
		}
		n.cost = l.wish.Cost(size)
		l.byPath[n.path] = n
		if p == "/" {
			n.up = nil
			return nil
		}
		n.up.children = append(n.up.children, n)
		if first := l.byFile[f]; first != nil && !n.dir {
			first.same, n.head, n.cost = append(first.same, n), first, 0
		} else {
			l.byFile[f] = n
		}
		return nil
	})
}

// count adds what was asked about a path, which may lead through symlinks.
func (l *learner) count(v *rootfs.View, f File, boot bool) bool {
	n := l.byPath[f.Path]
	if n == nil {
		file, err := v.Locate(f.Path)
		if err != nil {
			return false // another version has it no more
		}
		if n = l.byFile[file]; n == nil {
			return false
		}
	}
	if n.head != nil {
		n = n.head
	}
	if l.wish.Before != nil && l.wish.Before(n.path) {
		return true
	}
	if n.counts.Add(f.Counts); boot {
		n.boot.Add(f.Counts)
	}
	return true
}

// sum adds up what lies below a place.
func (l *learner) sum(n *place) {
	n.restCost, n.rest, n.restBoot, n.bad = n.cost, n.counts, n.boot, n.apart
	if n.up != nil && n.up.up == nil {
		// A bundle is laid over folders of the root, not over the root itself:
		// what lies in that, and the way to those folders, is asked for always.
		n.rest.Calls, n.restBoot.Calls, n.bad = 0, 0, n.bad || !n.dir
	}
	for _, c := range n.children {
		l.sum(c)
		n.restCost += c.restCost
		n.rest.Add(c.rest)
		n.restBoot.Add(c.restBoot)
		n.bad = n.bad || c.bad
	}
	l.offer(n)
}

// weight is what counts are worth, in calls.
func weight(c Counts) float64 { return float64(c.All()) + float64(c.Bytes)/callBytes }

func perMiB(calls float64, cost int64) float64 { return calls / (float64(max(cost, 1)) / (1 << 20)) }

// offer puts a place into the queue with what it would spare for its memory.
func (l *learner) offer(n *place) {
	if n.bad || n.path == "/" || l.wish.Folders && !n.dir {
		return
	}
	n.turn++
	gain := weight(n.rest)
	if !n.dir {
		gain = weight(n.counts)
	}
	if gain > l.least {
		heap.Push(&l.queue, offer{n, n.turn, perMiB(gain, n.restCost)})
	}
}

// choose takes places, the best first, until nothing is worth its memory.
func (l *learner) choose() {
	for l.queue.Len() > 0 {
		o := heap.Pop(&l.queue).(offer)
		n := o.place
		if o.turn != n.turn || n.held {
			continue
		}
		if l.wish.Limit > 0 && l.memory+n.restCost > l.wish.Limit {
			continue
		}
		if l.wish.Limit == 0 && o.worth < worth*float64(l.times) {
			break
		}
		if l.wish.Folders {
			if l.whole++; l.wish.MaxFolders > 0 && l.whole > l.wish.MaxFolders {
				break
			}
		}
		l.take(n)
	}
}

// take holds a place with all below it, and with the other names of its file.
func (l *learner) take(n *place) {
	s := Step{Path: n.path, Whole: n.dir, First: l.first(n)}
	for _, held := range append([]*place{n}, n.same...) {
		if !held.held {
			l.hold(held, &s)
		}
	}
	l.memory += s.Memory
	l.steps = append(l.steps, s)
}

// first says whether boots use what a place would hold enough to wait for it.
// What it holds already must come before it.
func (l *learner) first(n *place) bool {
	return !l.wish.Folders && !n.late && l.boots > 0 && perMiB(weight(n.restBoot)/float64(l.boots), n.restCost) >= firstWorth
}

func (l *learner) hold(n *place, s *Step) {
	cost, spared, boot := n.restCost, n.rest, n.restBoot
	s.Memory += cost
	s.Calls += spared.All()
	s.Bytes += spared.Bytes
	mark(n)
	for up := n.up; up != nil; up = up.up {
		up.restCost -= cost
		up.rest, up.restBoot = up.rest.since(spared), up.restBoot.since(boot)
		up.late = up.late || !s.First
		l.offer(up)
	}
}

// inOrder puts the steps that boots wait for before the others, and sums up what
// each has by itself. It also says what the former take of memory.
func inOrder(steps []Step) (out []Step, first int64) {
	slices.SortStableFunc(steps, func(a, b Step) int {
		switch {
		case a.First == b.First:
			return 0
		case a.First:
			return -1
		}
		return 1
	})
	var sum Step
	for i := range steps {
		s := &steps[i]
		s.Memory, s.Calls, s.Bytes = s.Memory+sum.Memory, s.Calls+sum.Calls, s.Bytes+sum.Bytes
		if sum = *s; s.First {
			first = s.Memory
		}
	}
	return steps, first
}

// mark holds all at and below a place.
func mark(n *place) {
	n.held, n.restCost, n.rest, n.restBoot = true, 0, Counts{}, Counts{}
	for _, c := range n.children {
		mark(c)
	}
}

// offer is a place in the queue; one with an older turn is out of date.
type offer struct {
	place *place
	turn  int
	worth float64
}

// queue is a heap, the best offer first; equal ones by their paths.
type queue []offer

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	if q[i].worth != q[j].worth {
		return q[i].worth > q[j].worth
	}
	return q[i].place.path < q[j].place.path
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

// Push and Pop implement heap.Interface.
func (q *queue) Push(x any) { *q = append(*q, x.(offer)) }

// Pop takes the last element away.
func (q *queue) Pop() any {
	old := *q
	last := old[len(old)-1]
	*q = slices.Delete(old, len(old)-1, len(old))
	return last
}
