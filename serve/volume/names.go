package volume

import (
	"errors"
	"syscall"

	"rhizome/serve/rpc"
)

// How CREATE treats a file that exists (createmode3; RFC 1813, 3.3.8).
const (
	unchecked = 0
	guarded   = 1
	exclusive = 2
)

// making is the arguments of CREATE, MKDIR, SYMLINK or MKNOD.
type making struct {
	name  string
	how   uint32
	attrs setAttrs
	verf  uint64
	newObject
}

// decodeMaking reads the arguments behind the directory's handle (RFC 1813,
// 3.3.8 to 3.3.11).
func decodeMaking(procedure uint32, d *rpc.Decoder, now moment) (m making, st status) {
	m.name = string(d.Opaque(maxPath))
	m.how = guarded
	switch procedure {
	case procCreate:
		m.kind, m.how = kindRegular, d.Uint32()
		if m.how == exclusive {
			m.verf = d.Uint64()
			return m, statusOK
		}
		m.attrs = decodeSetAttrs(d, now)
		if m.how > exclusive {
			d.Fixed(-1)
		}
	case procMkdir:
		m.kind, m.attrs = kindDir, decodeSetAttrs(d, now)
	case procSymlink:
		m.kind, m.attrs = kindSymlink, decodeSetAttrs(d, now)
		m.target = string(d.Opaque(maxPath))
	case procMknod:
		return m, m.decodeNode(d, now)
	}
	return m, statusOK
}

func (m *making) decodeNode(d *rpc.Decoder, now moment) status {
	switch m.kind = kind(d.Uint32()); m.kind {
	case kindChar, kindBlock:
		m.attrs = decodeSetAttrs(d, now)
		m.major, m.minor = d.Uint32(), d.Uint32()
	case kindSocket, kindFifo:
		m.attrs = decodeSetAttrs(d, now)
	default:
		return statusBadType
	}
	return statusOK
}

// make is CREATE, MKDIR, SYMLINK and MKNOD.
func (r *request) make() rpc.Status {
	m, st := decodeMaking(r.call.Procedure, &r.args, r.v.moment())
	if !r.args.Ok() {
		return rpc.GarbageArgs
	}
	if st == statusOK {
		st = r.checkMaking(&m)
	}
	if st != statusOK {
		return r.fail(st)
	}
	child, before, now, err := r.makeChild(&m)
	if err == nil {
		defer child.close()
		err = r.syncAll(r.obj, child)
	}
	if err != nil {
		return r.failed(err)
	}
	r.out.Uint32(uint32(statusOK))
	r.out.Bool(true)
	r.appendHandle(child)
	r.postOp(after(child))
	appendWcc(r.out, before, now, r.x.fsid)
	return rpc.Success
}

// checkMaking decides what can be said without the directory's names.
func (r *request) checkMaking(m *making) status {
	if r.attr.kind != kindDir {
		return statusNotDir
	}
	if isDots(m.name) {
		return statusExist
	}
	if st := checkName(m.name); st != statusOK {
		return st
	}
	switch {
	case m.kind.device() && !r.who.root(), m.kind.device() && !r.x.devices:
		return statusPerm
	case m.kind == kindSymlink && (m.target == "" || containsNUL(m.target)):
		return statusInval
	}
	return statusOK
}

func containsNUL(s string) bool {
	for i := range len(s) {
		if s[i] == 0 {
			return true
		}
	}
	return false
}

// makeChild makes the object, or finds the one that an unchecked or a repeated
// exclusive CREATE means.
func (r *request) makeChild(m *making) (child object, before, now *attr, err error) {
	r.x.names.Lock()
	defer r.x.names.Unlock()
	if before = after(r.obj); before == nil {
		return nil, nil, nil, statusStale
	}
	child, err = r.existing(m)
	if child == nil && err == nil {
		child, err = r.makeNew(m, before)
	}
	if err != nil {
		return nil, nil, nil, err
	}
	return child, before, after(r.obj), nil
}

// stampOf makes times of an exclusive CREATE's verifier, within 31 bits each:
// what every file system can keep.
func stampOf(verf uint64) [2]moment {
	return [2]moment{{Sec: int64(verf >> 32 & 0x7fffffff)}, {Sec: int64(verf & 0x7fffffff)}}
}

