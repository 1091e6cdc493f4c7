package reads

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"rhizome/serve/boot"
	"rhizome/serve/rootfs"
)

// Limits of what is kept.
const (
	// memory is what all counters together may take, in bytes; a boot that
	// finds no room is counted in part and says so.
	memory = 64 << 20
	// maxJobs is how many jobs of one boot are counted.
	maxJobs = 32
	// sameBoot is how soon after another a mount belongs to the same boot,
	// where no DHCP is seen: FreeBSD's loader mounts for every file.
	sameBoot = time.Minute
)

// BootWindow names the counts from a node's mount until it is up.
const BootWindow = "boot"

// Root is what a book must know of a root that a node has.
type Root struct {
	Node string
	// Mode is the root mode; Bundle says that the node holds a precache bundle,
	// and does not ask for what is in it.
	Mode   string
	Bundle bool
	View   *rootfs.View
}

// Book keeps the counts of all nodes.
type Book struct {
	cluster string
	now     func() time.Time
	// find gives the root behind a client and an image's id.
	find func(client netip.Addr, id [16]byte) (Root, bool)
	keep func(Record)

	room  atomic.Int64
	mu    sync.Mutex
	nodes map[string]*node
}

// node is one node and the boot it is in.
type node struct {
	name string
	// meters are those in use since the boot began; those of images that are used
	// no more go with it.
	meters  map[*Meter]struct{}
	boot    *bootCount
	mounted time.Time
	// asked says that the node asked for an address after its last mount.
	asked bool
}

// bootCount is one boot while it is counted.
type bootCount struct {
	record Record
	tables map[[16]byte]*table
	views  map[[16]byte]*rootfs.View
	full   atomic.Bool
	up     bool
	jobs   map[string]*job
	// kept is how much of the boot was in the record that was kept last.
	kept uint64
}

// job is a job that has begun.
type job struct {
	began time.Time
	then  map[[16]byte]map[rootfs.File]Counts
}

// NewBook makes a book. find tells who a client is; keep takes records of boots,
// each again when there is more of it, under the same node and begin.
func NewBook(cluster string, now func() time.Time, find func(netip.Addr, [16]byte) (Root, bool), keep func(Record)) *Book {
	b := &Book{cluster: cluster, now: now, find: find, keep: keep, nodes: map[string]*node{}}
	b.room.Store(memory)
	return b
}

// Meter gives what counts a client's use of a root; nil where the client is no
// node.
func (b *Book) Meter(client netip.Addr, id [16]byte) *Meter {
	root, ok := b.find(client, id)
	if !ok {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.node(root.Node)
	for m := range n.meters {
		if m.root.View.ID() == id {
			return m
		}
	}
	m := &Meter{book: b, owner: n, root: root}
	n.meters[m] = struct{}{}
	return m
}

func (b *Book) node(name string) *node {
	n := b.nodes[name]
	if n == nil {
		n = &node{name: name, meters: map[*Meter]struct{}{}}
		b.nodes[name] = n
	}
	return n
}

func (b *Book) newBoot(n *node, partial bool) *bootCount {
	c := &bootCount{tables: map[[16]byte]*table{}, views: map[[16]byte]*rootfs.View{}, jobs: map[string]*job{}}
	c.record = Record{Version: Version, Cluster: b.cluster, Node: n.name, Began: b.now().UTC(), Partial: partial}
	return c
}

// begin gives a meter the table of its node's boot.
func (b *Book) begin(m *Meter) *table {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t := m.table.Load(); t != nil {
		return t
	}
	n := m.owner
	n.meters[m] = struct{}{} // it may be a former boot's, still asked
	if n.boot == nil {
		n.boot = b.newBoot(n, true)
	}
	n.boot.record.take(m.root)
	id := m.root.View.ID()
	t := n.boot.tables[id]
	if t == nil {
		t = newTable(m.root.View, &b.room, &n.boot.full)
		n.boot.tables[id], n.boot.views[id] = t, m.root.View
	}
	m.table.Store(t)
	return t
}

// Event takes what serve saw: a mount begins a boot, and what the node reports
// ends it and tells of jobs.
func (b *Book) Event(e boot.Event) {
	if e.Node == "" {
		return
	}
	b.mu.Lock()
	var done []Record
	n := b.node(e.Node)
	switch e.Kind {
	case boot.DHCPDiscover, boot.DHCPBootp:
		n.asked = true
	case boot.MountDone:
		done = b.mount(n, e)
	case boot.NodeUp:
		done = b.up(n)
	case boot.NodeJobBegin:
		b.beginJob(n, e.Detail)
	case boot.NodeJobEnd:
		done = b.endJob(n, e.Detail)
	}
	b.mu.Unlock()
	b.keepAll(done)
}

func (b *Book) keepAll(all []Record) {
	for _, r := range all {
		b.keep(r)
	}
}

// mount begins a boot, unless the mount is one more of the boot that runs.
func (b *Book) mount(n *node, e boot.Event) []Record {
	if e.Digest == "" {
		return nil // a writable export
	}
	now := b.now()
	again := !n.asked && now.Sub(n.mounted) < sameBoot
	n.mounted, n.asked = now, false
	if again && n.boot != nil {
		return nil
	}
	done := b.end(n)
	n.boot = b.newBoot(n, false)
	n.boot.record.Digest = e.Digest
	return done
}

// end closes a node's boot.
func (b *Book) end(n *node) []Record {
	if n.boot == nil {
		return nil
	}
	done := n.boot.finish(b.now())
	for _, t := range n.boot.tables {
		t.free()
	}
	for m := range n.meters {
		m.table.Store(nil)
	}
	clear(n.meters)
	n.boot = nil
	return done
}

func (b *Book) up(n *node) []Record {
	if n.boot == nil || n.boot.up {
		return nil
	}
	n.boot.closeBoot(b.now(), true)
	return []Record{n.boot.record.clone()}
}

func (b *Book) beginJob(n *node, name string) {
	if n.boot == nil || name == "" || len(n.boot.jobs) >= maxJobs {
		return
	}
	n.boot.jobs[name] = &job{began: b.now().UTC(), then: n.boot.snapshot()}
}

func (b *Book) endJob(n *node, name string) []Record {
	if n.boot == nil || n.boot.jobs[name] == nil || len(n.boot.record.Windows) > maxJobs {
		return nil
	}
	j := n.boot.jobs[name]
	delete(n.boot.jobs, name)
	n.boot.record.Windows = append(n.boot.record.Windows, Window{Name: name, Began: j.began, Ended: b.now().UTC(), Files: n.boot.files(j.then)})
	return []Record{n.boot.record.clone()}
}

// Flush keeps the boots of nodes that are not up yet, or never say so.
func (b *Book) Flush() {
	b.mu.Lock()
	var done []Record
	for _, n := range b.nodes {
		if n.boot != nil && !n.boot.up && n.boot.grown() {
			n.boot.closeBoot(b.now(), false)
			done = append(done, n.boot.record.clone())
		}
	}
	b.mu.Unlock()
	b.keepAll(done)
}

// Close keeps all that has been counted.
func (b *Book) Close() {
	b.mu.Lock()
	var done []Record
	for _, n := range b.nodes {
		done = append(done, b.end(n)...)
	}
	b.mu.Unlock()
	b.keepAll(done)
}
