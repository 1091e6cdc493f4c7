package rootfs

import (
	"fmt"
	"io"
)

// Reader reads one regular file of a view. ReadAt is safe for many goroutines,
// Read and Seek are not.
type Reader struct {
	*io.SectionReader
	view *View
	file File
	attr Attr
}

// Open opens a regular file by its path, following symlinks inside the view.
func (v *View) Open(path string) (*Reader, error) {
	f, err := v.Resolve(path)
	if err != nil {
		return nil, err
	}
	r, err := v.OpenFile(f)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", path, err)
	}
	return r, nil
}

// OpenFile opens a regular file.
func (v *View) OpenFile(f File) (*Reader, error) {
	if _, _, err := v.regular(f); err != nil {
		return nil, err
	}
	a, err := v.Attr(f)
	if err != nil {
		return nil, err
	}
	return &Reader{io.NewSectionReader(fileReader{v, f}, 0, int64(a.Size)), v, f, a}, nil
}

// Close does nothing; a Reader holds nothing.
func (r *Reader) Close() error { return nil }

// File is what is being read.
func (r *Reader) File() File { return r.file }

// Attr are its attributes.
func (r *Reader) Attr() Attr { return r.attr }

// lendStep is how much WriteTo borrows at once, in bytes.
const lendStep = 1 << 20

// WriteTo writes the rest of the file to w without copying it first.
func (r *Reader) WriteTo(w io.Writer) (int64, error) {
	var written int64
	for {
		off, err := r.Seek(0, io.SeekCurrent)
		if err != nil || off >= r.Size() {
			return written, err
		}
		var n int64
		err = r.view.Lend(r.file, off, lendStep, func(chunks [][]byte) error {
			for _, c := range chunks {
				m, err := w.Write(c)
				if n += int64(m); err != nil {
					return err
				}
			}
			return nil
		})
		written += n
		if _, serr := r.Seek(off+n, io.SeekStart); err == nil {
			err = serr
		}
		if err != nil {
			return written, err
		}
	}
}

type fileReader struct {
	v *View
	f File
}

func (r fileReader) ReadAt(p []byte, off int64) (int, error) { return r.v.ReadAt(r.f, p, off) }
