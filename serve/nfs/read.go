package nfs

import (
	"errors"
	"math"
	"sync"

	"rhizome/serve/boot"
	"rhizome/serve/rootfs"
	"rhizome/serve/rpc"
)

// loans are lists of lent pieces, kept for the next READ.
var loans = sync.Pool{New: func() any { return new([8]rootfs.Loan) }}

// read is READ (RFC 1813, 3.3.6). Bodies in memory are lent to the reply
// where the call was read; others are fetched by a worker.
func (r *request) read() rpc.Status {
	offset, count := r.args.Uint64(), r.args.Uint32()
	if !r.args.Ok() {
		return rpc.GarbageArgs
	}
	if st := r.checkRead(); st != ok {
		return r.fail(st)
	}
	n := span(offset, count, r.attr.Size, maxRead(r.call.Peer.Transport))
	if n == 0 {
		return r.readReply(nil, 0, offset >= r.attr.Size)
	}
	keep := loans.Get().(*[8]rootfs.Loan)
	defer loans.Put(keep)
	defer clear(keep[:])
	return r.readBody(keep[:0], offset, n)
}

func (r *request) checkRead() status {
	switch {
	case r.attr.Kind == rootfs.Dir:
		return errIsDir
	case r.attr.Kind != rootfs.Regular:
		return errInval
	case !mayReadBody(&r.who, &r.attr):
		return errAcces
	}
	return ok
}

// maxRead is rtmax in bytes.
func maxRead(t rpc.Transport) uint32 {
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

func (r *request) readBody(room []rootfs.Loan, offset uint64, n int) rpc.Status {
	eof := offset+uint64(n) >= r.attr.Size
	if lent, _, hit := r.fs.LendCached(r.file, int64(offset), n, room); hit {
		return r.readReply(lent, n, eof)
	}
	if !r.call.MayBlock {
		return rpc.WouldBlock
	}
	lent, err := r.fs.Borrow(r.file, int64(offset), n, room)
	if err != nil {
		r.s.damaged(r, err)
		return r.fail(toStatus(err))
	}
	return r.readReply(lent, n, eof)
}

// readReply appends READ3resok. lent holds n bytes.
func (r *request) readReply(lent []rootfs.Loan, n int, eof bool) rpc.Status {
	r.out.Uint32(uint32(ok))
	appendPostOp(r.out, &r.attr, r.fsid)
	r.out.Uint32(uint32(n))
	r.out.Bool(eof)
	r.out.Uint32(uint32(n))
	for _, l := range lent {
		r.lend(l)
	}
	r.out.Pad(n)
	r.known.counters.BytesRead.Add(uint64(n))
	if r.meter != nil {
		r.meter.Read(r.file, n)
	}
	return rpc.Success
}

// lend hands a loan on. The holder of one that needs none is nil itself, not a
// nil *Frame in an interface.
func (r *request) lend(l rootfs.Loan) {
	if l.Frame == nil {
		r.out.Lend(l.Data)
		return
	}
	r.out.LendHeld(l.Data, l.Frame)
}

// damaged tells of a body that cannot be read.
func (s *Server) damaged(r *request, err error) {
	e := boot.Event{Kind: boot.NFSError, Addr: r.call.Peer.Remote.Addr(), Digest: r.fs.Digest(), Error: err.Error()}
	var damage *rootfs.DamagedError
	if errors.As(err, &damage) {
		e.File = damage.File
	}
	s.tell(e)
}
