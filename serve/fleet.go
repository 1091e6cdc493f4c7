package serve

import (
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"rhizome/serve/rootfs"
)

// Fleet is the set of machines that serve answers, and what each boots next.
// Replacing it is one atomic switch; roots that were handed out before stay
// readable through their handles (roots.go).
type Fleet struct {
	// Shelf has the images that are not open, for handles that name them; nil
	// knows none. It is set before the fleet is asked anything.
	Shelf *Shelf

	mu     sync.RWMutex
	byMAC  map[string]*Machine
	byAddr map[netip.Addr]*Machine
	byName map[string]*Machine
	// generation changes with every switch, so that what was looked up before
	// can be known to be old.
	generation atomic.Uint64
	// roots are all that are open, by image id, with the address that may read
	// them; blobs are the same, by the id of their blobs.
	roots, blobs map[[16]byte]*root
	// missing are ids that the shelf did not have, and when that was; asked is when
	// a client last asked for such a one.
	missing map[[16]byte]time.Time
	asked   map[netip.Addr]time.Time
	// opening is held by the one who opens a root of the shelf.
	opening sync.Mutex
	// holds are the boots that go on with the image they began with, by node.
	holds map[string]*hold
	now   func() time.Time
	// admin are the networks whose machines may read every root.
	admin []netip.Prefix
}

// NewFleet returns a fleet without machines; now is the clock that boots are
// told apart by. Clients in the admin networks may mount and read every node's
// root; writable exports stay the nodes' own.
func NewFleet(now func() time.Time, admin ...netip.Prefix) *Fleet {
	return &Fleet{
		roots: map[[16]byte]*root{}, blobs: map[[16]byte]*root{}, holds: map[string]*hold{},
		missing: map[[16]byte]time.Time{}, asked: map[netip.Addr]time.Time{}, now: now, admin: admin,
	}
}

// mayRead decides whether a client may have a machine's root.
func (f *Fleet) mayRead(m *Machine, client netip.Addr) bool {
	client = client.Unmap()
	return m.Node.Address == client || slices.ContainsFunc(f.admin, func(p netip.Prefix) bool { return p.Contains(client) })
}

// moved says that a client has the address that a machine had, and is another node
// by now: an image that stays open for the handles of the one must not be read by the
// other. The caller has the lock.
func (f *Fleet) moved(m *Machine, client netip.Addr) bool {
	now := f.byAddr[client.Unmap()]
	return now != nil && now.Node.Name != m.Node.Name && m.Node.Address == now.Node.Address
}

// Switch makes these machines the ones that boot from now on.
func (f *Fleet) Switch(machines []*Machine) error {
	byMAC, byAddr, byName := map[string]*Machine{}, map[netip.Addr]*Machine{}, map[string]*Machine{}
	for _, m := range machines {
		byAddr[m.Node.Address], byName[m.Node.Name] = m, m
		for _, s := range m.Node.MACs {
			hw, err := net.ParseMAC(s)
			if err != nil {
				return fmt.Errorf("node %q: %w", m.Node.Name, err)
			}
			byMAC[hw.String()] = m
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.byMAC, f.byAddr, f.byName = byMAC, byAddr, byName
	for _, m := range machines {
		f.readable(m)
	}
	f.generation.Add(1)
	return nil
}

// Keep makes a machine's root readable by its handles, though new boots do not
// get it: the version that a node began its boot with.
func (f *Fleet) Keep(m *Machine) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.readable(m)
	f.generation.Add(1)
}

// Generation changes whenever the fleet does.
func (f *Fleet) Generation() uint64 { return f.generation.Load() }

// ByMAC is the machine that has a card with this address, with the image of
// the boot that it is in.
func (f *Fleet) ByMAC(hw net.HardwareAddr) (*Machine, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	m, ok := f.byMAC[hw.String()]
	if !ok {
		return nil, false
	}
	return f.held(m), true
}

// ByAddr is the machine that has this IP address, with the image of the boot
// that it is in.
func (f *Fleet) ByAddr(a netip.Addr) (*Machine, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	m, ok := f.byAddr[a.Unmap()]
	if !ok {
		return nil, false
	}
	return f.held(m), true
}

// Machines lists the machines that boot from now on, in no order.
func (f *Fleet) Machines() []*Machine {
	f.mu.RLock()
	defer f.mu.RUnlock()
	all := make([]*Machine, 0, len(f.byName))
	for _, m := range f.byName {
		all = append(all, m)
	}
	return all
}

// The exports that are no tree of the node's own: its root, and its blobs.
const (
	rootPrefix  = "/nodes/"
	blobsPrefix = "/blobs/"
)

func exportPath(node string) string { return path.Join(rootPrefix, node) }

func blobsPath(node string) string { return path.Join(blobsPrefix, node) }

// Root is the root that a client gets for a mounted path, of the boot that the
// node is in: its own alone, or any for an admin.
func (f *Fleet) Root(p string, client netip.Addr) (*Machine, string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, below, err := f.mountable(rootPrefix, p, client)
	if err != nil {
		return nil, "", err
	}
	if m.Node.Address == client.Unmap() { // an admin's look is no step of the node's boot
		f.take(m, StepMount)
	}
	return f.held(m), below, nil
}

// Blobs is the machine whose blobs a client gets for a mounted path: those of
// the image of the boot that the node is in. It is no step of a boot.
func (f *Fleet) Blobs(p string, client netip.Addr) (*Machine, string, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	m, below, err := f.mountable(blobsPrefix, p, client)
	if err != nil {
		return nil, "", err
	}
	return f.held(m), below, nil
}

// mountable finds the node that a path names, if this client may mount what is
// the node's. The caller has the lock.
func (f *Fleet) mountable(prefix, p string, client netip.Addr) (m *Machine, below string, err error) {
	rest, ok := strings.CutPrefix(path.Clean("/"+p), prefix)
	if !ok {
		return nil, "", fmt.Errorf("there is no export %q; nodes mount /nodes/NAME: %w", p, fs.ErrNotExist)
	}
	name, below, _ := strings.Cut(rest, "/")
	if m = f.byName[name]; m == nil {
		return nil, "", fmt.Errorf("there is no node %q in this cluster: %w", name, fs.ErrNotExist)
	}
	if !f.mayRead(m, client) {
		return nil, "", fmt.Errorf("%s may not mount %q, which is node %q's at %s: %w", client, p, name, m.Node.Address, fs.ErrPermission)
	}
	return m, below, nil
}

// ByID is the root that a handle names, if this client may read it.
func (f *Fleet) ByID(id [16]byte, client netip.Addr) (*rootfs.View, error) {
	m, err := f.handled(f.roots, id, client)
	if err != nil {
		return nil, err
	}
	return m.View, nil
}

// BlobsByID is the machine whose blobs a handle names, if this client may read
// them.
func (f *Fleet) BlobsByID(id [16]byte, client netip.Addr) (*Machine, error) {
	return f.handled(f.blobs, id, client)
}

func (f *Fleet) handled(by map[[16]byte]*root, id [16]byte, client netip.Addr) (*Machine, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	r := by[id]
	if r == nil {
		return nil, rootfs.ErrStale
	}
	m := r.machine
	if !f.mayRead(m, client) || f.moved(m, client) {
		return nil, fmt.Errorf("%s may not use a handle of node %q: %w", client, m.Node.Name, fs.ErrPermission)
	}
	r.used.Store(f.now().UnixNano())
	return m, nil
}