// existing is nil where the name is free; it is an error where it is not and
// must be.
func (r *request) existing(m *making) (object, error) {
	if !r.who.may(&r.attr, mayExec) {
		return nil, statusAcces
	}
	child, err := r.obj.lookup(m.name)
	if errors.Is(err, syscall.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	a, err := child.attr()
	if err == nil {
		err = r.reuse(m, child, &a)
	}
	if err != nil {
		child.close()
		return nil, err
	}
	return child, nil
}

func (r *request) reuse(m *making, child object, a *attr) error {
	switch {
	case m.kind != kindRegular, m.how == guarded:
		return statusExist
	case m.how == exclusive:
		if s := stampOf(m.verf); a.kind == kindRegular && a.atime.Sec == s[0].Sec && a.mtime.Sec == s[1].Sec {
			return nil
		}
		return statusExist
	case a.kind == kindDir:
		return statusIsDir
	case a.kind != kindRegular:
		return statusExist
	}
	// Of the attributes only a size means an existing file: O_TRUNC.
	s := setAttrs{hasSize: m.attrs.hasSize, size: m.attrs.size}
	if st := r.who.checkSet(a, &s); s.hasSize && st != statusOK {
		return st
	}
	if !s.hasSize {
		return nil
	}
	r.who.sanitize(a, &s)
	return child.set(&s)
}

func (r *request) makeNew(m *making, dir *attr) (object, error) {
	if !r.who.may(dir, mayWrite|mayExec) {
		return nil, statusAcces
	}
	n := m.newObject
	n.uid, n.gid, n.mode = r.who.newOwner(dir, m.kind, &m.attrs)
	if m.kind == kindSymlink {
		n.mode = 0o777
	}
	if m.how == exclusive {
		s := stampOf(m.verf)
		n.stamp, n.mode = &s, 0o600
	}
	child, err := r.obj.create(m.name, &n)
	if err != nil {
		return nil, err
	}
	rest := setAttrs{hasSize: m.attrs.hasSize && m.kind == kindRegular && m.attrs.size > 0, size: min(m.attrs.size, maxFileSize),
		hasAtime: m.attrs.ownAtime, atime: m.attrs.atime, hasMtime: m.attrs.ownMtime, mtime: m.attrs.mtime}
	if rest != (setAttrs{size: rest.size, atime: rest.atime, mtime: rest.mtime}) {
		err = child.set(&rest)
	}
	if err != nil {
		child.close()
		return nil, err
	}
	return child, nil
}

// syncAll makes what was done to some objects last: NFS knows no unstable
// change of names.
func (r *request) syncAll(objs ...object) error {
	for _, o := range objs {
		if err := o.sync(); err != nil {
			return err
		}
	}
	return nil
}

// remove is REMOVE and RMDIR (RFC 1813, 3.3.12 and 3.3.13).
func (r *request) remove() rpc.Status {
	name := r.name()
	if !r.args.Ok() {
		return rpc.GarbageArgs
	}
	if st := r.checkGone(name); st != statusOK {
		return r.fail(st)
	}
	before, now, err := r.unlink(name)
	if err == nil {
		err = r.obj.sync()
	}
	if err != nil {
		return r.failed(err)
	}
	r.out.Uint32(uint32(statusOK))
	appendWcc(r.out, before, now, r.x.fsid)
	return rpc.Success
}

func (r *request) checkGone(name string) status {
	switch {
	case r.attr.kind != kindDir:
		return statusNotDir
	case name == ".":
		return statusInval
	case name == "..":
		return statusExist
	}
	return checkName(name)
}

func (r *request) unlink(name string) (before, now *attr, err error) {
	r.x.names.Lock()
	defer r.x.names.Unlock()
	if before = after(r.obj); before == nil {
		return nil, nil, statusStale
	}
	victim, err := r.victim(r.obj, before, name)
	if err != nil {
		return nil, nil, err
	}
	dir := r.call.Procedure == procRmdir
	if dir && victim.kind != kindDir {
		return nil, nil, statusNotDir
	}
	if !dir && victim.kind == kindDir {
		return nil, nil, statusIsDir
	}
	if err := r.obj.remove(name, dir); err != nil {
		return nil, nil, err
	}
	return before, after(r.obj), nil
}

// victim gives the attributes of what a name means, if the caller may take the
// name away.
func (r *request) victim(dir object, d *attr, name string) (*attr, error) {
	if !r.who.may(d, mayExec) {
		return nil, statusAcces
	}
	o, err := dir.lookup(name)
	if err != nil {
		return nil, err
	}
	defer o.close()
	a, err := o.attr()
	if err == nil && !r.who.mayUnlink(d, &a) {
		err = statusAcces
	}
	return &a, err
}

// link is LINK (RFC 1813, 3.3.15); the call's object is the file.
func (r *request) link() rpc.Status {
	h := r.args.Opaque(maxHandle)
	name := r.name()
	if !r.args.Ok() {
		return rpc.GarbageArgs
	}
	if r.attr.kind == kindDir {
		return r.fail(statusPerm)
	}
	dir, d, err := r.x.second(h)
	if err != nil {
		return r.fail(toStatus(err))
	}
	defer dir.close()
	before, now, err := r.addName(dir, &d, name)
	if err == nil {
		err = r.syncAll(dir, r.obj)
	}
	if err != nil {
		return r.failed(err)
	}
	r.out.Uint32(uint32(statusOK))
	r.postOp(after(r.obj))
	appendWcc(r.out, before, now, r.x.fsid)
	return rpc.Success
}

func (r *request) addName(dir object, d *attr, name string) (before, now *attr, err error) {
	if d.kind != kindDir {
		return nil, nil, statusNotDir
	}
	if isDots(name) {
		return nil, nil, statusExist
	}
	if st := checkName(name); st != statusOK {
		return nil, nil, st
	}
	r.x.names.Lock()
	defer r.x.names.Unlock()
	if before = after(dir); before == nil {
		return nil, nil, statusStale
	}
	if !r.who.may(before, mayWrite|mayExec) {
		return nil, nil, statusAcces
	}
	if err := dir.link(name, r.obj); err != nil {
		return nil, nil, err
	}
	return before, after(dir), nil
}
