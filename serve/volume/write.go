package volume

import (
	"crypto/rand"
	"encoding/binary"
	"sync/atomic"

	"rhizome/serve/rpc"
)

// How stable a WRITE must be (RFC 1813, 3.3.7).
const (
	unstable = 0
	dataSync = 1
	fileSync = 2
)

// verifier tells clients which life of the server took their unstable writes:
// when it changes, what was not committed may be lost, and they send it again.
type verifier struct{ v atomic.Uint64 }

// renew starts another life: the server's, or after an fsync that failed, for
// the kernel forgets then what it could not write.
func (f *verifier) renew() {
	var b [8]byte
	rand.Read(b[:])
	f.v.Store(binary.BigEndian.Uint64(b[:]))
}

// write is WRITE (RFC 1813, 3.3.7).
func (r *request) write() rpc.Status {
	offset, count, stable := r.args.Uint64(), r.args.Uint32(), r.args.Uint32()
	data := r.args.Opaque(maxTCP)
	if !r.args.Ok() || stable > fileSync {
		return rpc.GarbageArgs
	}
	data = data[:min(int(count), len(data))]
	if st := r.checkWrite(offset, len(data)); st != statusOK {
		return r.fail(st)
	}
	verf := r.v.life.v.Load() // before the bytes are in: an fsync that fails later changes it
	before, after, err := r.writeBody(data, int64(offset))
	if err == nil && stable != unstable {
		err = r.obj.sync()
	}
	if err != nil {
		return r.failed(err)
	}
	r.out.Uint32(uint32(statusOK))
	appendWcc(r.out, before, after, r.x.fsid)
	r.out.Uint32(uint32(len(data)))
	if stable != unstable {
		stable = fileSync
	}
	r.out.Uint32(stable)
	r.out.Uint64(verf)
	return rpc.Success
}

func (r *request) checkWrite(offset uint64, n int) status {
	switch {
	case r.attr.kind == kindDir:
		return statusIsDir
	case r.attr.kind != kindRegular:
		return statusInval
	case !r.who.mayWriteBody(&r.attr):
		return statusAcces
	case offset > maxFileSize-uint64(n):
		return statusFBig
	}
	return statusOK
}

// writeBody writes, alone on this file, so that the attributes before and
// after enclose this change and no other.
func (r *request) writeBody(data []byte, offset int64) (before, now *attr, err error) {
	defer r.x.lockFile(r.attr.fileid)()
	if before = after(r.obj); before == nil {
		return nil, nil, statusStale
	}
	if err := r.x.quota.room(growth(before, offset, len(data))); err != nil {
		return nil, nil, err
	}
	if err := r.obj.writeAt(data, offset); err != nil {
		return nil, nil, err
	}
	// Whoever may not set these bits may not keep them on other content.
	if mode := plainMode(before.mode); !r.who.root() && mode != before.mode && len(data) > 0 {
		if err := r.obj.set(&setAttrs{hasMode: true, mode: mode}); err != nil {
			return nil, nil, err
		}
	}
	return before, after(r.obj), nil
}

// commit is COMMIT (RFC 1813, 3.3.21): of the whole file, whatever the range.
func (r *request) commit() rpc.Status {
	r.args.Uint64()
	r.args.Uint32()
	if !r.args.Ok() {
		return rpc.GarbageArgs
	}
	if r.attr.kind != kindRegular {
		return r.fail(statusInval)
	}
	if err := r.obj.sync(); err != nil {
		return r.failed(err)
	}
	r.out.Uint32(uint32(statusOK))
	appendWcc(r.out, &r.attr, after(r.obj), r.x.fsid)
	r.out.Uint64(r.v.life.v.Load())
	return rpc.Success
}

// setattr is SETATTR (RFC 1813, 3.3.2).
func (r *request) setattr() rpc.Status {
	s := decodeSetAttrs(&r.args, r.v.moment())
	guarded := r.args.Bool()
	var guard moment
	if guarded {
		guard = decodeMoment(&r.args)
	}
	if !r.args.Ok() {
		return rpc.GarbageArgs
	}
	before, now, err := r.change(&s, guarded, guard)
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

// change sets attributes, where the caller may and the guard, a ctime, holds.
func (r *request) change(s *setAttrs, guarded bool, guard moment) (before, now *attr, err error) {
	r.x.names.Lock()
	defer r.x.names.Unlock()
	defer r.x.lockFile(r.attr.fileid)()
	if before = after(r.obj); before == nil {
		return nil, nil, statusStale
	}
	if guarded && guard != (moment{int64(uint32(before.ctime.Sec)), before.ctime.Nsec}) {
		return nil, nil, statusNotSync
	}
	if st := r.who.checkSet(before, s); st != statusOK {
		return nil, nil, st
	}
	r.who.sanitize(before, s)
	if before.kind == kindSymlink {
		s.hasMode = false // a symlink has none that counts
	}
	if err := r.obj.set(s); err != nil {
		return nil, nil, err
	}
	return before, after(r.obj), nil
}
