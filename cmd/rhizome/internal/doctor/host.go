package doctor

import (
	"time"

	"rhizome/cmd/rhizome/internal/units"
)

// Clock is this machine's time beside what it should be later than.
type Clock struct {
	Now time.Time
	// Epoch is the date of the recipe or image, zero for none.
	Epoch time.Time
	// Record is the newest time in the store's own records.
	Record time.Time
}

// clockSlack is how far two clocks of one site may be apart.
const clockSlack = 5 * time.Minute

// Check judges the clock: nodes take theirs from here, by events, leases and
// the times of what they write.
func (c Clock) Check() []Finding {
	f := findings{what: AboutHost}
	const remedy = "set the clock (timedatectl, or ntpdate on FreeBSD)"
	switch {
	case c.Record.After(c.Now.Add(clockSlack)):
		f.fail(remedy, "the clock says %s, and the store has a record of %s: it has gone back", when(c.Now), when(c.Record))
	case c.Epoch.After(c.Now.Add(clockSlack)):
		f.warn(remedy+", or the recipe's epoch", "the clock says %s, which is before the image's date %s: every file of the nodes is of the future", when(c.Now), when(c.Epoch))
	}
	return f.all
}

func when(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// Limits are what this process, and so a serve begun like it, may take.
type Limits struct {
	// Files is how many descriptors; 0 is not known.
	Files uint64
	// Nodes is how many nodes are to be served.
	Nodes int
	// FrameCache is what serve takes for decoded pieces of layers; Available is
	// what the machine has to give, and Bound the control group's limit. Each in
	// bytes, 0 where it is not known.
	FrameCache, Available, Bound int64
}

const (
	// filesBase are layers, sockets and the store's own files; a node has
	// connections, and files of its writable exports that are in use. What
	// serve/volume keeps open beyond that (fileCache) it closes when descriptors
	// run out.
	filesBase    = 256
	filesPerNode = 16
	// besides is what serve takes beside the frame cache.
	besides = 64 << 20
)

// Check judges the limits.
func (l Limits) Check() []Finding {
	f := findings{what: AboutHost}
	if need := uint64(filesBase + filesPerNode*l.Nodes); l.Files > 0 && l.Files < need {
		f.warn("raise it (ulimit -Hn, or LimitNOFILE= of the unit)", "a process may have %d files open, and serving %d node(s) may take %d", l.Files, l.Nodes, need)
	}
	need := l.FrameCache + besides
	switch {
	case l.Bound > 0 && l.Bound < need:
		f.warn("raise the limit, or serve with --frame-cache", "the control group's memory limit is %s, and serve's frame cache may take %s", units.Bytes(l.Bound), units.Bytes(l.FrameCache))
	case l.Available > 0 && l.Available < need:
		f.warn("end other programs, or serve with --frame-cache", "%s of memory are available, and serve's frame cache may take %s", units.Bytes(l.Available), units.Bytes(l.FrameCache))
	}
	return f.all
}

// Tools are what building the recipe lacks on this machine, a sentence with
// its remedy each.
func Tools(lacks []error) []Finding {
	f := findings{what: AboutHost}
	for _, err := range lacks {
		f.fail("", "%v", err)
	}
	return f.all
}

// Room is where a build works, and what it may need there.
type Room struct {
	Dir        string
	Free, Need int64
}

// Check judges the room for a build.
func (r Room) Check() []Finding {
	f := findings{what: AboutHost}
	if r.Need > r.Free {
		f.warn("free some space there, or set XDG_CACHE_HOME", "building the recipe anew may take %s in %q, which has %s free", units.Bytes(r.Need), r.Dir, units.Bytes(r.Free))
	}
	return f.all
}
