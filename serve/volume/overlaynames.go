package volume

import (
	"errors"
	"syscall"
)

// find gives the number that a name means in a directory; o.mu is held.
func (o *overlay) find(dir uint64, name string) (uint64, error) {
	s, err := o.state(dir)
	if err != nil {
		return 0, err
	}
	if e, changed := o.names[dir][name]; changed {
		if e.ID == 0 {
			return 0, syscall.ENOENT
		}
		return e.ID, nil
	}
	if s.inImage {
		if ref, ok := o.base.child(dir, name); ok {
			return ref.id, nil
		}
	}
	return 0, syscall.ENOENT
}

func (x *overlayObject) lookup(name string) (object, error) {
	if name == "." {
		return x.o.object(x.n), nil
	}
	x.o.mu.RLock()
	defer x.o.mu.RUnlock()
	id, err := x.o.find(x.n, name)
	if err != nil {
		return nil, err
	}
	return x.o.object(id), nil
}

func (x *overlayObject) parent() (object, error) {
	x.o.mu.RLock()
	defer x.o.mu.RUnlock()
	id, err := x.o.parentOf(x.n)
	if err != nil {
		return nil, err
	}
	return x.o.object(id), nil
}

func (o *overlay) parentOf(dir uint64) (uint64, error) {
	s, err := o.state(dir)
	switch {
	case err != nil:
		return 0, err
	case dir == rootID:
		return rootID, nil
	case s.rec != nil:
		return s.rec.Parent, nil
	}
	return s.ref.parent, nil
}

func (x *overlayObject) list(cookie uint64, fn func(dirent) bool) error {
	x.o.mu.RLock()
	_, err := x.o.state(x.n)
	l := x.o.list(x.n)
	up, parentErr := x.o.parentOf(x.n)
	x.o.mu.RUnlock()
	if err = errors.Join(err, parentErr); err != nil {
		return err
	}
	if cookie < cookieSelf && !fn(dirent{".", x.n, cookieSelf}) {
		return nil
	}
	if cookie < cookieParent && !fn(dirent{"..", up, cookieParent}) {
		return nil
	}
	for _, e := range l.after(cookie) {
		if !fn(dirent{e.name, e.id, e.cookie}) {
			return nil
		}
	}
	return nil
}

// hidden is the fingerprint of what the image has by a name, if that is
// another object than id; o.mu is held.
func (o *overlay) hidden(dir uint64, name string, id uint64) string {
	s, err := o.state(dir)
	if err != nil || !s.inImage {
		return ""
	}
	ref, ok := o.base.child(dir, name)
	if !ok || ref.id == id {
		return ""
	}
	return o.base.fingerprint(ref)
}

// give makes a name mean an object.
func (o *overlay) give(tx *transaction, dir uint64, name string, id uint64) {
	tx.name(dir, name, &entry{ID: id, Base: o.hidden(dir, name, id)})
}

// take makes a name mean nothing: what the image has by it is hidden.
func (o *overlay) take(tx *transaction, dir uint64, name string) {
	if base := o.hidden(dir, name, 0); base != "" {
		tx.name(dir, name, &entry{Base: base})
		return
	}
	tx.name(dir, name, nil)
}

// editDir edits a directory whose names change.
func (o *overlay) editDir(tx *transaction, dir uint64) (*record, error) {
	before, err := o.attrAt(dir)
	if err != nil {
		return nil, err
	}
	if before.kind != kindDir {
		return nil, syscall.ENOTDIR
	}
	rec, err := o.edit(tx, dir)
	if err == nil {
		rec.touched(&before, o.now())
	}
	return rec, err
}

func (x *overlayObject) create(name string, n *newObject) (object, error) {
	o := x.o
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, err := o.find(x.n, name); err == nil {
		return nil, syscall.EEXIST
	} else if !errors.Is(err, syscall.ENOENT) {
		return nil, err
	}
	if err := o.quota.room(1); err != nil {
		return nil, err
	}
	var tx transaction
	if _, err := o.editDir(&tx, x.n); err != nil {
		return nil, err
	}
	id := o.next
	tx.steps = append(tx.steps, change{ID: id, Put: newRecord(n, x.n, o.now())})
	o.give(&tx, x.n, name, id)
	if err := o.commit(tx.steps); err != nil {
		return nil, err
	}
	if n.kind == kindDir {
		o.lists.moreDirs(x.n, 1)
	}
	return o.object(id), nil
}

func newRecord(n *newObject, parent uint64, now moment) *record {
	rec := &record{Kind: n.kind, Own: ownMode | ownOwner | ownTimes, Mode: n.mode, UID: n.uid, GID: n.gid, Nlink: 1,
		Major: n.major, Minor: n.minor, Atime: now, Mtime: now, Ctime: now}
	switch n.kind {
	case kindRegular:
		rec.Own |= ownBody
	case kindDir:
		rec.Parent = parent
	case kindSymlink:
		rec.Target = []byte(n.target)
	}
	if n.stamp != nil {
		rec.Atime, rec.Mtime = n.stamp[0], n.stamp[1]
	}
	return rec
}

