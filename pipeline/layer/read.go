package layer

import (
	"fmt"
	"io"
	"path"
	"strings"
	"sync"
	"time"

	"rhizome/pipeline/tree"
	"rhizome/registry/layerfmt"
)

// ReadTree reads a layer's blob into a tree, for a stage that builds on it.
// Bodies are decoded from the blob when they are opened, so blob must stay
// open as long as the tree is used. ann are the descriptor's annotations, or
// nil. A blob without a tree index gives layerfmt.ErrNoIndex; a hard link to a
// file of a lower layer is refused.
func ReadTree(blob io.ReaderAt, size int64, ann map[string]string) (*tree.Tree, error) {
	raw, err := layerfmt.ReadTail(blob, size, ann)
	if err != nil {
		return nil, err
	}
	x, err := layerfmt.OpenIndex(raw)
	if err != nil {
		return nil, err
	}
	r := &treeReader{x: x, frames: &frames{blob: blob, x: x}, tree: tree.New(), first: map[layerfmt.Inode]string{}}
	if err := r.dir(layerfmt.Root, "."); err != nil {
		return nil, fmt.Errorf("reading a layer into a tree: %w", err)
	}
	return r.tree, nil
}

// TimeOf is the time that all entries of a layer's blob have; ok is false where
// they differ, as in layers of others, or there are none.
func TimeOf(blob io.ReaderAt, size int64, ann map[string]string) (at time.Time, ok bool, err error) {
	raw, err := layerfmt.ReadTail(blob, size, ann)
	if err != nil {
		return at, false, err
	}
	x, err := layerfmt.OpenIndex(raw)
	if err != nil {
		return at, false, err
	}
	for i := layerfmt.Root; int(i) <= x.Len(); i++ {
		a := x.Attr(i)
		if a.Implied || a.Kind == layerfmt.Whiteout {
			continue // they have none
		}
		t := time.Unix(a.Sec, int64(a.Nsec))
		if ok && !t.Equal(at) {
			return at, false, nil
		}
		at, ok = t, true
	}
	return at, ok, nil
}

type treeReader struct {
	x      *layerfmt.Index
	frames *frames
	tree   *tree.Tree
	first  map[layerfmt.Inode]string
}

func (r *treeReader) dir(i layerfmt.Inode, p string) error {
	e, err := r.entry(i, p)
	if err == nil {
		err = r.tree.Add(e)
	}
	if err != nil {
		return err
	}
	from, n := r.x.Children(i)
	for at := from; at < from+n && err == nil; at++ {
		d := r.x.Dirent(at)
		err = r.child(d, path.Join(p, d.Name))
	}
	return err
}

func (r *treeReader) child(d layerfmt.Dirent, p string) error {
	if d.Kind == layerfmt.Dir {
		return r.dir(d.Inode, p)
	}
	e, err := r.entry(d.Inode, p)
	if err != nil {
		return err
	}
	return r.tree.Add(e)
}

var kinds = map[layerfmt.Kind]tree.Kind{
	layerfmt.Dir: tree.Dir, layerfmt.File: tree.File, layerfmt.Symlink: tree.Symlink, layerfmt.Char: tree.CharDevice,
	layerfmt.Block: tree.BlockDevice, layerfmt.Fifo: tree.Fifo, layerfmt.Whiteout: tree.Whiteout,
}

func (r *treeReader) entry(i layerfmt.Inode, p string) (tree.Entry, error) {
	a := r.x.Attr(i)
	kind, ok := kinds[a.Kind]
	if !ok {
		return tree.Entry{}, fmt.Errorf("%q is a hard link to %q of a layer below", p, r.x.Readlink(i))
	}
	e := tree.Entry{
		Path: strings.Clone(p), Kind: kind, Mode: a.Mode, UID: a.UID, GID: a.GID, Major: a.Major, Minor: a.Minor,
		Flags: r.x.Flags(i), Xattrs: r.x.Xattrs(i), Opaque: a.Opaque, Implied: a.Implied,
	}
	if kind == tree.Symlink {
		e.Target = r.x.Readlink(i)
	}
	if first, seen := r.first[i]; seen {
		e.Link = first
		return e, nil
	}
	if a.Nlink > 1 && kind != tree.Dir {
		r.first[i] = p
	}
	if off, size, isFile := r.x.Body(i); isFile && size > 0 {
		b := body{frames: r.frames, off: off, size: size}
		b.sum, b.known = r.x.BodyDigest(i)
		e.Body = b
	}
	return e, nil
}

// body is a file's content inside a blob.
type body struct {
	frames    *frames
	off, size int64
	sum       [32]byte
	known     bool
}

// SHA256 implements tree.Digested, out of the layer's index.
func (b body) SHA256() ([32]byte, bool) { return b.sum, b.known }

// Open implements tree.Body.
func (b body) Open() (io.ReadCloser, error) {
	return io.NopCloser(io.NewSectionReader(b.frames, b.off, b.size)), nil
}

// Size implements tree.Body.
func (b body) Size() int64 { return b.size }

// frames reads the uncompressed tar at any place and keeps the frame that was
// decoded last, which serves bodies read in order.
type frames struct {
	blob io.ReaderAt
	x    *layerfmt.Index

	mu    sync.Mutex
	dec   *layerfmt.Decoder
	n     int
	plain []byte
}

// ReadAt implements io.ReaderAt over the uncompressed tar.
func (f *frames) ReadAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	done := 0
	for done < len(p) {
		n := f.x.FrameFor(off + int64(done))
		if n < 0 {
			return done, io.EOF
		}
		if err := f.load(n); err != nil {
			return done, err
		}
		done += copy(p[done:], f.plain[off+int64(done)-f.x.Frame(n).Stream:])
	}
	return done, nil
}

func (f *frames) load(n int) error {
	if f.plain != nil && f.n == n {
		return nil
	}
	if f.dec == nil {
		d, err := layerfmt.NewDecoder(1)
		if err != nil {
			return err
		}
		f.dec = d
	}
	info := f.x.Frame(n)
	packed := make([]byte, info.Length)
	if _, err := f.blob.ReadAt(packed, info.Offset); err != nil && err != io.EOF {
		return fmt.Errorf("reading frame %d of a layer: %w", n, err)
	}
	plain, err := f.dec.DecodeFrame(make([]byte, 0, layerfmt.MaxFrame), packed, info)
	if err != nil {
		return fmt.Errorf("decoding frame %d of a layer: %w", n, err)
	}
	f.n, f.plain = n, plain
	return nil
}
