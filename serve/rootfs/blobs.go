package rootfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"sync"

	"rhizome/registry/layerfmt"
)

// Blobs shows the blobs of an image's layers, as they lie in the store, as files
// of one flat directory: what a node reads in sequence and verifies by itself.
// Only root may. What is read is not verified here, and not kept in the cache.
// It is safe for many goroutines.
type Blobs struct {
	id   [16]byte
	list []Blob
	open func(digest string) (BlobReader, error)
}

// Blob is a blob, and its name among the files. Size is in bytes.
type Blob struct {
	Name, Digest string
	Size         int64
}

// BlobReader is a blob that is open.
type BlobReader interface {
	io.ReaderAt
	io.Closer
}

// NewBlobs shows blobs that the manifest with a digest names, in its order: both
// make the handles, so that these hold over restarts and between servers. open
// is called for each read.
func NewBlobs(manifest string, list []Blob, open func(digest string) (BlobReader, error)) *Blobs {
	return &Blobs{id: BlobsID(manifest), list: list, open: open}
}

// BlobsID is the identity that stands in handles of Blobs: another one than that
// of the image's View.
func BlobsID(manifest string) [16]byte { return identity("the blobs of " + manifest) }

// Inode 1 is the directory, and the blobs follow.
const (
	blobsRoot = 1
	firstBlob = 2
)

// ID is the identity in file handles.
func (b *Blobs) ID() [16]byte { return b.id }

// FSID numbers the file system for clients.
func (b *Blobs) FSID() uint64 { return fsid(b.id) }

// Digest is empty: who mounts the blobs has no root of an image by that.
func (b *Blobs) Digest() string { return "" }

// Usage sums the sizes in bytes, and counts the files and their directory.
func (b *Blobs) Usage() (bytes, inodes uint64) {
	for _, l := range b.list {
		bytes += uint64(l.Size)
	}
	return bytes, uint64(len(b.list)) + 1
}

// Root is the directory.
func (b *Blobs) Root() File { return File{Inode: blobsRoot} }

// Attr returns attributes: everything is root's, and nobody else's to read.
func (b *Blobs) Attr(f File) (Attr, error) {
	if f == b.Root() {
		return Attr{Kind: Dir, Mode: 0o500, Nlink: 2, FileID: blobsRoot}, nil
	}
	l, err := b.blob(f)
	return Attr{Kind: Regular, Mode: 0o400, Nlink: 1, Size: uint64(l.Size), FileID: uint64(f.Inode)}, err
}

// blob finds a regular file.
func (b *Blobs) blob(f File) (Blob, error) {
	switch at := int64(f.Inode) - firstBlob; {
	case f == b.Root():
		return Blob{}, ErrIsDir
	case f.Layer != 0 || at < 0 || at >= int64(len(b.list)):
		return Blob{}, ErrStale
	default:
		return b.list[at], nil
	}
}

// dir refuses what is not the directory.
func (b *Blobs) dir(f File) error {
	if f == b.Root() {
		return nil
	}
	if _, err := b.blob(f); err != nil {
		return err
	}
	return ErrNotDir
}

// Lookup finds a name. "." and ".." lead to the directory itself.
func (b *Blobs) Lookup(dir File, name string) (File, error) {
	if err := b.dir(dir); err != nil {
		return File{}, err
	}
	if name == "." || name == ".." {
		return dir, nil
	}
	for i, l := range b.list {
		if l.Name == name {
			return File{Inode: uint32(firstBlob + i)}, nil
		}
	}
	return File{}, fs.ErrNotExist
}

// Parent is the directory itself.
func (b *Blobs) Parent(dir File) (File, error) { return dir, b.dir(dir) }

// Resolve finds a path.
func (b *Blobs) Resolve(p string) (File, error) {
	if p = path.Clean("/" + p); p == "/" {
		return b.Root(), nil
	}
	return b.Lookup(b.Root(), p[1:])
}

