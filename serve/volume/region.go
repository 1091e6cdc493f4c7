package volume

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"rhizome/serve/boot"
	"rhizome/serve/node/nodeapi"
)

// Regions leases parts of the writable exports to nodes that work on them in
// memory: a region is streamed as one tar (regiontar.go), and what changed
// comes back as another and is switched to at once (regioncommit.go). A lease
// holds off other leases; what is written over NFS meanwhile is found out by
// the region's version, and then nothing is overwritten.
type Regions struct {
	v *Volumes

	mu       sync.Mutex
	clusters map[string]*leases
	// busy are leases whose commit goes on, and commits counts them: none begins
	// once closed is set.
	busy    map[string]bool
	commits sync.WaitGroup
	closed  bool
}

// Regions leases parts of these exports.
func (v *Volumes) Regions() *Regions { return &v.regions }

// place is one path of a region: an export, and what it means there.
type place struct {
	spec
	// node is the path as the node sees it, below as the export has it,
	// without a slash at either end; empty for the export itself.
	node, below string
}

// region names a place so that two nodes' names for it compare.
func (p place) region() string { return strings.TrimSuffix(p.name+"/"+p.below, "/") }

func wrong(format string, args ...any) error {
	return &nodeapi.InputError{Err: fmt.Errorf(format, args...)}
}

// places finds the exports that a lease's paths lie in.
func places(n *Node, paths []string, mode string) ([]place, error) {
	var all []place
	for _, p := range paths {
		at, err := locate(n, path.Clean(p))
		if err != nil {
			return nil, err
		}
		if at.below == "" && mode == nodeapi.Write {
			return nil, wrong("%q is the whole export; lease folders or files in it to write", p)
		}
		for _, other := range all {
			if overlap(at.region(), other.region()) {
				return nil, wrong("%q and %q are one region, or one lies in the other", p, other.node)
			}
			if mode == nodeapi.Write && at.id != other.id {
				return nil, wrong("%q and %q lie in different exports, which cannot be written back at once: lease them one after the other", p, other.node)
			}
		}
		all = append(all, at)
	}
	return all, nil
}

// locate finds the innermost export that a path of the node lies in.
func locate(n *Node, p string) (at place, err error) {
	var mounts []string
	for _, s := range specs(n) {
		mounts = append(mounts, s.mount)
		rest, ok := strings.CutPrefix(p+"/", s.mount+"/")
		if ok && (at.name == "" || len(s.mount) > len(at.mount)) {
			at = place{s, p, strings.Trim(rest, "/")}
		}
	}
	if at.name == "" {
		return at, wrong("%q is in no writable export of node %q, which has %s", p, n.Name, strings.Join(mounts, ", "))
	}
	return at, nil
}

// holder finds the node of a request.
func (r *Regions) holder(h nodeapi.Holder) (*Node, error) {
	n, ok := r.v.config.Nodes.ByAddr(h.Addr)
	if !ok || n.Name != h.Node {
		return nil, wrong("no node has the address %v any more", h.Addr)
	}
	return &n, nil
}

// Lease leases a region.
func (r *Regions) Lease(ctx context.Context, h nodeapi.Holder, req nodeapi.LeaseRequest) (nodeapi.Lease, error) {
	n, err := r.holder(h)
	if err != nil {
		return nodeapi.Lease{}, err
	}
	at, err := places(n, req.Paths, req.Mode)
	if err != nil {
		return nodeapi.Lease{}, err
	}
	ttl := time.Duration(req.TTL) * time.Second
	l := &lease{Boot: h.Boot, TTL: ttl, Lease: nodeapi.Lease{ID: rand.Text(), Node: n.Name, Mode: req.Mode}}
	for _, p := range at {
		l.Paths, l.Regions = append(l.Paths, p.node), append(l.Regions, p.region())
	}
	// First the region, so that a place that cannot be read is not leased;
	// the lease itself is what is decided under the lock.
	listing, err := r.list(ctx, n, at)
	if err != nil {
		return nodeapi.Lease{}, err
	}
	l.Version, l.Bytes, l.Files = listing.version(), listing.bytes(), int64(len(listing.entries))
	r.mu.Lock()
	defer r.mu.Unlock()
	t, err := r.current(h.Cluster)
	if err != nil {
		return nodeapi.Lease{}, err
	}
	now := r.v.config.Now()
	if other := t.clash(l.Regions, l.Mode, ""); other != nil {
		return nodeapi.Lease{}, taken(other, now)
	}
	if err := t.makeRoom(n.Name); err != nil {
		return nodeapi.Lease{}, err
	}
	l.Expires = now.Add(ttl)
	return l.Lease, t.add(l)
}

