package volume

import (
	"errors"
	"syscall"

	"rhizome/serve/rpc"
)

// rename is RENAME (RFC 1813, 3.3.14); the call's object is the directory it
// takes the name from.
func (r *request) rename() rpc.Status {
	name := r.name()
	h := r.args.Opaque(maxHandle)
	toName := r.name()
	if !r.args.Ok() {
		return rpc.GarbageArgs
	}
	to, toAttr, err := r.x.second(h)
	if err != nil {
		return r.fail(toStatus(err))
	}
	defer to.close()
	if st := r.checkRename(name, &toAttr, toName); st != statusOK {
		return r.fail(st)
	}
	w, err := r.move(name, to, toName)
	if err == nil {
		err = r.syncAll(r.obj, to)
	}
	if err != nil {
		return r.failed(err)
	}
	r.out.Uint32(uint32(statusOK))
	appendWcc(r.out, w.before, w.now, r.x.fsid)
	appendWcc(r.out, w.toBefore, w.toNow, r.x.fsid)
	return rpc.Success
}

// moved are the attributes of both directories around a RENAME.
type moved struct{ before, now, toBefore, toNow *attr }

func (r *request) checkRename(name string, to *attr, toName string) status {
	switch {
	case r.attr.kind != kindDir, to.kind != kindDir:
		return statusNotDir
	case isDots(name), isDots(toName):
		return statusInval
	}
	if st := checkName(name); st != statusOK {
		return st
	}
	return checkName(toName)
}

func (r *request) move(name string, to object, toName string) (w moved, err error) {
	r.x.names.Lock()
	defer r.x.names.Unlock()
	if w.before, w.toBefore = after(r.obj), after(to); w.before == nil || w.toBefore == nil {
		return w, statusStale
	}
	if err := r.mayMove(&w, name, to, toName); err != nil {
		return w, err
	}
	if err := r.obj.rename(name, to, toName); err != nil {
		return w, err
	}
	w.now, w.toNow = after(r.obj), after(to)
	return w, nil
}

// mayMove decides whether the caller may take the one name away, give the
// other, and take away what has that name now.
func (r *request) mayMove(w *moved, name string, to object, toName string) error {
	child, err := r.victim(r.obj, w.before, name)
	if err != nil {
		return err
	}
	// A directory that goes elsewhere gets another "..", which is a change to it.
	if child.kind == kindDir && w.before.fileid != w.toBefore.fileid && !r.who.may(child, mayWrite) {
		return statusAcces
	}
	if !r.who.may(w.toBefore, mayWrite|mayExec) {
		return statusAcces
	}
	if _, err := r.victim(to, w.toBefore, toName); err != nil && !errors.Is(err, syscall.ENOENT) {
		return err
	}
	return nil
}
