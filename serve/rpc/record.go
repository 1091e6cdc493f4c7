package rpc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Record marking (RFC 5531, 11): each fragment is led by four bytes, of which
// the highest bit says that it is the record's last.
const (
	recordMark   = 4
	lastFragment = 1 << 31
)

// recordBuffer is the size in bytes of an idle connection's buffer: room for
// some hundred metadata calls.
const recordBuffer = 16 << 10

var errMemory = errors.New("the memory for calls is used up")

// recordReader takes records out of a stream. Whole records stay where they
// were read; fragments are moved together. The buffer grows with the bytes
// that arrived, never with the lengths that were claimed.
type recordReader struct {
	buf []byte
	// start and have are the bytes of the record so far: buf[start:start+have].
	start, have int
	// pos is the next byte that was not looked at, end the end of what was read.
	pos, end int
	// limit is the longest record in bytes.
	limit int
	// memory pays for a buffer larger than recordBuffer.
	memory *budget
	paid   int64
}

func newRecordReader(limit int, m *budget) *recordReader {
	return &recordReader{buf: make([]byte, recordBuffer), limit: limit, memory: m}
}

// next gives the next record that is in the buffer as a whole; it is good
// until fill is called. ok is false where more must be read first.
func (r *recordReader) next() (record []byte, ok bool, err error) {
	for r.end-r.pos >= recordMark {
		mark := binary.BigEndian.Uint32(r.buf[r.pos:])
		n := int(mark &^ lastFragment)
		if r.have+n > r.limit {
			return nil, false, fmt.Errorf("a record of more than %d bytes", r.limit)
		}
		if r.end-r.pos-recordMark < n {
			return nil, false, nil
		}
		r.take(n)
		if mark&lastFragment != 0 {
			record = r.buf[r.start : r.start+r.have]
			r.start, r.have = r.pos, 0
			return record, true, nil
		}
	}
	return nil, false, nil
}

// take adds the fragment of n bytes at pos to the record.
func (r *recordReader) take(n int) {
	body := r.pos + recordMark
	if r.have == 0 {
		r.start = body
	} else {
		copy(r.buf[r.start+r.have:], r.buf[body:body+n])
	}
	r.have += n
	r.pos = body + n
}

// partial tells whether a record has begun and not ended.
func (r *recordReader) partial() bool { return r.have > 0 || r.pos < r.end }

// fill reads once from src, making room first.
func (r *recordReader) fill(src io.Reader) error {
	r.compact()
	if r.end == len(r.buf) {
		if err := r.grow(); err != nil {
			return err
		}
	}
	n, err := src.Read(r.buf[r.end:])
	r.end += n
	if n > 0 {
		return nil
	}
	return err
}

// compact moves what is still needed to the front, where the end has come
// near; an empty buffer costs nothing.
func (r *recordReader) compact() {
	if !r.partial() {
		r.start, r.pos, r.end = 0, 0, 0
		return
	}
	if len(r.buf)-r.end >= recordBuffer/2 {
		return
	}
	copy(r.buf, r.buf[r.start:r.start+r.have])
	rest := copy(r.buf[r.have:], r.buf[r.pos:r.end])
	r.start, r.pos, r.end = 0, r.have, r.have+rest
}

// grow doubles the buffer. A record of the limit in one fragment fits at last.
func (r *recordReader) grow() error {
	size := min(2*len(r.buf), r.limit+recordMark+recordBuffer)
	if size <= len(r.buf) {
		return fmt.Errorf("a record of more than %d bytes", r.limit)
	}
	more := int64(size - len(r.buf))
	if !r.memory.take(more) {
		return errMemory
	}
	r.paid += more
	larger := make([]byte, size)
	copy(larger, r.buf[:r.end])
	r.buf = larger
	return nil
}

// grown tells whether the buffer is larger than an idle connection may keep.
func (r *recordReader) grown() bool { return len(r.buf) > recordBuffer }

// shrink gives a grown buffer back, where nothing is in it.
func (r *recordReader) shrink() {
	if r.grown() && !r.partial() {
		r.buf = make([]byte, recordBuffer)
		r.start, r.have, r.pos, r.end = 0, 0, 0, 0
		r.close()
	}
}

// close gives the memory back.
func (r *recordReader) close() {
	r.memory.give(r.paid)
	r.paid = 0
}
