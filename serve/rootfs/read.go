package rootfs

import (
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"strings"

	"rhizome/registry/layerfmt"
)

// extent is a part of a layer's uncompressed tar.
type extent struct {
	l        *Layer
	off, end int64
	size     int64 // of the whole file
}

// extent finds where n bytes of a file from off on lie, fewer at its end.
func (v *View) extent(f File, off int64, n int) (extent, error) {
	l, i, err := v.regular(f)
	if err != nil {
		return extent{}, err
	}
	at, size, _ := l.x.Body(i)
	if off < 0 || n < 0 {
		return extent{}, fmt.Errorf("reading %d bytes at %d: %w", n, off, fs.ErrInvalid)
	}
	if off >= size {
		return extent{l: l, size: size}, nil
	}
	return extent{l: l, off: at + off, end: at + off + min(int64(n), size-off), size: size}, nil
}

// ReadAt copies from a file into p. It returns io.EOF with what there was
// where the file ends before p does. The error of a damaged frame matches
// ErrDamaged.
func (v *View) ReadAt(f File, p []byte, off int64) (int, error) {
	defer runtime.KeepAlive(v)
	e, err := v.extent(f, off, len(p))
	if err != nil {
		return 0, err
	}
	done := 0
	for e.off < e.end {
		loan, err := e.next()
		if err != nil {
			return done, v.name(err, f)
		}
		done += copy(p[done:], loan.Data)
		loan.Frame.Release()
	}
	if done < len(p) {
		return done, io.EOF
	}
	return done, nil
}

// next lends the first piece of the extent and takes it off.
func (e *extent) next() (Loan, error) {
	if e.l.plain != nil {
		loan := Loan{Data: e.l.plain[e.off:e.end:e.end]}
		e.off = e.end
		return loan, nil
	}
	n := e.l.x.FrameFor(e.off)
	f, err := e.l.frame(n)
	if err != nil {
		return Loan{}, err
	}
	return e.cut(f, e.l.x.Frame(n).Stream), nil
}

// cut takes what a frame holds of the extent.
func (e *extent) cut(f *Frame, stream int64) Loan {
	part := f.data[e.off-stream:]
	if left := e.end - e.off; int64(len(part)) > left {
		part = part[:left:left]
	}
	e.off += int64(len(part))
	return Loan{Data: part, Frame: f}
}

// LendCached appends to dst what holds min(n, size-off) bytes of a file from
// off on, uncopied, if all of it is in memory. It waits for nothing and
// allocates nothing but room in dst. ok is false where a part is missing, or
// the file cannot be read; dst is returned as it was then. size is the file's.
// Every loan's Frame is released by the caller, once.
func (v *View) LendCached(f File, off int64, n int, dst []Loan) (loans []Loan, size int64, ok bool) {
	e, err := v.extent(f, off, n)
	if err != nil {
		return dst, 0, false
	}
	before := len(dst)
	for e.off < e.end {
		loan, ok := e.nextCached()
		if !ok {
			ReleaseAll(dst[before:])
			return dst[:before], e.size, false
		}
		dst = append(dst, loan)
	}
	return dst, e.size, true
}

func (e *extent) nextCached() (Loan, bool) {
	if e.l.plain != nil {
		loan, err := e.next()
		return loan, err == nil
	}
	n := e.l.x.FrameFor(e.off)
	f := e.l.cached(n)
	if f == nil {
		return Loan{}, false
	}
	return e.cut(f, e.l.x.Frame(n).Stream), true
}

// Borrow is LendCached that loads what is not in memory.
func (v *View) Borrow(f File, off int64, n int, dst []Loan) ([]Loan, error) {
	defer runtime.KeepAlive(v)
	e, err := v.extent(f, off, n)
	if err != nil {
		return dst, err
	}
	before := len(dst)
	for e.off < e.end {
		loan, err := e.next()
		if err != nil {
			ReleaseAll(dst[before:])
			return dst[:before], v.name(err, f)
		}
		dst = append(dst, loan)
	}
	return dst, nil
}

// ReleaseAll releases every loan's frame and forgets the loans.
func ReleaseAll(loans []Loan) {
	for i := range loans {
		loans[i].Frame.Release()
		loans[i] = Loan{}
	}
}

// Lend calls fn with n bytes of a file from off on, fewer at its end, uncopied
// and in one or more pieces. The pieces are dead when fn returns.
func (v *View) Lend(f File, off int64, n int, fn func(chunks [][]byte) error) error {
	loans, err := v.Borrow(f, off, n, nil)
	if err != nil {
		return err
	}
	defer ReleaseAll(loans)
	chunks := make([][]byte, len(loans))
	for i, l := range loans {
		chunks[i] = l.Data
	}
	return fn(chunks)
}

// name puts the path of the file that was being read into a DamagedError.
func (v *View) name(err error, f File) error {
	d, ok := err.(*DamagedError) //nolint:errorlint // load returns it bare
	if !ok {
		return err
	}
	named := *d
	named.File = strings.Clone(v.layers[f.Layer].x.Path(layerfmt.Inode(f.Inode)))
	return &named
}
