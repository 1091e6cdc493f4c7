package serve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"rhizome/serve/nfs"
	"rhizome/serve/rootfs"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// This file says which roots are open. Those that machines boot or run from are.
// So are others while handles of them are in use: a handle names its image, and
// is good as long as the store has that, so a root that was closed is opened
// again when a handle of it comes. A server that follows a tag for a year has as
// many open as one that began today.
//
// Closing is forgetting: the fleet lets go of the machine, and layers are closed
// when nobody can reach them any more (Loader).

const (
	// idleAfter is how long a root that nothing else needs stays open for its
	// handles. What a client uses is known to half of it (CloseIdle).
	idleAfter = 10 * time.Minute
	// spareRoots is how many such roots there may be beside one for each machine.
	spareRoots = 64
	// missingFor is how long an image is known not to be in the store, and
	// maxMissing how many are.
	missingFor = time.Minute
	maxMissing = 4096
	// askAgain is how soon a client may have the store searched again after it
	// asked for what was not there: a store of 100,000 blobs takes some 100 ms.
	askAgain = 5 * time.Second
)

// Shelf is where images lie that are not open: the store.
type Shelf struct {
	Loader *Loader
	// Find finds the manifest of a node whose digest fits, among all in the store;
	// its error matches fs.ErrNotExist where there is none.
	Find func(fits func(digest.Digest) bool) (ocispec.Descriptor, error)
	// Gone says that an error of the Loader is about what is not in the store.
	Gone func(error) bool
}

// root is a root that is open.
type root struct {
	machine *Machine
	// used is when a client last asked for it, in Unix nanoseconds.
	used atomic.Int64
}

// readable makes handles of a machine's root and blobs good. The caller has the
// lock.
func (f *Fleet) readable(m *Machine) {
	r := &root{machine: m}
	r.used.Store(f.now().UnixNano())
	f.roots[m.View.ID()] = r
	f.blobs[rootfs.BlobsID(m.Manifest.String())] = r
}

// CloseIdle lets go of the roots that no machine boots, no boot goes on with, and
// no client has used for a while, and counts them. It is to be called every
// idleAfter/2. Clients are asked to show what they use: Generation changes, so
// that their next call comes through ByID.
func (f *Fleet) CloseIdle() (closed int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, before := f.now(), len(f.roots)
	needed := f.needed()
	for id, r := range f.roots {
		if needed[id] {
			r.used.Store(now.UnixNano())
		} else if now.Sub(time.Unix(0, r.used.Load())) > idleAfter {
			f.shut(r)
		}
	}
	f.trim(needed)
	if before > len(needed) {
		f.generation.Add(1)
	}
	return before - len(f.roots)
}

// needed are the images that machines boot, or go on with. The caller has the
// lock.
func (f *Fleet) needed() map[[16]byte]bool {
	all := make(map[[16]byte]bool, len(f.byName))
	for _, m := range f.byName {
		all[m.View.ID()] = true
	}
	for _, h := range f.holds {
		all[h.machine.View.ID()] = true
	}
	return all
}

// trim closes the roots that were not used for longest, where more are open than
// there may be. The caller has the lock.
func (f *Fleet) trim(needed map[[16]byte]bool) {
	var idle []*root
	for id, r := range f.roots {
		if !needed[id] {
			idle = append(idle, r)
		}
	}
	most := len(f.byName) + spareRoots
	if len(idle) <= most {
		return
	}
	slices.SortFunc(idle, func(a, b *root) int { return cmp.Compare(a.used.Load(), b.used.Load()) })
	for _, r := range idle[:len(idle)-most] {
		f.shut(r)
	}
	f.generation.Add(1)
}

// shut forgets a root. The caller has the lock.
func (f *Fleet) shut(r *root) {
	delete(f.roots, r.machine.View.ID())
	delete(f.blobs, rootfs.BlobsID(r.machine.Manifest.String()))
}

// mayReopen says whether it is worth looking on the shelf for an image that is not
// open: for nobody but a node or an admin, and not for what was not there just
// now.
func (f *Fleet) mayReopen(id [16]byte, client netip.Addr) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.Shelf != nil && f.knows(client.Unmap()) && f.now().Sub(f.missing[id]) > missingFor
}

// knows says whether an address is a node's or an admin's. The caller has the
// lock.
func (f *Fleet) knows(client netip.Addr) bool {
	return f.byAddr[client] != nil || slices.ContainsFunc(f.admin, func(p netip.Prefix) bool { return p.Contains(client) })
}

