package volume

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"rhizome/registry/durable"
	"rhizome/serve/rootfs"
)

// export is one open export.
type export struct {
	name  string
	kind  byte
	id    exportID
	fsid  uint64
	key   []byte
	tree  tree
	quota *quota
	settings

	// using is held for reading by every call, so that closing waits, and a
	// commit of a region; closed is guarded by it.
	using  sync.RWMutex
	closed bool
	// names is held around a change of names or attributes and the looks at
	// the attributes before and after it, and files around a WRITE: clients
	// trust what they are told stood before and after their change.
	names sync.Mutex
	files [64]sync.Mutex
}

// settings are what the recipe says of an export, beside where it is.
type settings struct {
	limit   int64 // of the quota, in bytes; 0 is none
	devices bool
}

func settingsOf(n *Node, s spec) settings {
	switch {
	case s.owner == sharedOwner:
		return settings{}
	case s.kind == rootfs.HandlePersist:
		return settings{n.PersistQuota, n.PersistDevices}
	}
	return settings{n.PersistQuota, true} // devices are records, and no node of the server's
}

func (x *export) leave() { x.using.RUnlock() }

// lockFile keeps other writers off a file until the result is called.
func (x *export) lockFile(fileid uint64) (unlock func()) {
	m := &x.files[fileid%uint64(len(x.files))]
	m.Lock()
	return m.Unlock
}

// handle names an object for clients.
func (x *export) handle(o object) []byte {
	var room [maxHandle]byte
	return appendHandle(make([]byte, 0, maxHandle), x.kind, x.id, x.key, o.id(room[:0]))
}

// object opens what a handle of this export names.
func (x *export) object(h []byte) (object, attr, error) {
	_, _, id, ok := parseHandle(h)
	if !ok || !genuine(h, x.key) {
		return nil, attr{}, statusBadHandle
	}
	o, err := x.tree.open(id)
	if err != nil {
		return nil, attr{}, err
	}
	a, err := o.attr()
	if err != nil {
		o.close()
		return nil, attr{}, err
	}
	return o, a, nil
}

// second opens the second handle of RENAME or LINK, which must be of the same
// export.
func (x *export) second(h []byte) (object, attr, error) {
	_, id, _, ok := parseHandle(h)
	if !ok {
		return nil, attr{}, statusBadHandle
	}
	if id != x.id {
		return nil, attr{}, statusXDev
	}
	return x.object(h)
}

// resolve gives the handle of a folder below the export's root. No symlink is
// followed: where one leads, only the client knows.
func (x *export) resolve(below string) ([]byte, error) {
	o, err := x.tree.root()
	if err != nil {
		return nil, err
	}
	for name := range strings.SplitSeq(below, "/") {
		if name == "" {
			continue
		}
		next, err := o.lookup(name)
		o.close()
		if err != nil {
			return nil, fmt.Errorf("%q: %w", name, mountError(err))
		}
		o = next
	}
	defer o.close()
	if a, err := o.attr(); err != nil || a.kind != kindDir {
		return nil, rootfs.ErrNotDir
	}
	return x.handle(o), nil
}

// nodeState is what all exports of a node share: the lock and the key.
type nodeState struct {
	dir     string
	key     []byte
	release func()
}

// state opens a node's state folder, or finds it open; owner is the node's
// name, or sharedOwner.
func (v *Volumes) state(cluster, owner string) (*nodeState, error) {
	name := cluster + "/" + owner
	v.stateMu.Lock()
	defer v.stateMu.Unlock()
	if s := v.states[name]; s != nil {
		return s, nil
	}
	dir, err := v.config.State(cluster, owner)
	if err != nil {
		return nil, err
	}
	release, err := own(dir)
	if err != nil {
		return nil, err
	}
	key, err := handleKey(dir)
	if err != nil {
		release()
		return nil, err
	}
	s := &nodeState{dir, key, release}
	v.states[name] = s
	return s, nil
}

// BusyError is a node's folder that another process has.
type BusyError struct{ Dir, Owner string }

func (e *BusyError) Error() string {
	return fmt.Sprintf("another process (pid %s) has the writable exports in %q; stop it first, one server at a time may own them", e.Owner, e.Dir)
}

// Unwrap lets clients be told to ask again later.
func (e *BusyError) Unwrap() error { return errElsewhere }

// own takes the folder of a node for this process.
func own(dir string) (release func(), err error) {
	lock := filepath.Join(dir, "lock")
	release, ok, err := durable.TryLock(lock, durable.Exclusive)
	if err != nil {
		return nil, err
	}
	if !ok {
		owner, _ := os.ReadFile(lock)
		return nil, &BusyError{dir, strings.TrimSpace(string(owner))}
	}
	if err := os.WriteFile(lock, fmt.Appendln(nil, os.Getpid()), 0o644); err != nil {
		release()
		return nil, fmt.Errorf("noting who has %q: %w", dir, err)
	}
	return release, nil
}

// open opens an export of a node.
func (v *Volumes) open(n *Node, s spec) (*export, error) {
	state, err := v.state(n.Cluster, s.owner)
	if err != nil {
		return nil, err
	}
	x := &export{name: s.name, kind: s.kind, id: s.id, fsid: s.id.fsid(), key: state.key, settings: settingsOf(n, s)}
	x.quota = newQuota(x.limit)
	if s.kind == rootfs.HandlePersist {
		x.tree, err = v.openPersist(n.Cluster, s.owner, state.dir, x.quota)
	} else {
		x.tree, err = v.openCopyOnWrite(n, s, state.dir, x.quota)
	}
	if err != nil {
		return nil, err
	}
	return x, nil
}

// openPersist opens a node's own tree, or the cluster's: the folder itself, where the host can
// find files by handle, else records beside it.
func (v *Volumes) openPersist(cluster, owner, state string, q *quota) (tree, error) {
	dir, err := v.config.Persist(cluster, owner)
	if err != nil {
		return nil, err
	}
	records := filepath.Join(state, "persist")
	if _, err := os.Stat(records); err == nil {
		return v.openOverlay(records, q)
	}
	disk, err := openDisk(dir, q, v.life.renew)
	if err == nil {
		return disk, nil
	}
	if names, listErr := os.ReadDir(dir); listErr != nil || len(names) > 0 {
		return nil, fmt.Errorf("opening %q: %w; it holds files already, which takes Linux, root and a file system with file handles", dir, err)
	}
	return v.openOverlay(records, q)
}

func (v *Volumes) openOverlay(dir string, q *quota) (*overlay, error) {
	return openOverlay(overlayConfig{dir: dir, quota: q, now: v.moment, lost: v.life.renew})
}

func (v *Volumes) openCopyOnWrite(n *Node, s spec, state string, q *quota) (tree, error) {
	o, err := openOverlay(overlayConfig{dir: filepath.Join(state, "changes", folderName(s)), path: s.path, quota: q, now: v.moment, lost: v.life.renew})
	if err != nil {
		return nil, err
	}
	// The node may still run the image that its changes were last laid over,
	// though it would boot another now.
	view := n.View
	if old := v.config.Nodes.ByDigest(o.image()); old != nil {
		view = old
	}
	if _, err := o.rebase(view); err != nil {
		o.close()
		return nil, err
	}
	return o, nil
}

// folderName makes a file name of an export's path.
func folderName(s spec) string {
	if name := url.PathEscape(s.path); len(name) <= 200 {
		return name
	}
	return fmt.Sprintf("%x", s.id)
}
