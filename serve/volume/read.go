package volume

import (
	"errors"
	"io"
	"math"

	"rhizome/serve/rpc"
)

// getattr is GETATTR (RFC 1813, 3.3.1).
func (r *request) getattr() rpc.Status {
	r.out.Uint32(uint32(statusOK))
	r.attr.append(r.out, r.x.fsid)
	return rpc.Success
}

// access is ACCESS (RFC 1813, 3.3.4).
func (r *request) access() rpc.Status {
	asked := r.args.Uint32()
	if !r.args.Ok() {
		return rpc.GarbageArgs
	}
	r.out.Uint32(uint32(statusOK))
	r.postOp(&r.attr)
	r.out.Uint32(r.who.granted(&r.attr, asked))
	return rpc.Success
}

// lookup is LOOKUP (RFC 1813, 3.3.3).
func (r *request) lookup() rpc.Status {
	name := r.name()
	if !r.args.Ok() {
		return rpc.GarbageArgs
	}
	child, err := r.child(name)
	if err != nil {
		return r.failed(err)
	}
	defer child.close()
	a, err := child.attr()
	if err != nil {
		return r.failed(err)
	}
	r.out.Uint32(uint32(statusOK))
	r.appendHandle(child)
	r.postOp(&a)
	r.postOp(&r.attr)
	return rpc.Success
}

// child finds a name for a caller who may look for it.
func (r *request) child(name string) (object, error) {
	switch {
	case r.attr.kind != kindDir:
		return nil, statusNotDir
	case !r.who.may(&r.attr, mayExec):
		return nil, statusAcces
	case name == ".":
		return r.obj.lookup(name)
	case name == "..":
		return r.obj.parent()
	}
	if st := checkName(name); st != statusOK {
		return nil, st
	}
	return r.obj.lookup(name)
}

// readlink is READLINK (RFC 1813, 3.3.5).
func (r *request) readlink() rpc.Status {
	if r.attr.kind != kindSymlink {
		return r.fail(statusInval)
	}
	target, err := r.obj.readlink()
	if err != nil {
		return r.failed(err)
	}
	r.out.Uint32(uint32(statusOK))
	r.postOp(&r.attr)
	r.out.String(target)
	return rpc.Success
}

// read is READ (RFC 1813, 3.3.6).
func (r *request) read() rpc.Status {
	offset, count := r.args.Uint64(), r.args.Uint32()
	if !r.args.Ok() {
		return rpc.GarbageArgs
	}
	switch {
	case r.attr.kind == kindDir:
		return r.fail(statusIsDir)
	case r.attr.kind != kindRegular:
		return r.fail(statusInval)
	case !r.who.mayReadBody(&r.attr):
		return r.fail(statusAcces)
	}
	return r.readBody(offset, span(offset, count, r.attr.size, maxTransfer(r.call.Peer.Transport)))
}

// maxTransfer is rtmax and wtmax in bytes.
func maxTransfer(t rpc.Transport) uint32 {
	if t == rpc.UDP {
		return maxUDP
	}
	return maxTCP
}

// span is how many bytes a READ gets: none behind the end, and no more than
// limit. An offset beyond 2^63 is behind the end of any file.
func span(offset uint64, count uint32, size uint64, limit uint32) int {
	if offset >= size || offset > math.MaxInt64 {
		return 0
	}
	return int(min(uint64(count), uint64(limit), size-offset))
}

// readBody answers with n bytes, or fewer where the file was cut meanwhile: then
// they are its last, and eof says so. A client that is given nothing, and not the
// end, takes it for an error (EIO).
func (r *request) readBody(offset uint64, n int) rpc.Status {
	start := r.out.Mark()
	eof := offset >= r.attr.size || offset+uint64(n) >= r.attr.size
	for {
		got, err := r.tryRead(offset, n, eof)
		if err != nil {
			r.out.Rewind(start)
			return r.failed(err)
		}
		if got == n {
			return rpc.Success
		}
		r.out.Rewind(start)
		if now := after(r.obj); now != nil {
			r.attr = *now
		}
		n, eof = got, true
	}
}

// tryRead writes a whole reply for n bytes and tells how many there were.
func (r *request) tryRead(offset uint64, n int, eof bool) (int, error) {
	r.out.Uint32(uint32(statusOK))
	r.postOp(&r.attr)
	r.out.Uint32(uint32(n))
	r.out.Bool(eof)
	r.out.Uint32(uint32(n))
	if n == 0 {
		return 0, nil
	}
	got, err := r.obj.readAt(r.out.Grow(n), int64(offset))
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	r.out.Pad(n)
	return got, nil
}

// fsstat is FSSTAT (RFC 1813, 3.3.18).
func (r *request) fsstat() rpc.Status {
	s, err := r.x.tree.space()
	if err != nil {
		return r.failed(err)
	}
	s = r.x.quota.within(s)
	r.out.Uint32(uint32(statusOK))
	r.postOp(&r.attr)
	for _, n := range []uint64{s.total, s.free, s.available, s.files, s.freeFiles, s.freeFiles} {
		r.out.Uint64(n)
	}
	r.out.Uint32(0) // invarsec: it may change at any time
	return rpc.Success
}

// Properties of FSINFO (RFC 1813, 3.3.19): links, symlinks, the same for all
// files, times that can be set.
const fsProperties = 0x01 | 0x02 | 0x08 | 0x10

// fsinfo is FSINFO (RFC 1813, 3.3.19).
func (r *request) fsinfo() rpc.Status {
	largest := maxTransfer(r.call.Peer.Transport)
	const multiple = 4096
	r.out.Uint32(uint32(statusOK))
	r.postOp(&r.attr)
	for range 2 { // rtmax, rtpref, rtmult; wtmax, wtpref, wtmult
		r.out.Uint32(largest)
		r.out.Uint32(largest)
		r.out.Uint32(multiple)
	}
	r.out.Uint32(min(largest, 64<<10)) // dtpref
	r.out.Uint64(maxFileSize)
	r.out.Uint64(1) // time_delta: one nanosecond
	r.out.Uint32(fsProperties)
	return rpc.Success
}

// pathconf is PATHCONF (RFC 1813, 3.3.20).
func (r *request) pathconf() rpc.Status {
	const linkMax = 32000 // ext4 has 65000, and no tree of ours fewer than this
	r.out.Uint32(uint32(statusOK))
	r.postOp(&r.attr)
	r.out.Uint32(linkMax)
	r.out.Uint32(maxName)
	r.out.Bool(true)  // no_trunc
	r.out.Bool(true)  // chown_restricted
	r.out.Bool(false) // case_insensitive
	r.out.Bool(true)  // case_preserving
	return rpc.Success
}