// Reopen opens the root that a handle of the root or of its blobs names, if it is
// in the store and this client may read it. It may wait: one root is opened at a
// time. Its error matches rootfs.ErrStale where the image is not in the store,
// fs.ErrPermission where the client has no right to it, and nfs.ErrLater where
// the client asks too often.
func (f *Fleet) Reopen(id [16]byte, client netip.Addr) error {
	f.opening.Lock()
	defer f.opening.Unlock()
	if f.isOpen(id) {
		return nil
	}
	if f.asksTooOften(client) {
		return nfs.ErrLater
	}
	_, err := f.open(id, func(m *Machine) error {
		if !f.mayRead(m, client) {
			return fmt.Errorf("%s may not use a handle of node %q: %w", client, m.Node.Name, fs.ErrPermission)
		}
		return nil
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return nfs.ErrLater // others will close
	}
	f.note(id, client)
	return err
}

// Open gives the machine with the root that has an id, and opens that if it must.
// It may wait. Its error matches rootfs.ErrStale where the image is not in the
// store.
func (f *Fleet) Open(id [16]byte) (*Machine, error) {
	f.opening.Lock()
	defer f.opening.Unlock()
	f.mu.RLock()
	r := f.roots[id]
	f.mu.RUnlock()
	if r != nil {
		return r.machine, nil
	}
	if f.Shelf == nil {
		return nil, rootfs.ErrStale
	}
	return f.open(id, func(*Machine) error { return nil })
}

func (f *Fleet) isOpen(id [16]byte) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.roots[id] != nil || f.blobs[id] != nil
}

func (f *Fleet) asksTooOften(client netip.Addr) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.now().Sub(f.asked[client.Unmap()]) < askAgain
}

// note remembers what a client asked for in vain, and when: it cannot keep the
// server searching.
func (f *Fleet) note(id [16]byte, client netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.missing) >= maxMissing || len(f.asked) >= maxMissing {
		clear(f.missing)
		clear(f.asked)
	}
	f.missing[id], f.asked[client.Unmap()] = f.now(), f.now()
}

// open takes an image off the shelf, if allow has nothing against it. Nothing is
// opened, and no secret made, before that. The caller has opening.
func (f *Fleet) open(id [16]byte, allow func(*Machine) error) (*Machine, error) {
	ctx := context.Background()
	d, err := f.Shelf.Find(func(d digest.Digest) bool {
		return rootfs.ImageID(d.String()) == id || rootfs.BlobsID(d.String()) == id
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, rootfs.ErrStale
	} else if err != nil {
		return nil, fmt.Errorf("looking for the image of a file handle: %w", err)
	}
	found, err := f.Shelf.Loader.read(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("reading the image of a file handle: %w", f.stale(err))
	}
	m, err := f.identify(found)
	if err == nil {
		err = allow(m)
	}
	if err != nil {
		return nil, err
	}
	if m.View, err = f.Shelf.Loader.view(ctx, found); err != nil {
		return nil, fmt.Errorf("opening the image of a file handle: %w", f.stale(err))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.readable(m)
	f.trim(f.needed())
	return m, nil
}

// stale makes an error about what is not in the store match rootfs.ErrStale.
func (f *Fleet) stale(err error) error {
	if f.Shelf.Gone(err) {
		return fmt.Errorf("%w: %w", err, rootfs.ErrStale)
	}
	return err
}

// identify gives a machine of an older image the cards and the address that its
// node has now. A node that is no more keeps its own, unless another has that
// address. Of another cluster's image it knows nothing.
func (f *Fleet) identify(m *Machine) (*Machine, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	as := *m
	now, here := f.byName[m.Node.Name]
	if here {
		as.Cluster, as.Node.MACs, as.Node.Address = now.Cluster, now.Node.MACs, now.Node.Address
	}
	switch other := f.byAddr[as.Node.Address]; {
	case f.cluster() != m.Cluster.Name:
		return nil, fmt.Errorf("the image of a file handle is of the cluster %q: %w", m.Cluster.Name, rootfs.ErrStale)
	case !here && other != nil:
		return nil, fmt.Errorf("the image of a file handle is of node %q, whose address is node %q's now: %w", m.Node.Name, other.Node.Name, rootfs.ErrStale)
	}
	return &as, nil
}

// cluster is the name of the cluster whose machines these are; empty for none. The
// caller has the lock.
func (f *Fleet) cluster() string {
	for _, m := range f.byName {
		return m.Cluster.Name
	}
	return ""
}
