package volume

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

func beUint64(b []byte) uint64 { return binary.BigEndian.Uint64(b) }

// overlayObject is an object of an overlay: a number, whatever becomes of what
// it names.
type overlayObject struct {
	o *overlay
	n uint64
}

func (x *overlayObject) id(dst []byte) []byte { return binary.BigEndian.AppendUint64(dst, x.n) }

func (x *overlayObject) close() {}

func (x *overlayObject) attr() (attr, error) {
	x.o.mu.RLock()
	defer x.o.mu.RUnlock()
	return x.o.attrAt(x.n)
}

// sync makes the object's body last, and every change of records with it.
func (x *overlayObject) sync() error {
	x.o.mu.RLock()
	s, err := x.o.state(x.n)
	x.o.mu.RUnlock()
	if err == nil && s.rec != nil && s.rec.has(ownBody) {
		err = x.o.syncBody(x.n)
	}
	if err != nil && !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ESTALE) {
		return err
	}
	return x.o.sync()
}

func (o *overlay) syncBody(id uint64) error {
	return o.withFile(id, false, func(f *openFile) error {
		return f.syncs.wait(func() error { return o.bodies.told(syscall.Fsync(f.data)) })
	})
}

// withBody calls fn with the body's descriptor. A body that is not there yet
// is made, or is ENOENT.
func (o *overlay) withBody(id uint64, create bool, fn func(fd int) error) error {
	return o.withFile(id, create, func(f *openFile) error { return fn(f.data) })
}

func (o *overlay) withFile(id uint64, create bool, fn func(*openFile) error) error {
	name := bodyName(id)
	f, err := o.bodies.get(name, func() (*openFile, error) {
		flags := syscall.O_RDWR | syscall.O_CLOEXEC | syscall.O_NOFOLLOW
		fd, err := syscall.Open(o.bodyPath(id), flags, 0)
		if create && errors.Is(err, syscall.ENOENT) {
			if fd, err = syscall.Open(o.bodyPath(id), flags|syscall.O_CREAT, 0o600); err == nil {
				o.fresh = true
			}
		}
		return &openFile{path: -1, data: fd}, err
	})
	if err != nil {
		return err
	}
	defer o.bodies.put(name, f)
	return fn(f)
}

func (x *overlayObject) readAt(p []byte, off int64) (int, error) {
	x.o.mu.RLock()
	s, err := x.o.state(x.n)
	view := x.o.view()
	x.o.mu.RUnlock()
	if err != nil {
		return 0, err
	}
	if s.usesImage() {
		return view.ReadAt(s.ref.file, p, off)
	}
	done := 0
	err = x.o.withBody(x.n, false, func(fd int) error {
		for done < len(p) {
			n, err := syscall.Pread(fd, p[done:], off+int64(done))
			if errors.Is(err, syscall.EINTR) {
				continue
			}
			if err != nil || n == 0 {
				return errors.Join(err, eofAt(n))
			}
			done += n
		}
		return nil
	})
	if errors.Is(err, syscall.ENOENT) {
		err = io.EOF
	}
	return done, err
}

func eofAt(n int) error {
	if n == 0 {
		return io.EOF
	}
	return nil
}

// writeAt writes to the object's own body, which it gets now if it has none.
func (x *overlayObject) writeAt(p []byte, off int64) error {
	if err := x.ownBody(-1); err != nil {
		return err
	}
	put := func(fd int) error {
		before := blocks(fd)
		defer func() { x.o.quota.changed(blocks(fd) - before) }()
		return pwriteAll(fd, p, off)
	}
	err := x.o.withBody(x.n, false, put)
	if !errors.Is(err, syscall.ENOENT) {
		return err
	}
	x.o.mu.Lock()
	defer x.o.mu.Unlock()
	if _, err := x.o.state(x.n); err != nil {
		return err
	}
	return x.o.withBody(x.n, true, put)
}