// Readlink finds no symlink.
func (b *Blobs) Readlink(f File) (string, error) {
	if _, err := b.blob(f); errors.Is(err, ErrStale) {
		return "", err
	}
	return "", fs.ErrInvalid
}

// ReadDir calls fn for every name after a cookie, as a View does. Cookies count
// the blobs.
func (b *Blobs) ReadDir(dir File, cookie uint64, fn func(Dirent) bool) error {
	if err := b.dir(dir); err != nil {
		return err
	}
	if cookie > uint64(len(b.list)) {
		return fs.ErrInvalid
	}
	for i := int(cookie); i < len(b.list); i++ {
		f := File{Inode: uint32(firstBlob + i)}
		if !fn(Dirent{Name: b.list[i].Name, File: f, Kind: Regular, FileID: uint64(f.Inode), Cookie: uint64(i) + 1}) {
			return nil
		}
	}
	return nil
}

// LendCached has nothing in memory but the end of a file, which is empty.
func (b *Blobs) LendCached(f File, off int64, n int, dst []Loan) (loans []Loan, size int64, ok bool) {
	l, err := b.blob(f)
	if err != nil || off < 0 {
		return dst, 0, false
	}
	return dst, l.Size, n == 0 || off >= l.Size
}

// Borrow appends pieces that hold min(n, size-off) bytes of a blob at off. Each
// is at most as long as the largest frame.
func (b *Blobs) Borrow(f File, off int64, n int, dst []Loan) ([]Loan, error) {
	l, err := b.blob(f)
	if err != nil {
		return dst, err
	}
	if off < 0 || n < 0 {
		return dst, fmt.Errorf("reading %d bytes at %d: %w", n, off, fs.ErrInvalid)
	}
	r, err := b.open(l.Digest)
	if err != nil {
		return dst, unreadable(fmt.Sprintf("opening the blob %s", l.Digest), err)
	}
	defer r.Close()
	before := len(dst)
	for end := off + min(int64(n), max(l.Size-off, 0)); off < end; {
		piece := newPiece(int(min(end-off, layerfmt.MaxFrame)))
		dst = append(dst, Loan{Data: piece.data, Frame: piece})
		if m, err := r.ReadAt(piece.data, off); m < len(piece.data) {
			ReleaseAll(dst[before:])
			return dst[:before], unreadable(fmt.Sprintf("reading the blob %s of %d bytes at %d", l.Digest, l.Size, off+int64(m)), err)
		}
		off += int64(len(piece.data))
	}
	return dst, nil
}

// unreadable is an error of reading and no other, whatever the cause: that a blob
// is gone is no word about its name, which is there.
func unreadable(doing string, cause error) error { return errors.New(doing + ": " + cause.Error()) }

// pieces are buffers of the largest size. A smaller read gets one of its own
// size, or somebody who takes no replies could hold many times what they count
// as.
var pieces = sync.Pool{New: func() any { return &Frame{data: make([]byte, layerfmt.MaxFrame)} }}

// newPiece is a frame of n bytes, held once, that lies in no cache.
func newPiece(n int) *Frame {
	if n <= layerfmt.MaxFrame/2 {
		f := &Frame{data: make([]byte, n)}
		f.holds.Store(1)
		return f
	}
	f := pieces.Get().(*Frame)
	f.data, f.pool = f.data[:n], &pieces
	f.holds.Store(1)
	return f
}

// AppendHandle is the handle of a file, in the form that a View's have.
func (b *Blobs) AppendHandle(dst []byte, f File) []byte {
	return appendHandle(dst, f, [8]byte{}, b.id)
}

// FromHandle takes a handle of this image's blobs, and refuses any other with
// ErrStale.
func (b *Blobs) FromHandle(h []byte) (File, error) {
	id, f, err := ParseHandle(h)
	if err != nil {
		return File{}, err
	}
	if id != b.id || [8]byte(h[8:16]) != [8]byte{} {
		return File{}, ErrStale
	}
	if _, err := b.Attr(f); err != nil {
		return File{}, err
	}
	return f, nil
}