// current gives the leases of a cluster as they are now; r.mu is held.
func (r *Regions) current(cluster string) (*leases, error) {
	t, err := r.leasesOf(cluster)
	if err != nil {
		return nil, err
	}
	now := r.v.config.Now()
	for _, l := range t.expire(now) {
		r.v.config.Events.Send(boot.Event{Time: now, Kind: boot.NodeLeaseExpired, Node: l.Node, File: strings.Join(l.Paths, " "),
			Detail: "lease " + l.ID, Error: "it was not renewed: the node, or the program that had it, is gone"})
	}
	return t, nil
}

// mine finds a lease of this boot of the holder; r.mu is held.
func (r *Regions) mine(h nodeapi.Holder, id string) (*leases, *lease, error) {
	t, err := r.current(h.Cluster)
	if err != nil {
		return nil, nil, err
	}
	l := t.all[id]
	if l == nil || l.Node != h.Node || l.Boot != h.Boot {
		return nil, nil, &nodeapi.MissingError{Err: fmt.Errorf("there is no lease %.40q: it was freed, or the node was booted since", id)}
	}
	return t, l, nil
}

// Renew begins a lease's time again, also after it ended where nobody else has
// taken the region.
func (r *Regions) Renew(h nodeapi.Holder, id string, ttl time.Duration) (nodeapi.Lease, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, l, err := r.mine(h, id)
	if err != nil {
		return nodeapi.Lease{}, err
	}
	now := r.v.config.Now()
	if other := t.clash(l.Regions, l.Mode, id); l.Expired && other != nil {
		return nodeapi.Lease{}, taken(other, now)
	}
	err = t.change(l, func(l *lease) { l.TTL, l.Expires, l.Expired = ttl, now.Add(ttl), false })
	return l.Lease, err
}

// Free ends a lease.
func (r *Regions) Free(h nodeapi.Holder, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, l, err := r.mine(h, id)
	if err != nil {
		return err
	}
	return t.drop(func(o *lease) bool { return o == l })
}

// Rebooted ends all leases of a node.
func (r *Regions) Rebooted(cluster, node string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, err := r.leasesOf(cluster)
	if err != nil {
		return err
	}
	return t.drop(func(l *lease) bool { return l.Node == node })
}

// List gives the leases of a cluster.
func (r *Regions) List(cluster string) ([]nodeapi.Lease, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, err := r.current(cluster)
	if err != nil {
		return nil, err
	}
	all := []nodeapi.Lease{}
	for _, l := range t.sorted() {
		all = append(all, l.Lease)
	}
	return all, nil
}

// snapshot is a copy of a lease of the holder, with its places.
func (r *Regions) snapshot(h nodeapi.Holder, id string) (lease, *Node, []place, error) {
	n, err := r.holder(h)
	if err != nil {
		return lease{}, nil, nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	_, l, err := r.mine(h, id)
	if err != nil {
		return lease{}, nil, nil, err
	}
	at, err := places(n, l.Paths, l.Mode)
	return *l, n, at, err
}

// find opens the object at a place; the export is in use.
func (p place) find(x *export) (object, error) {
	o, err := x.tree.root()
	if err != nil {
		return nil, err
	}
	for name := range strings.SplitSeq(p.below, "/") {
		if name == "" {
			continue
		}
		next, err := o.lookup(name)
		o.close()
		if err != nil {
			return nil, p.explain(name, err)
		}
		o = next
	}
	a, err := o.attr()
	if err == nil && !slices.Contains([]kind{kindDir, kindRegular}, a.kind) {
		err = wrong("%q is neither a folder nor a file; of a symbolic link, lease what it leads to", p.node)
	}
	if err != nil {
		o.close()
		return nil, err
	}
	return o, nil
}

// explain makes a sentence of why a place is not there.
func (p place) explain(name string, err error) error {
	if errors.Is(err, syscall.ENOENT) {
		return &nodeapi.MissingError{Err: fmt.Errorf("%q is not there: the server has no %q", p.node, name)}
	}
	if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
		return wrong("%q leads over %q, which is no folder; of a symbolic link, lease what it leads to", p.node, name)
	}
	return fmt.Errorf("finding %q: %w", p.node, err)
}

// enter is use without opening; false says that all is closed. leave must
// follow.
func (x *export) enter() bool {
	x.using.RLock()
	if x.closed {
		x.using.RUnlock()
		return false
	}
	return true
}