func pwriteAll(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := syscall.Pwrite(fd, p, off)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// blocks is what an open file takes on the disk, in bytes.
func blocks(fd int) int64 {
	var st syscall.Stat_t
	if syscall.Fstat(fd, &st) != nil {
		return 0
	}
	return int64(st.Blocks) * 512
}

// ownBody gives the object a body of its own, with what the image has in it:
// all of it, or the first keep bytes.
func (x *overlayObject) ownBody(keep int64) error {
	x.o.mu.RLock()
	s, err := x.o.state(x.n)
	x.o.mu.RUnlock()
	if err != nil || !s.usesImage() {
		return err
	}
	x.o.mu.Lock()
	defer x.o.mu.Unlock()
	// It is looked at again: another image may lie below by now (rebase).
	if s, err = x.o.state(x.n); err != nil || !s.usesImage() {
		return err
	}
	var tx transaction
	rec, err := x.o.edit(&tx, x.n)
	if err != nil {
		return err
	}
	err = x.o.copyUp(s, keep)
	if err == nil {
		rec.Own |= ownBody
		rec.Ctime = x.o.now()
		err = x.o.commit(tx.steps)
	}
	if err != nil {
		x.o.dropBody(x.n) // no record needs it
	}
	return err
}

// copyUp fills a body from the image, and waits until it is on the disk: the
// image's own is what it replaces.
func (o *overlay) copyUp(s state, keep int64) error {
	r, err := o.view().OpenFile(s.ref.file)
	if err != nil {
		return err
	}
	size := r.Size()
	if keep >= 0 {
		size = min(size, keep)
	}
	if err := o.quota.room(size); err != nil {
		return err
	}
	f, err := os.OpenFile(o.bodyPath(s.id), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(f, io.LimitReader(r, size))
	o.quota.changed(blocks(int(f.Fd())))
	if err != nil {
		return err
	}
	a := r.Attr()
	at := moment{a.Sec, a.Nsec}.time()
	if err := os.Chtimes(f.Name(), at, at); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	o.fresh = false
	return syncDir(filepath.Dir(f.Name()))
}

// content names the bytes of a file whose content is the image's; "" for a body
// of the node's own.
func (x *overlayObject) content() (string, error) {
	x.o.mu.RLock()
	defer x.o.mu.RUnlock()
	s, err := x.o.state(x.n)
	if err != nil || !s.usesImage() {
		return "", err
	}
	d, err := x.o.view().BodyDigest(s.ref.file)
	return fmt.Sprintf(" %x", d), err
}

func (x *overlayObject) readlink() (string, error) {
	x.o.mu.RLock()
	defer x.o.mu.RUnlock()
	s, err := x.o.state(x.n)
	if err != nil {
		return "", err
	}
	if s.usesImage() && (s.rec == nil || s.rec.Target == nil) {
		target, err := x.o.view().Readlink(s.ref.file)
		return strings.Clone(target), err // the image may be another when it is sent
	}
	return string(s.rec.Target), nil
}

// set changes attributes. Those of a body's file are its own.
func (x *overlayObject) set(s *setAttrs) error {
	if s.hasSize {
		if err := x.truncate(int64(s.size)); err != nil {
			return err
		}
	}
	if !s.hasMode && !s.hasUID && !s.hasGID && !s.hasAtime && !s.hasMtime {
		return nil
	}
	x.o.mu.Lock()
	defer x.o.mu.Unlock()
	before, err := x.o.attrAt(x.n)
	if err != nil {
		return err
	}
	var tx transaction
	rec, err := x.o.edit(&tx, x.n)
	if err != nil {
		return err
	}
	rec.change(s, &before)
	rec.Ctime = x.o.now()
	if s.hasAtime || s.hasMtime {
		// The file of a body has the times where there is one.
		err := os.Chtimes(x.o.bodyPath(x.n), rec.Atime.time(), rec.Mtime.time())
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return x.o.commit(tx.steps)
}

// change takes over what is set; what is not set stays as it was before.
func (r *record) change(s *setAttrs, before *attr) {
	if s.hasMode {
		r.Own, r.Mode = r.Own|ownMode, s.mode
	}
	if s.hasUID || s.hasGID {
		r.UID, r.GID = before.uid, before.gid
		r.Own |= ownOwner
	}
	if s.hasUID {
		r.UID = s.uid
	}
	if s.hasGID {
		r.GID = s.gid
	}
	if !s.hasAtime && !s.hasMtime {
		return
	}
	r.Own, r.Atime, r.Mtime = r.Own|ownTimes, before.atime, before.mtime
	if s.hasAtime {
		r.Atime = s.atime
	}
	if s.hasMtime {
		r.Mtime = s.mtime
	}
}

func (x *overlayObject) truncate(size int64) error {
	if err := x.ownBody(size); err != nil {
		return err
	}
	x.o.mu.Lock()
	defer x.o.mu.Unlock()
	if _, err := x.o.state(x.n); err != nil {
		return err // it was removed meanwhile, and must not get a body again
	}
	return x.o.withBody(x.n, true, func(fd int) error {
		before := blocks(fd)
		defer func() { x.o.quota.changed(blocks(fd) - before) }()
		return syscall.Ftruncate(fd, size)
	})
}

// transaction collects steps, and the records that are changed in them.
type transaction struct {
	steps  []change
	edited map[uint64]*record
	// trash are the bodies that nothing needs once the steps are taken.
	trash []uint64
}

// edit puts a record of an object into a transaction, a copy to be changed;
// an object that has none gets one, and so do its name and the directories it
// lies in. o.mu is held for writing.
func (o *overlay) edit(tx *transaction, id uint64) (*record, error) {
	if rec := tx.edited[id]; rec != nil {
		return rec, nil
	}
	s, err := o.state(id)
	if err != nil {
		return nil, err
	}
	var rec *record
	if s.rec != nil {
		copied := *s.rec
		rec = &copied
	} else if rec, err = o.adopt(tx, s); err != nil {
		return nil, err
	}
	if tx.edited == nil {
		tx.edited = map[uint64]*record{}
	}
	tx.edited[id] = rec
	tx.steps = append(tx.steps, change{ID: id, Put: rec})
	return rec, nil
}

// adopt makes the first record of an object of the image.
func (o *overlay) adopt(tx *transaction, s state) (*record, error) {
	a, err := o.base.attr(s.ref)
	if err != nil {
		return nil, err
	}
	rec := asImage(&a, s.ref, o.base.fingerprint(s.ref), a.ctime)
	if s.usesImage() && a.kind == kindSymlink {
		target, err := o.view().Readlink(s.ref.file)
		if err != nil {
			return nil, err
		}
		rec.Target = []byte(target)
	}
	if s.id == rootID {
		return rec, nil
	}
	// The name too becomes the node's, so that the object stays when a later
	// image has it no more.
	if _, err := o.edit(tx, s.ref.parent); err != nil && !errors.Is(err, syscall.ESTALE) {
		return nil, err
	}
	if name := o.base.nameOf(s.ref); name != "" {
		if _, taken := o.names[s.ref.parent][name]; !taken {
			tx.name(s.ref.parent, name, &entry{ID: s.id})
		}
	}
	return rec, nil
}

func (tx *transaction) name(dir uint64, name string, e *entry) {
	tx.steps = append(tx.steps, change{Dir: dir, Name: []byte(name), Entry: e, Clear: e == nil})
}

// touched notes that a directory's names changed.
func (r *record) touched(before *attr, now moment) {
	if !r.has(ownTimes) {
		r.Atime = before.atime
	}
	r.Own |= ownTimes
	r.Mtime, r.Ctime = now, now
}
