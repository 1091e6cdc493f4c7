package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"rhizome/serve/rootfs"
)

// overlay is a folder of an image with a node's changes over it; without an
// image, it is all the node's own. What was changed is in records, kept by a
// journal; content lies in the files bodies/ID. Nothing of it has a name that
// a client could see or choose.
type overlay struct {
	overlayConfig
	bodies *fileCache

	// mu guards all below; it is held for writing by what changes records.
	mu      sync.RWMutex
	base    *baseIndex
	journal *journal
	*records
	// draft, where it is set, is told of transactions, and none is written down.
	draft func([]change)
	// trash are bodies that no record needs, once the journal is on the disk;
	// fresh says that a body's name may not be there yet.
	trash []uint64
	fresh bool

	lists   listings
	reserve reserve
}

type overlayConfig struct {
	// dir holds the journal and the bodies.
	dir string
	// path is the folder of the image; empty for no image.
	path  string
	quota *quota
	now   func() moment
	// lost is told of each fsync of a body that failed; nil is nobody.
	lost func()
}

// openOverlay opens the changes in a folder, or makes it. With a path, rebase
// must follow before anything is served.
func openOverlay(c overlayConfig) (*overlay, error) {
	if err := os.MkdirAll(filepath.Join(c.dir, "bodies"), 0o700); err != nil {
		return nil, fmt.Errorf("making a place for a node's changes: %w", err)
	}
	j, r, err := openJournal(c.dir)
	if err != nil {
		return nil, fmt.Errorf("opening a node's changes in %q: %w", c.dir, err)
	}
	o := &overlay{overlayConfig: c, bodies: newFileCache(diskBodies, c.lost), journal: j, records: r, base: &baseIndex{},
		reserve: reserve{path: filepath.Join(c.dir, "reserve")}}
	o.reserve.hold()
	if err := o.begin(); err != nil {
		j.file.Close()
		return nil, fmt.Errorf("opening a node's changes in %q: %w", c.dir, err)
	}
	return o, nil
}

// diskBodies is how many bodies of one export are kept open between calls.
const diskBodies = 64

// begin removes bodies that a crash left without a record, and snapshots that did
// not become the journal, sums what the other bodies take, and makes the root of an
// export without an image.
func (o *overlay) begin() error {
	files, err := os.ReadDir(filepath.Join(o.dir, "bodies"))
	if err != nil {
		return err
	}
	left, _ := filepath.Glob(filepath.Join(o.dir, newFiles)) // fails for a pattern that is none
	for _, name := range left {
		_ = os.Remove(name) // or next time
	}
	for _, f := range files {
		id, err := strconv.ParseUint(f.Name(), 16, 64)
		if rec := o.objects[id]; err == nil && rec != nil && rec.has(ownBody) {
			if info, err := f.Info(); err == nil {
				o.quota.changed(used(info))
			}
			continue
		}
		if err := os.Remove(filepath.Join(o.dir, "bodies", f.Name())); err != nil {
			return err
		}
	}
	if o.path != "" || o.objects[rootID] != nil {
		return nil
	}
	now := o.now()
	root := &record{Kind: kindDir, Own: ownMode | ownOwner | ownTimes, Mode: 0o755, Nlink: 1, Parent: rootID, Atime: now, Mtime: now, Ctime: now}
	return o.commit([]change{{ID: rootID, Put: root}})
}

func (o *overlay) spare() { o.bodies.forgetIdle() }

func (o *overlay) close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	err := o.journal.sync(o.journal.size.Load())
	o.bodies.clear()
	return errors.Join(err, o.journal.file.Close())
}

// image is the manifest that the changes lie over.
func (o *overlay) image() string {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.records.image
}

// commitRemoval is commit for what frees room, which works on a full disk.
func (o *overlay) commitRemoval(tx []change) error {
	err := o.commit(tx)
	if o.reserve.give(err) {
		err = o.commit(tx)
	}
	return err
}

// commit writes a transaction down and carries it out. sync makes it last.
func (o *overlay) commit(tx []change) error {
	if o.draft != nil {
		o.draft(tx)
	} else if err := o.journal.append(tx); err != nil {
		return err
	}
	o.apply(tx)
	o.lists.forget(tx)
	if o.draft == nil {
		o.journal.shorten(o.records)
	}
	return nil
}

// sync makes all transactions so far last, and then removes what they left.
func (o *overlay) sync() error {
	o.mu.Lock()
	trash, fresh, size := o.trash, o.fresh, o.journal.size.Load()
	o.trash, o.fresh = nil, false
	o.mu.Unlock()
	var err error
	if fresh {
		err = syncDir(filepath.Join(o.dir, "bodies"))
	}
	if err == nil {
		err = o.journal.sync(size)
	}
	if err != nil {
		o.mu.Lock()
		o.trash, o.fresh = append(o.trash, trash...), o.fresh || fresh
		o.mu.Unlock()
		return err
	}
	for _, id := range trash {
		o.dropBody(id)
	}
	if len(trash) > 0 {
		o.reserve.hold()
	}
	return nil
}

