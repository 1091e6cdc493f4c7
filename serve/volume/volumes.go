package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"rhizome/registry/imagefmt"
	"rhizome/serve/boot"
	"rhizome/serve/nfs"
	"rhizome/serve/rootfs"
	"rhizome/serve/rpc"
)

// The paths of writable exports begin with these.
const (
	PersistPrefix     = "/persist/"
	SharedPrefix      = "/shared/"
	CopyOnWritePrefix = "/cow/"
)

// Node is what is known of a node that may write.
type Node struct {
	Cluster string
	imagefmt.Node
	// View is the image that the node boots now.
	View *rootfs.View
}

// Nodes finds nodes.
type Nodes interface {
	// ByAddr finds the node that has an address. It is asked for every call, and
	// does not wait.
	ByAddr(addr netip.Addr) (Node, bool)
	// ByDigest finds an image that a node may still run, by its manifest's
	// digest, and opens it where it must; nil where it is not at hand.
	ByDigest(digest string) *rootfs.View
}

// Config is what Volumes is made of.
type Config struct {
	Nodes Nodes
	// Persist makes and gives the folder that is a node's /persist, State one
	// for what is beside it: the lock, the key of its handles, its changes to
	// the image.
	Persist, State func(cluster, node string) (dir string, err error)
	// Events hears of refusals, of disks that are full and of changes that a
	// new image clashes with; nil is silence.
	Events boot.Sink
	// Now is the clock; nil is the system's.
	Now func() time.Time

	// step is called by tests at each step of a commit that a crash could
	// come after.
	step func(what string)
}

// Volumes serves the writable exports of all nodes. An export is opened, and
// its node's folder locked, when the node first asks for it: another server on
// the same store can stand by, and takes over what this one has not.
type Volumes struct {
	config  Config
	life    verifier
	replays *replays
	quiet   quiet

	mu      sync.Mutex
	exports map[exportID]*slot
	closed  bool
	stateMu sync.Mutex
	states  map[string]*nodeState
	regions Regions
}

// slot is the place of an export, which opens it once: that may take a while,
// and concerns nobody else.
type slot struct {
	mu     sync.Mutex
	x      *export
	closed bool
}

// close waits for the calls in hand, and closes the export; mu is held.
func (p *slot) close() error {
	x := p.x
	if x == nil {
		return nil
	}
	x.using.Lock()
	x.closed = true
	x.using.Unlock()
	p.x = nil
	return x.tree.close()
}

// New makes Volumes. Close gives the nodes' folders free.
func New(c Config) *Volumes {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.step == nil {
		c.step = func(string) {}
	}
	v := &Volumes{config: c, replays: newReplays(), exports: map[exportID]*slot{}, states: map[string]*nodeState{}}
	v.life.renew()
	v.regions.v = v
	return v
}

// Backends are the prefixes and what serves them, for nfs.Config.
func (v *Volumes) Backends() []nfs.Mounted {
	return []nfs.Mounted{{Prefix: PersistPrefix, Backend: v}, {Prefix: SharedPrefix, Backend: v}, {Prefix: CopyOnWritePrefix, Backend: v}}
}

func (v *Volumes) moment() moment { return momentOf(v.config.Now()) }

// sharedOwner stands for a node's name where an export is the whole cluster's:
// no node can have it.
const sharedOwner = "@shared"

// spec names an export of a node.
type spec struct {
	kind byte
	// name is what the client mounts, path the folder of the image, if any.
	name, path string
	id         exportID
	// owner is the node, or sharedOwner; mount is where the node sees it.
	owner, mount string
}

// specs lists a node's exports.
func specs(n *Node) []spec {
	var all []spec
	if n.Persist != "" {
		name := PersistPrefix + n.Name
		all = append(all, spec{rootfs.HandlePersist, name, "", newExportID(n.Cluster, n.Name, ""), n.Name, path.Clean("/" + n.Persist)})
	}
	if n.Shared != "" {
		all = append(all, spec{rootfs.HandlePersist, SharedPrefix + n.Cluster, "", newExportID(n.Cluster, sharedOwner, ""), sharedOwner, path.Clean("/" + n.Shared)})
	}
	for _, p := range n.CopyOnWrite {
		p = path.Clean("/" + p)
		name := strings.TrimSuffix(CopyOnWritePrefix+n.Name+p, "/")
		all = append(all, spec{rootfs.HandleCopyOnWrite, name, p, newExportID(n.Cluster, n.Name, p), n.Name, p})
	}
	return all
}

