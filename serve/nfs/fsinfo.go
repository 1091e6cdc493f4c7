package nfs

import (
	"math"

	"rhizome/serve/rpc"
)

// fsstat is FSSTAT (RFC 1813, 3.3.18): full, and not expected to change.
func (r *request) fsstat() rpc.Status {
	bytes, inodes := r.fs.Usage()
	r.out.Uint32(uint32(ok))
	appendPostOp(r.out, &r.attr, r.fsid)
	r.out.Uint64(bytes)
	r.out.Uint64(0) // free
	r.out.Uint64(0) // free for this user
	r.out.Uint64(inodes)
	r.out.Uint64(0)
	r.out.Uint64(0)
	r.out.Uint32(math.MaxUint32) // invarsec
	return rpc.Success
}

// Properties of FSINFO (RFC 1813, 3.3.19).
const (
	fsfLink        = 0x01
	fsfSymlink     = 0x02
	fsfHomogeneous = 0x08
)

// fsinfo is FSINFO (RFC 1813, 3.3.19). The sizes for writing are named though
// nothing can be written: clients use them to size buffers.
func (r *request) fsinfo() rpc.Status {
	largest := maxRead(r.call.Peer.Transport)
	const multiple = 4096
	r.out.Uint32(uint32(ok))
	appendPostOp(r.out, &r.attr, r.fsid)
	for range 2 { // rtmax, rtpref, rtmult; wtmax, wtpref, wtmult
		r.out.Uint32(largest)
		r.out.Uint32(largest)
		r.out.Uint32(multiple)
	}
	r.out.Uint32(min(largest, 64<<10)) // dtpref
	r.out.Uint64(math.MaxInt64)        // maxfilesize
	r.out.Uint64(1)                    // time_delta: one nanosecond
	r.out.Uint32(fsfLink | fsfSymlink | fsfHomogeneous)
	return rpc.Success
}

// pathconf is PATHCONF (RFC 1813, 3.3.20).
func (r *request) pathconf() rpc.Status {
	r.out.Uint32(uint32(ok))
	appendPostOp(r.out, &r.attr, r.fsid)
	r.out.Uint32(math.MaxInt32) // linkmax
	r.out.Uint32(maxName)
	r.out.Bool(true)  // no_trunc
	r.out.Bool(true)  // chown_restricted
	r.out.Bool(false) // case_insensitive
	r.out.Bool(true)  // case_preserving
	return rpc.Success
}
