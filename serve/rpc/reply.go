package rpc

import (
	"encoding/binary"
	"slices"
	"sync"
)

// Reply collects the replies to one or more calls as XDR, ready for the wire.
// Bytes that live elsewhere for good, such as frames of a file, are lent and
// not copied.
type Reply struct {
	buf  []byte
	lent []loan
	// lentBytes is the sum of lent, in bytes.
	lentBytes int
	// start and startLent are where the message now written began.
	start, startLent int
}

// loan is a foreign slice that goes out after the first at bytes of buf.
type loan struct {
	at     int
	data   []byte
	holder Holder
}

// Holder keeps lent bytes where they are until it is released, once.
type Holder interface{ Release() }

// replyBuffer is the first size of a reply's buffer in bytes: some sixty
// metadata replies.
const replyBuffer = 16 << 10

// keepReply is the largest buffer in bytes that goes back to the pool.
const keepReply = 256 << 10

var replies = sync.Pool{New: func() any { return &Reply{buf: make([]byte, 0, replyBuffer)} }}

func newReply() *Reply { return replies.Get().(*Reply) }

// release ends the reply's life: what was lent goes back.
func (r *Reply) release() {
	r.dropLoans(0)
	if cap(r.buf) > keepReply {
		return
	}
	r.buf, r.start, r.startLent = r.buf[:0], 0, 0
	replies.Put(r)
}

// Uint32 appends an unsigned int.
func (r *Reply) Uint32(v uint32) { r.buf = binary.BigEndian.AppendUint32(r.buf, v) }

// Uint64 appends an unsigned hyper.
func (r *Reply) Uint64(v uint64) { r.buf = binary.BigEndian.AppendUint64(r.buf, v) }

// Bool appends a bool.
func (r *Reply) Bool(v bool) {
	n := uint32(0)
	if v {
		n = 1
	}
	r.Uint32(n)
}

// Fixed appends bytes of a length that both sides know, and their padding.
func (r *Reply) Fixed(b []byte) {
	r.buf = append(r.buf, b...)
	r.Pad(len(b))
}

// Opaque appends variable-length bytes.
func (r *Reply) Opaque(b []byte) {
	r.Uint32(uint32(len(b)))
	r.Fixed(b)
}

// String appends a string.
func (r *Reply) String(s string) {
	r.Uint32(uint32(len(s)))
	r.buf = append(r.buf, s...)
	r.Pad(len(s))
}

// Raw appends bytes that are XDR already.
func (r *Reply) Raw(b []byte) { r.buf = append(r.buf, b...) }

// Pad appends the padding of n bytes.
func (r *Reply) Pad(n int) {
	const zeros = "\x00\x00\x00"
	r.buf = append(r.buf, zeros[:pad(n)]...)
}

// Zeros appends n bytes of zero, a multiple of four.
func (r *Reply) Zeros(n int) { clear(r.Grow(n)) }

// Grow appends n zero or stale bytes and returns them to be filled in; the
// slice is good until the next append.
func (r *Reply) Grow(n int) []byte {
	at := len(r.buf)
	r.buf = slices.Grow(r.buf, n)[:at+n]
	return r.buf[at:]
}

// AppendFunc lets fn append bytes to the message, and tells how many it did.
func (r *Reply) AppendFunc(fn func([]byte) []byte) int {
	before := len(r.buf)
	r.buf = fn(r.buf)
	return len(r.buf) - before
}

// Lend puts b on the wire at this place without copying it. b must not change
// at all; its padding is up to the caller (Pad).
func (r *Reply) Lend(b []byte) { r.LendHeld(b, nil) }

// LendHeld puts b on the wire at this place without copying it. b must not
// change until h is released, which happens once: when the reply is out, or
// when it is clear that it will never be.
func (r *Reply) LendHeld(b []byte, h Holder) {
	r.lent = append(r.lent, loan{len(r.buf), b, h})
	r.lentBytes += len(b)
}

// Len is the size in bytes of the message now written, record mark aside.
func (r *Reply) Len() int { return r.messageSize() }

// Bytes copies the message now written, for those who look at replies without
// a connection. It is for a Reply that no Server opened.
func (r *Reply) Bytes() []byte {
	return slices.Concat(r.appendTo(nil, 0)...)
}

// Mark is a place in the message that Rewind goes back to and SetUint32
// writes to.
type Mark struct{ at, lent int }

// Mark remembers this place.
func (r *Reply) Mark() Mark { return Mark{len(r.buf), len(r.lent)} }

// Rewind takes back everything that was appended after m.
func (r *Reply) Rewind(m Mark) {
	r.buf = r.buf[:m.at]
	r.dropLoans(m.lent)
}

// SetUint32 writes v over the four bytes that were appended at m.
func (r *Reply) SetUint32(m Mark, v uint32) { binary.BigEndian.PutUint32(r.buf[m.at:], v) }

func (r *Reply) dropLoans(keep int) {
	for _, l := range r.lent[keep:] {
		r.lentBytes -= len(l.data)
		if l.holder != nil {
			l.holder.Release()
		}
	}
	clear(r.lent[keep:])
	r.lent = r.lent[:keep]
}

// size is what waits to go out, in bytes.
func (r *Reply) size() int { return len(r.buf) + r.lentBytes }

func (r *Reply) messageSize() int {
	n := len(r.buf) - r.start - recordMark
	for _, l := range r.lent[r.startLent:] {
		n += len(l.data)
	}
	return n
}

// begin opens a message; its record mark (RFC 5531, 11) is filled in by end.
func (r *Reply) begin() {
	r.start, r.startLent = len(r.buf), len(r.lent)
	r.Uint32(0)
}

func (r *Reply) end() {
	binary.BigEndian.PutUint32(r.buf[r.start:], lastFragment|uint32(r.messageSize()))
}

// abandon takes the message now written back.
func (r *Reply) abandon() {
	r.buf = r.buf[:r.start]
	r.dropLoans(r.startLent)
}

// appendTo appends the slices that make up the reply, from byte skip of buf on.
func (r *Reply) appendTo(iov [][]byte, skip int) [][]byte {
	for _, l := range r.lent {
		if l.at > skip {
			iov = append(iov, r.buf[skip:l.at])
			skip = l.at
		}
		if len(l.data) > 0 {
			iov = append(iov, l.data)
		}
	}
	if skip < len(r.buf) {
		iov = append(iov, r.buf[skip:])
	}
	return iov
}