// List is what a client may mount here, for showmount.
func (v *Volumes) List(client netip.Addr) []nfs.Export {
	n, ok := v.config.Nodes.ByAddr(client)
	if !ok {
		return nil
	}
	var all []nfs.Export
	for _, s := range specs(&n) {
		all = append(all, nfs.Export{Path: s.name, Groups: []string{n.Address.String()}})
	}
	return all
}

// Mount gives the handle of /persist/NODE, /shared/CLUSTER, /cow/NODE/PATH, or
// of a folder below.
func (v *Volumes) Mount(name string, c *rpc.Call) ([]byte, error) {
	addr := c.Peer.Remote.Addr()
	n, ok := v.config.Nodes.ByAddr(addr)
	if !ok {
		return nil, fmt.Errorf("%s may not mount %q: no node has that address: %w", addr, name, fs.ErrPermission)
	}
	s, below, err := choose(&n, name)
	if err != nil {
		return nil, err
	}
	x, err := v.use(&n, s)
	if err != nil {
		v.spare(err)
		return nil, fmt.Errorf("mounting %q: %w", name, err)
	}
	defer x.leave()
	if err := v.follow(x, &n); err != nil {
		return nil, fmt.Errorf("mounting %q: %w", name, err)
	}
	h, err := x.resolve(below)
	v.spare(err)
	return h, err
}

// choose finds the export that a path lies in, the longest one, and what
// follows.
func choose(n *Node, name string) (s spec, below string, err error) {
	for _, each := range specs(n) {
		rest, ok := strings.CutPrefix(name+"/", each.name+"/")
		if ok && (s.name == "" || len(each.name) > len(s.name)) {
			s, below = each, rest
		}
	}
	if s.name != "" {
		return s, below, nil
	}
	owner, _, _ := strings.Cut(name[strings.Index(name[1:], "/")+2:], "/")
	if strings.HasPrefix(name, SharedPrefix) {
		return s, "", fmt.Errorf("node %q may not mount %q; the recipe's shared makes %s: %w", n.Name, name, SharedPrefix+n.Cluster, fs.ErrPermission)
	}
	if owner != n.Name {
		return s, "", fmt.Errorf("node %q may not mount %q, which is another node's: %w", n.Name, name, fs.ErrPermission)
	}
	return s, "", fmt.Errorf("node %q has no export %q; the recipe's persist and etc make them: %w", n.Name, name, fs.ErrNotExist)
}

// follow lays a copy-on-write export over the image that the node boots now.
func (v *Volumes) follow(x *export, n *Node) error {
	o, ok := x.tree.(*overlay)
	if !ok || x.kind != rootfs.HandleCopyOnWrite || o.image() == n.View.Digest() {
		return nil
	}
	clashes, err := o.rebase(n.View)
	for _, c := range clashes {
		v.config.Events.Send(boot.Event{Time: v.config.Now(), Kind: boot.ChangesClash, Node: n.Name, Addr: n.Address,
			Digest: n.View.Digest(), File: c.Path, Error: c.Clash})
	}
	return err
}

// errElsewhere: another process serves the node's exports. The client is to
// ask again later.
var errElsewhere = statusJukebox

// find gives the export of a handle, in use, if the client may use it.
func (v *Volumes) find(h []byte, client netip.Addr) (*export, error) {
	_, id, _, ok := parseHandle(h)
	if !ok {
		return nil, statusBadHandle
	}
	n, ok := v.config.Nodes.ByAddr(client)
	if !ok {
		return nil, fmt.Errorf("%s has no writable export: %w", client, statusAcces)
	}
	for _, s := range specs(&n) {
		if s.id == id {
			return v.use(&n, s)
		}
	}
	return nil, fmt.Errorf("%s used a file handle of an export that node %q does not have: %w", client, n.Name, statusStale)
}

