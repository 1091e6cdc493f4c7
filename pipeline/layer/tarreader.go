package layer

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"rhizome/pipeline/tree"
)

// tarReader makes a tar of a tree as it is read, so that a body goes from its
// file straight into the reader's buffer.
type tarReader struct {
	items []item
	mtime int64
	// What is to be read, in this order: headers, body, padding.
	headers []byte
	body    io.ReadCloser
	left    int64
	pad     int64
	path    string
	ended   bool
	disk    diskFiles
}

// newTarReader begins the tar of a tree in an order; nil is the sorted one.
func newTarReader(t *tree.Tree, epoch time.Time, first []string) (*tarReader, error) {
	if err := t.Normalize(); err != nil {
		return nil, err
	}
	if !fits(fieldTime, epoch.Unix()) {
		return nil, fmt.Errorf("the epoch %s does not fit a tar; choose one from 1970 on", epoch.Format(time.RFC3339))
	}
	items := sorted(t)
	if first != nil {
		items = ordered(t, first)
	}
	return &tarReader{items: items, mtime: epoch.Unix()}, nil
}

// Read implements io.Reader.
func (r *tarReader) Read(p []byte) (int, error) {
	for {
		switch {
		case len(p) == 0:
			return 0, nil
		case len(r.headers) > 0:
			n := copy(p, r.headers)
			r.headers = r.headers[n:]
			return n, nil
		case r.body != nil:
			if n, err := r.readBody(p); n > 0 || err != nil {
				return n, err
			}
		case r.ended:
			return 0, io.EOF
		default:
			if err := r.next(); err != nil {
				return 0, err
			}
		}
	}
}

// readBody reads from the body, and ends it when it has given all it should.
func (r *tarReader) readBody(p []byte) (int, error) {
	n, err := r.body.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	if r.left > 0 && err != nil {
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: it is %d bytes shorter than it was", io.ErrUnexpectedEOF, r.left)
		}
		return n, fmt.Errorf("reading the body of %q: %w", r.path, err)
	}
	if r.left > 0 {
		return n, nil
	}
	r.headers = make([]byte, r.pad)
	err = r.body.Close()
	r.body = nil
	if err != nil {
		return n, fmt.Errorf("reading the body of %q: %w", r.path, err)
	}
	return n, nil
}

// next takes the next entry, or the two blocks of zeros that end a tar.
func (r *tarReader) next() error {
	if len(r.items) == 0 {
		r.headers, r.ended = make([]byte, 2*blockSize), true
		return nil
	}
	e, marker := r.items[0].entry, r.items[0].marker
	r.items = r.items[1:]
	headers, err := itemBlocks(e, marker, r.mtime)
	if err != nil {
		return err
	}
	r.headers, r.path = headers, e.Path
	if marker || e.Link != "" || e.Kind != tree.File || e.Size() == 0 {
		return nil
	}
	r.left, r.pad = e.Size(), padding(e.Size())
	if r.body, err = r.disk.open(e.Body); err != nil {
		return fmt.Errorf("reading the body of %q: %w", e.Path, err)
	}
	return nil
}

// itemBlocks are the blocks before an entry's body, none for an implied
// directory; or those of the file that makes a directory opaque.
func itemBlocks(e *tree.Entry, marker bool, mtime int64) ([]byte, error) {
	if marker {
		return markerBlocks(path.Join(e.Path, ".wh..wh..opq"), mtime)
	}
	if strings.HasPrefix(path.Base(e.Path), ".wh.") {
		return nil, fmt.Errorf("%q: names that begin with \".wh.\" mean whiteouts in a layer; rename the file", e.Path)
	}
	if e.Kind == tree.Whiteout {
		return markerBlocks(path.Join(path.Dir(e.Path), ".wh."+path.Base(e.Path)), mtime)
	}
	if e.Implied {
		return nil, nil
	}
	h, err := headerOf(e, mtime)
	if err != nil {
		return nil, err
	}
	return h.blocks()
}

// markerBlocks is an empty file with a meaning (OCI image-spec, layer.md,
// "Whiteouts").
func markerBlocks(name string, mtime int64) ([]byte, error) {
	h, err := headerOf(&tree.Entry{Path: name, Kind: tree.File}, mtime)
	if err != nil {
		return nil, err
	}
	return h.blocks()
}

// Close closes the files that are open.
func (r *tarReader) Close() error {
	if r.body != nil {
		r.body.Close()
	}
	return r.disk.close()
}

// diskFiles keeps the last file of a DiskFile open, since a tree that was read
// from a tar has thousands of bodies in one file.
type diskFiles struct {
	name string
	file *os.File
}

func (d *diskFiles) open(b tree.Body) (io.ReadCloser, error) {
	f, ok := b.(tree.DiskFile)
	if !ok {
		return b.Open()
	}
	if d.file == nil || d.name != f.Name {
		if err := d.close(); err != nil {
			return nil, err
		}
		file, err := os.Open(f.Name)
		if err != nil {
			return nil, err
		}
		d.name, d.file = f.Name, file
	}
	return io.NopCloser(io.NewSectionReader(d.file, f.Offset, f.Length)), nil
}

func (d *diskFiles) close() error {
	if d.file == nil {
		return nil
	}
	err := d.file.Close()
	d.file = nil
	return err
}
