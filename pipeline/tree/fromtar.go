package tree

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"sort"
	"strings"
)

// PAX records that carry what ustar cannot (star(1), libarchive-formats(5)).
const (
	paxXattr = "SCHILY.xattr."
	paxFlags = "SCHILY.fflags"
	// paxSparse begins GNU tar's records of a file with holes.
	paxSparse = "GNU.sparse."
)

// Names with a meaning in a layer (OCI image-spec, layer.md, "Whiteouts").
const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
)

// FromTar reads an uncompressed tar on disk, such as mmdebstrap writes, into a
// tree. Bodies stay where they are: each is a DiskFile into the tar, which
// must therefore outlive the tree.
//
// Extended attributes and FreeBSD flags are kept, times are not. A path that
// comes twice counts as it came last; whiteout files become whiteouts. An
// absolute path, one with "..", a sparse file, a hard link to what the tar
// does not hold and an unknown type are refused.
func FromTar(name string) (*Tree, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("reading the tar %q: %w", name, err)
	}
	defer f.Close()
	t, err := readTar(newOffsetReader(f), func(off, size int64) Body {
		return DiskFile{Name: name, Offset: off, Length: size}
	})
	if err != nil {
		return nil, fmt.Errorf("reading the tar %q: %w", name, err)
	}
	return t, nil
}

// readTar reads a tar stream; body makes the Body of what lies at an offset.
func readTar(r *offsetReader, body func(off, size int64) Body) (*Tree, error) {
	t := New()
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return t, t.Normalize()
		}
		if err != nil {
			return nil, fmt.Errorf("near byte %d: %w", r.offset, err)
		}
		if err := t.addHeader(h, func() Body { return body(r.offset, h.Size) }); err != nil {
			return nil, err
		}
	}
}

func (t *Tree) addHeader(h *tar.Header, body func() Body) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	e, err := entryOf(h)
	if err != nil {
		return err
	}
	switch base := path.Base(e.Path); {
	case base == opaqueName:
		return t.markOpaque(path.Dir(e.Path))
	case strings.HasPrefix(base, whiteoutPrefix):
		return t.addWhiteout(e.Path)
	}
	if e.Kind == File && e.Link == "" && h.Size > 0 {
		e.Body = body()
	}
	if old := t.entries[e.Path]; old != nil && e.Kind == Dir {
		e.Opaque = old.Opaque
	}
	return t.Add(e)
}

func (t *Tree) addWhiteout(p string) error {
	hidden := strings.TrimPrefix(path.Base(p), whiteoutPrefix)
	if hidden == "" || hidden == "." || hidden == ".." {
		return fmt.Errorf("%q: a whiteout that names nothing", p)
	}
	return t.Add(Entry{Path: path.Join(path.Dir(p), hidden), Kind: Whiteout})
}

func (t *Tree) markOpaque(dir string) error {
	if err := t.imply(dir, path.Join(dir, opaqueName)); err != nil {
		return err
	}
	t.entries[dir].Opaque = true
	return nil
}

var tarKinds = map[byte]Kind{
	tar.TypeReg: File, tar.TypeLink: File, tar.TypeSymlink: Symlink, tar.TypeDir: Dir,
	tar.TypeChar: CharDevice, tar.TypeBlock: BlockDevice, tar.TypeFifo: Fifo,
}

func entryOf(h *tar.Header) (Entry, error) {
	kind, ok := tarKinds[h.Typeflag]
	if h.Typeflag == tar.TypeGNUSparse {
		return Entry{}, errSparse(h.Name)
	}
	if !ok {
		return Entry{}, fmt.Errorf("%q: an entry of tar type %q, which no layer can carry", h.Name, h.Typeflag)
	}
	if strings.HasPrefix(h.Name, "/") {
		return Entry{}, fmt.Errorf("%q: an absolute path; make the tar with paths relative to the root", h.Name)
	}
	p, err := Clean(h.Name)
	if err != nil {
		return Entry{}, err
	}
	e := Entry{
		Path: p, Kind: kind, Mode: uint32(h.Mode) & 0o7777, UID: uint32(h.Uid), GID: uint32(h.Gid),
		Major: uint32(h.Devmajor), Minor: uint32(h.Devminor),
	}
	return e, e.takeLinks(h)
}

func (e *Entry) takeLinks(h *tar.Header) error {
	switch h.Typeflag {
	case tar.TypeSymlink:
		e.Target = h.Linkname
	case tar.TypeLink:
		l, err := Clean(h.Linkname)
		if err != nil {
			return fmt.Errorf("hard link %q: %w", h.Name, err)
		}
		e.Link = l
	}
	return e.takePAX(h.PAXRecords)
}

func (e *Entry) takePAX(records map[string]string) error {
	for k, v := range records {
		switch {
		case strings.HasPrefix(k, paxSparse):
			return errSparse(e.Path)
		case k == paxFlags:
			e.Flags = sortFlags(v)
		case strings.HasPrefix(k, paxXattr):
			if e.Xattrs == nil {
				e.Xattrs = map[string]string{}
			}
			e.Xattrs[strings.TrimPrefix(k, paxXattr)] = v
		}
	}
	return nil
}

func errSparse(name string) error {
	return fmt.Errorf("%q: a sparse file, which layers do not carry; make the tar without --sparse", name)
}

func sortFlags(s string) string {
	f := strings.FieldsFunc(s, func(r rune) bool { return r == ',' })
	sort.Strings(f)
	return strings.Join(f, ",")
}

// offsetReader reads a file through a buffer and knows how far its reader has
// come, which bufio.Reader alone does not say. Seek lets archive/tar leap over
// bodies.
type offsetReader struct {
	file   io.ReadSeeker
	buf    *bufio.Reader
	offset int64
}

func newOffsetReader(f io.ReadSeeker) *offsetReader {
	return &offsetReader{file: f, buf: bufio.NewReaderSize(f, 64<<10)}
}

func (r *offsetReader) Read(p []byte) (int, error) {
	n, err := r.buf.Read(p)
	r.offset += int64(n)
	return n, err
}

// Seek moves forward from where the reader stands, the only kind of seek that
// archive/tar asks for. A leap past the file's end shows at the next Read.
func (r *offsetReader) Seek(n int64, whence int) (int64, error) {
	if whence != io.SeekCurrent || n < 0 {
		return 0, fmt.Errorf("seeking in a tar: only forward from the current place")
	}
	if n <= int64(r.buf.Buffered()) {
		d, err := r.buf.Discard(int(n))
		r.offset += int64(d)
		return r.offset, err
	}
	if _, err := r.file.Seek(r.offset+n, io.SeekStart); err != nil {
		return r.offset, err
	}
	r.buf.Reset(r.file)
	r.offset += n
	return r.offset, nil
}