// use opens an export, or finds it open. leave must follow.
func (v *Volumes) use(n *Node, s spec) (*export, error) {
	place := v.slot(s.id)
	if place == nil {
		return nil, errElsewhere
	}
	place.mu.Lock()
	defer place.mu.Unlock()
	if place.closed {
		return nil, errElsewhere
	}
	if place.x != nil && place.x.settings != settingsOf(n, s) && !v.regions.committing() {
		// The node boots an image of another recipe. A commit on its way has the
		// export: then it is the next call's to do.
		if err := place.close(); err != nil {
			return nil, err
		}
	}
	if place.x == nil {
		x, err := v.open(n, s)
		if err != nil {
			return nil, err
		}
		place.x = x
	}
	place.x.using.RLock()
	return place.x, nil
}

// slot is nil when all is closed.
func (v *Volumes) slot(id exportID) *slot {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return nil
	}
	if v.exports[id] == nil {
		v.exports[id] = &slot{}
	}
	return v.exports[id]
}

// Close waits for the calls in hand and gives all folders free. Calls that
// come later are told to come again.
func (v *Volumes) Close() error {
	v.mu.Lock()
	v.closed = true
	v.mu.Unlock()
	v.regions.close()
	var err error
	for _, place := range v.exports {
		place.mu.Lock()
		err = errors.Join(err, place.close())
		place.closed = true
		place.mu.Unlock()
	}
	v.stateMu.Lock()
	defer v.stateMu.Unlock()
	for name, s := range v.states {
		s.release()
		delete(v.states, name)
	}
	return err
}

// spare closes what all exports keep open for later, where an error says that
// descriptors have run out: who is told to come again would find none for ever.
func (v *Volumes) spare(err error) {
	if !spent(err) {
		return
	}
	v.mu.Lock()
	places := slices.Collect(maps.Values(v.exports))
	v.mu.Unlock()
	for _, place := range places {
		if !place.mu.TryLock() {
			continue // it is being opened
		}
		if place.x != nil {
			place.x.tree.spare()
		}
		place.mu.Unlock()
	}
}

// refuse tells of a call on what is not the caller's.
func (v *Volumes) refuse(c *rpc.Call, err error) {
	v.spare(err)
	v.tell(boot.Event{Kind: boot.NFSRefused, Addr: c.Peer.Remote.Addr(), Error: err.Error()})
}

// trouble tells of what the operator must mend: a disk that is full or broken,
// no descriptors left.
func (v *Volumes) trouble(r *request, err error) {
	v.spare(err)
	st := toStatus(err)
	switch {
	case st == statusIO, st == statusNoSpc, st == statusDQuot, st == statusServerFault, spent(err):
		v.tell(boot.Event{Kind: boot.NFSError, Addr: r.call.Peer.Remote.Addr(),
			File: r.x.name, Error: fmt.Sprintf("serving %s: %v", r.x.name, err)})
	}
}

func (v *Volumes) tell(e boot.Event) {
	e.Time = v.config.Now()
	if n, ok := v.config.Nodes.ByAddr(e.Addr); ok {
		e.Node = n.Name
	}
	if v.quiet.fresh(e) {
		v.config.Events.Send(e)
	}
}

// quiet keeps a flood of bad calls from becoming a flood of events.
type quiet struct {
	mu   sync.Mutex
	last map[quietKey]time.Time
}

type quietKey struct {
	kind boot.Kind
	addr netip.Addr
}

func (q *quiet) fresh(e boot.Event) bool {
	const period, most = 10 * time.Second, 4096
	q.mu.Lock()
	defer q.mu.Unlock()
	key := quietKey{e.Kind, e.Addr}
	last, known := q.last[key]
	if known && e.Time.Sub(last) < period {
		return false
	}
	if q.last == nil || len(q.last) >= most {
		q.last = map[quietKey]time.Time{}
	}
	q.last[key] = e.Time
	return true
}