func (o *overlay) dropBody(id uint64) {
	path := o.bodyPath(id)
	info, err := os.Stat(path)
	o.bodies.forget(bodyName(id))
	if err == nil && os.Remove(path) == nil {
		o.quota.changed(-used(info))
	}
}

// syncBodies puts the bodies of new numbers on the disk, and their names.
func (o *overlay) syncBodies(ids map[string]uint64) error {
	dir := filepath.Join(o.dir, "bodies")
	if len(ids) > fewBodies {
		return syncFileSystem(dir)
	}
	for _, id := range ids {
		if err := syncFile(o.bodyPath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return syncDir(dir)
}

// fewBodies are synced one by one; more of them sooner with all their file
// system.
const fewBodies = 16

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func bodyName(id uint64) string { return fmt.Sprintf("%016x", id) }

func (o *overlay) bodyPath(id uint64) string { return filepath.Join(o.dir, "bodies", bodyName(id)) }

// used is what a file takes on the disk, in bytes.
func used(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int64(st.Blocks) * 512
	}
	return info.Size()
}

func (o *overlay) root() (object, error) { return o.object(rootID), nil }

func (o *overlay) object(id uint64) *overlayObject { return &overlayObject{o, id} }

func (o *overlay) open(id []byte) (object, error) {
	if len(id) != 8 {
		return nil, syscall.ESTALE
	}
	return o.object(beUint64(id)), nil
}

func (o *overlay) space() (space, error) { return hostSpace(o.dir) }

// state is an object as it is now: its record, if it has one, and the image's
// object, if there is one.
type state struct {
	id      uint64
	rec     *record
	ref     baseRef
	inImage bool
}

// state finds an object; o.mu is held.
func (o *overlay) state(id uint64) (state, error) {
	s := state{id: id, rec: o.objects[id]}
	if s.rec != nil && s.rec.Gone {
		return s, syscall.ESTALE
	}
	s.ref, s.inImage = o.base.find(id)
	if s.inImage && s.rec != nil {
		// What a later image made of it counts only if it is the same kind.
		a, err := o.base.attr(s.ref)
		s.inImage = err == nil && a.kind == s.rec.Kind
	}
	if s.rec == nil && !s.inImage {
		return s, syscall.ESTALE
	}
	return s, nil
}

// usesImage tells whether content comes from the image.
func (s *state) usesImage() bool { return s.inImage && (s.rec == nil || !s.rec.has(ownBody)) }

// attrAt gives the attributes of the object with a number; o.mu is held.
func (o *overlay) attrAt(id uint64) (attr, error) {
	s, err := o.state(id)
	if err != nil {
		return attr{}, err
	}
	return o.attrOf(s)
}

// attrOf gives an object's attributes; o.mu is held.
func (o *overlay) attrOf(s state) (a attr, err error) {
	if s.inImage {
		if a, err = o.base.attr(s.ref); err != nil {
			return a, err
		}
	}
	if s.rec != nil {
		s.rec.overlay(&a, s.inImage)
		if s.rec.has(ownBody) {
			o.overlayBody(s.id, s.rec, &a)
		}
	}
	a.fileid = s.id
	if a.kind == kindDir {
		a.nlink = 2 + uint32(o.subdirs(s.id))
	}
	return a, nil
}

// overlay lays what a record says over the image's attributes.
func (r *record) overlay(a *attr, inImage bool) {
	if !inImage {
		// What is left of an object that the image has no more.
		*a = attr{kind: r.Kind, mode: r.Mode, uid: r.UID, gid: r.GID, atime: r.Ctime, mtime: r.Ctime}
		a.major, a.minor, a.size = r.Major, r.Minor, uint64(len(r.Target))
	}
	if r.has(ownMode) {
		a.mode = r.Mode
	}
	if r.has(ownOwner) {
		a.uid, a.gid = r.UID, r.GID
	}
	if r.has(ownTimes) {
		a.atime, a.mtime = r.Atime, r.Mtime
	}
	a.nlink, a.ctime = r.Nlink, r.Ctime
}

// overlayBody takes size and times from the file that has the content. One
// that was never written to is not there yet.
func (o *overlay) overlayBody(id uint64, r *record, a *attr) {
	a.size, a.used = 0, 0
	info, err := os.Stat(o.bodyPath(id))
	if err != nil {
		return
	}
	b := hostTimes(info)
	a.size, a.used = uint64(info.Size()), uint64(used(info))
	a.atime, a.mtime = b.atime, b.mtime
	if b.ctime.after(r.Ctime) {
		a.ctime = b.ctime
	}
}

// asImage is the image's object as a record that changes nothing yet.
func asImage(a *attr, ref baseRef, fingerprint string, now moment) *record {
	return &record{Kind: a.kind, Mode: a.mode, UID: a.uid, GID: a.gid, Nlink: a.nlink, Parent: ref.parent,
		Major: a.major, Minor: a.minor, Ctime: now, Base: fingerprint}
}

// View is what the overlay lies over, or nil.
func (o *overlay) view() *rootfs.View { return o.base.view }