// unname takes one name of an object away, and with the last one the object.
func (o *overlay) unname(tx *transaction, id uint64) error {
	a, err := o.attrAt(id)
	if err != nil {
		return err
	}
	rec, err := o.edit(tx, id)
	if err != nil {
		return err
	}
	rec.Ctime = o.now()
	if a.kind != kindDir && rec.Nlink > 1 {
		rec.Nlink--
		return nil
	}
	if rec.has(ownBody) {
		tx.trash = append(tx.trash, id)
	}
	if id >= fromImage {
		// The image's object could be found by its number still.
		rec.Gone, rec.Own = true, rec.Own&^ownBody
		tx.steps = append(tx.steps, change{ID: id, Drop: true}, change{ID: id, Put: rec})
		return nil
	}
	tx.steps = append(tx.steps, change{ID: id, Drop: true})
	return nil
}

func (x *overlayObject) remove(name string, dir bool) error {
	o := x.o
	o.mu.Lock()
	defer o.mu.Unlock()
	id, err := o.find(x.n, name)
	if err != nil {
		return err
	}
	if err := o.checkVictim(id, dir); err != nil {
		return err
	}
	var tx transaction
	if _, err := o.editDir(&tx, x.n); err != nil {
		return err
	}
	if err := o.unname(&tx, id); err != nil {
		return err
	}
	o.take(&tx, x.n, name)
	if err := o.commitRemoval(tx.steps); err != nil {
		return err
	}
	o.trash = append(o.trash, tx.trash...)
	if dir {
		o.lists.moreDirs(x.n, -1)
	}
	return nil
}

// checkVictim tells whether rmdir(2), or unlink(2), may take an object.
func (o *overlay) checkVictim(id uint64, dir bool) error {
	a, err := o.attrAt(id)
	switch {
	case err != nil:
		return err
	case dir && a.kind != kindDir:
		return syscall.ENOTDIR
	case !dir && a.kind == kindDir:
		return syscall.EISDIR
	case dir && !o.empty(id):
		return syscall.ENOTEMPTY
	}
	return nil
}

func (x *overlayObject) rename(name string, to object, toName string) error {
	target, ok := to.(*overlayObject)
	if !ok || target.o != x.o {
		return syscall.EXDEV
	}
	id, err := x.settle(name)
	if err != nil {
		return err
	}
	o := x.o
	o.mu.Lock()
	defer o.mu.Unlock()
	if again, err := o.find(x.n, name); err != nil || again != id {
		return syscall.ENOENT
	}
	var tx transaction
	done, err := o.move(&tx, id, x.n, target.n, toName)
	if err != nil || done {
		return err
	}
	o.take(&tx, x.n, name)
	o.give(&tx, target.n, toName, id)
	dir := tx.edited[id].Kind == kindDir
	_, replaced := o.find(target.n, toName)
	if err := o.commit(tx.steps); err != nil {
		return err
	}
	o.trash = append(o.trash, tx.trash...)
	if dir {
		o.lists.moreDirs(x.n, -1)
		if replaced != nil { // what was replaced was a directory too
			o.lists.moreDirs(target.n, 1)
		}
	}
	return nil
}

// settle finds a name, and gives a file of the image a body of its own: what
// has another name must not change with the image's file of the old one.
func (x *overlayObject) settle(name string) (uint64, error) {
	x.o.mu.RLock()
	id, err := x.o.find(x.n, name)
	x.o.mu.RUnlock()
	if err != nil {
		return 0, err
	}
	return id, x.o.object(id).settleBody()
}

func (x *overlayObject) settleBody() error {
	a, err := x.attr()
	if err != nil || a.kind != kindRegular {
		return err
	}
	return x.ownBody(-1)
}

// move does all of a rename but the two names. It is done already where both
// mean one object (rename(2)).
func (o *overlay) move(tx *transaction, id, from, to uint64, toName string) (done bool, err error) {
	a, err := o.attrAt(id)
	if err != nil {
		return false, err
	}
	if a.kind == kindDir && o.within(to, id) {
		return false, syscall.EINVAL
	}
	if _, err := o.editDir(tx, from); err != nil {
		return false, err
	}
	if _, err := o.editDir(tx, to); err != nil {
		return false, err
	}
	victim, err := o.find(to, toName)
	if err == nil {
		if victim == id {
			return true, nil
		}
		if err := o.checkVictim(victim, a.kind == kindDir); err != nil {
			return false, err
		}
		if err := o.unname(tx, victim); err != nil {
			return false, err
		}
	} else if !errors.Is(err, syscall.ENOENT) {
		return false, err
	}
	rec, err := o.edit(tx, id)
	if err == nil {
		rec.Ctime = o.now()
		if a.kind == kindDir {
			rec.Parent = to
		}
	}
	return false, err
}

// within tells whether a directory is another, or lies below it.
func (o *overlay) within(dir, top uint64) bool {
	for range 1 << 16 {
		if dir == top {
			return true
		}
		up, err := o.parentOf(dir)
		if err != nil || up == dir {
			return false
		}
		dir = up
	}
	return true
}

func (x *overlayObject) link(name string, target object) error {
	t, ok := target.(*overlayObject)
	if !ok || t.o != x.o {
		return syscall.EXDEV
	}
	if err := t.settleBody(); err != nil {
		return err
	}
	o := x.o
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, err := o.find(x.n, name); err == nil {
		return syscall.EEXIST
	} else if !errors.Is(err, syscall.ENOENT) {
		return err
	}
	var tx transaction
	if _, err := o.editDir(&tx, x.n); err != nil {
		return err
	}
	rec, err := o.edit(&tx, t.n)
	if err != nil {
		return err
	}
	rec.Nlink, rec.Ctime = rec.Nlink+1, o.now()
	o.give(&tx, x.n, name, t.n)
	return o.commit(tx.steps)
}
