package layerfmt

import (
	"errors"
	"io"
	"slices"
)

// span is a body, or a part of one, inside a frame.
type span struct {
	inode      Inode
	start, end int
	first      bool // the body begins here
	last       bool // the body ends here
}

// cutter takes a tar's bytes as archive/tar reads them and cuts them into
// frames. Where it cuts depends on the bytes alone:
//
//   - before an entry (its header blocks, body and padding) that would pass
//     MaxFrame in the frame so far,
//   - else whenever a frame is full.
//
// So small files share frames whole, and a big one begins a frame of its own.
type cutter struct {
	src io.Reader
	pos int64 // bytes taken from src
	buf []byte
	// mark is where in buf the entry begins that is being read; entryEnd is
	// where in the stream the next one does.
	mark     int
	entryEnd int64
	open     span
	left     int64 // bytes of the open body that are still to come
	// spans are the bodies in buf.
	spans []span
	// emit takes a frame and its spans, and gives a fresh empty buffer.
	emit func(frame []byte, spans []span) ([]byte, error)
	err  error
}

func newCutter(src io.Reader, first []byte, emit func([]byte, []span) ([]byte, error)) *cutter {
	return &cutter{src: src, buf: first, emit: emit}
}

// next is room behind the buffer's end for n bytes. Buffers grow as they are
// filled, so that a small layer costs little, and are used again.
func (c *cutter) next(n int) []byte {
	at := len(c.buf)
	c.buf = slices.Grow(c.buf, n)
	return c.buf[at : at+n]
}

// Read gives archive/tar its headers, and keeps every byte.
func (c *cutter) Read(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	room, err := c.room()
	if err != nil {
		return 0, err
	}
	if len(p) > room {
		p = p[:room]
	}
	n, err := c.src.Read(p)
	c.buf = append(c.buf, p[:n]...)
	c.took(n)
	return n, err
}

// Seek leaps over a body for archive/tar: forward from the current place. The
// bytes go straight from the source into the frame.
func (c *cutter) Seek(n int64, whence int) (int64, error) {
	if whence != io.SeekCurrent || n < 0 {
		return 0, errors.New("seeking in a tar stream: only forward from the current place")
	}
	for n > 0 {
		m, err := c.pump(n)
		if err != nil {
			return c.pos, err
		}
		n -= int64(m)
	}
	return c.pos, nil
}

// pump moves at most n bytes from the source into the frame.
func (c *cutter) pump(n int64) (int, error) {
	room, err := c.room()
	if err != nil {
		return 0, err
	}
	want := int(min(n, int64(room)))
	got, err := io.ReadFull(c.src, c.next(want))
	c.buf = c.buf[:len(c.buf)+got]
	c.took(got)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return got, err
}

// room makes room in the buffer and says how many bytes there are.
func (c *cutter) room() (int, error) {
	if len(c.buf) == MaxFrame {
		// The header blocks of an entry stay together where they can.
		if err := c.cut(c.mark); err != nil {
			return 0, err
		}
	}
	return MaxFrame - len(c.buf), nil
}

// took keeps account of bytes that have come, for the body that is open.
func (c *cutter) took(n int) {
	c.pos += int64(n)
	if c.pos == c.entryEnd {
		c.mark = len(c.buf)
	}
	if c.left == 0 {
		return
	}
	d := min(int64(n), c.left)
	c.left -= d
	c.open.end += int(d)
	if c.left == 0 {
		c.open.last = true
		c.spans = append(c.spans, c.open)
	}
}

// body says that size bytes of inode i's body follow, padded to total.
func (c *cutter) body(i Inode, size, total int64) error {
	if int64(len(c.buf))+total > MaxFrame && c.mark > 0 {
		if err := c.cut(c.mark); err != nil {
			return err
		}
	}
	c.entryEnd = c.pos + total
	if total == 0 {
		c.mark = len(c.buf)
	}
	if i != 0 && size > 0 {
		c.open = span{inode: i, start: len(c.buf), end: len(c.buf), first: true}
		c.left = size
	}
	return nil
}

// cut makes a frame of the buffer's first n bytes, or of all when n is 0.
func (c *cutter) cut(n int) error {
	if n == 0 {
		n = len(c.buf)
	}
	if c.left > 0 {
		// Only a full buffer is cut inside a body.
		c.spans = append(c.spans, c.open)
		c.open = span{inode: c.open.inode}
	}
	rest := c.buf[n:]
	next, err := c.emit(c.buf[:n], c.spans)
	if err != nil {
		c.err = err
		return err
	}
	c.buf = append(next[:0], rest...)
	c.spans, c.mark = nil, 0
	return nil
}

// trailStep is how much is read at once behind the end of the archive, where
// there is rarely anything.
const trailStep = 16 << 10

// finish passes on what follows the end of the archive, and the last frame.
func (c *cutter) finish() error {
	for {
		room, err := c.room()
		if err != nil {
			return err
		}
		n, err := c.src.Read(c.next(min(room, trailStep)))
		c.buf = c.buf[:len(c.buf)+n]
		c.took(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if len(c.buf) == 0 {
		return nil
	}
	return c.cut(0)
}
