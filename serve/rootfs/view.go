package rootfs

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"strings"

	"rhizome/registry/layerfmt"
)

// View is the merged, read-only root of one image. Every method is safe for
// many goroutines, and refuses a File that the view does not have: handles
// come from the network.
//
// A view is never closed: its layers' indexes may be mapped, and what is read
// after unmapping is a crash. The mapping goes when the garbage collector finds
// that nobody can reach the view any more, so whoever has one can use it. Each
// method keeps what it reads that long, by using it afterwards or by
// runtime.KeepAlive; who uses a string that one gave keeps the view himself.
type View struct {
	manifest string
	id       [16]byte
	top      *stack
	layers   []*Layer
}

// NewView merges layers, the lowest first. Views share what they can: a view
// costs memory for the directories that its own layers share with those below
// them. manifest is the digest of the image's manifest; it makes the view's
// identity, which layers in memory leave alone.
func NewView(manifest string, layers []*Layer) (*View, error) {
	if len(layers) == 0 {
		return nil, errors.New("merging an image without layers")
	}
	defer runtime.KeepAlive(layers)
	var top *stack
	for _, l := range layers {
		s, err := extend(top, l)
		if err != nil {
			return nil, fmt.Errorf("merging the layers of %s: %w", manifest, err)
		}
		top = s
	}
	return &View{manifest: manifest, id: identity(manifest), top: top, layers: layers}, nil
}

// identity is the first half of the manifest's sha256.
func identity(manifest string) (id [16]byte) {
	if h, ok := strings.CutPrefix(manifest, "sha256:"); ok && len(h) == 64 {
		if _, err := hex.Decode(id[:], []byte(h[:32])); err == nil {
			return id
		}
	}
	sum := sha256.Sum256([]byte(manifest))
	copy(id[:], sum[:])
	return id
}

// ImageID is the identity that stands in handles of the root of the image whose
// manifest has a digest.
func ImageID(manifest string) [16]byte { return identity(manifest) }

// ID is the image's identity, as it stands in file handles.
func (v *View) ID() [16]byte { return v.id }

// FSID numbers the file system for clients, by the image's identity.
func (v *View) FSID() uint64 { return fsid(v.id) }

func fsid(id [16]byte) uint64 { return binary.BigEndian.Uint64(id[:]) }

// Digest is the manifest's digest.
func (v *View) Digest() string { return v.manifest }

// Layers are the view's layers, lowest first: a File's Layer counts them.
func (v *View) Layers() []*Layer { return v.layers }

// Root is the root directory.
func (v *View) Root() File { return rootFile }

// Usage sums the sizes of files in bytes, and counts inodes, over all layers:
// what an upper layer hides counts too.
func (v *View) Usage() (bytes, inodes uint64) {
	defer runtime.KeepAlive(v)
	for _, l := range v.layers {
		bytes += l.x.BodyBytes()
		inodes += uint64(l.x.Len())
	}
	return bytes, inodes
}

// Attr returns a file's attributes.
func (v *View) Attr(f File) (Attr, error) { return v.top.attr(f) }

// Lookup finds a name in a directory. "." and ".." work; the root is its own
// parent. It returns fs.ErrNotExist, ErrNotDir or ErrStale.
func (v *View) Lookup(dir File, name string) (File, error) {
	if len(name) <= 2 && (name == "." || name == "..") {
		parent, err := v.Parent(dir)
		if name == ".." {
			return parent, err
		}
		return dir, err
	}
	return v.top.lookup(dir, name)
}

// Parent returns the directory that a directory lies in.
func (v *View) Parent(dir File) (File, error) {
	f, err := v.top.parent(dir)
	runtime.KeepAlive(v)
	return f, err
}

// ReadDir calls fn for every name after a cookie, 0 being the beginning, until
// fn returns false. Names come in the order of their bytes; "." and ".." are
// not among them. A cookie stays good as long as the image, on any server;
// one that this directory never gave is refused with fs.ErrInvalid. Going on
// by a cookie takes a binary search.
//
// A Dirent's Name shares the layer's index: clone it to keep it longer than the
// view.
func (v *View) ReadDir(dir File, cookie uint64, fn func(Dirent) bool) error {
	defer runtime.KeepAlive(v)
	return v.top.readDir(dir, cookie, fn)
}

// home finds the layer's index and the inode behind a File.
func (v *View) home(f File) (*Layer, layerfmt.Inode, error) {
	if int(f.Layer) >= len(v.layers) {
		return nil, 0, ErrStale
	}
	l, i := v.layers[f.Layer], layerfmt.Inode(f.Inode)
	if k := l.x.Kind(i); k == 0 || k >= layerfmt.Whiteout {
		return nil, 0, ErrStale
	}
	return l, i, nil
}

// Readlink returns a symlink's text, which shares the layer's index; for anything
// else, fs.ErrInvalid.
func (v *View) Readlink(f File) (string, error) {
	defer runtime.KeepAlive(v)
	l, i, err := v.home(f)
	if err != nil {
		return "", err
	}
	if l.x.Kind(i) != layerfmt.Symlink {
		return "", fs.ErrInvalid
	}
	return l.x.Readlink(i), nil
}

// Xattrs returns a file's extended attributes by their full names, or nil.
func (v *View) Xattrs(f File) (map[string]string, error) {
	defer runtime.KeepAlive(v)
	if _, _, err := v.home(f); err != nil {
		return nil, err
	}
	x, i := v.top.describer(f)
	return x.Xattrs(i), nil
}

// Flags returns a file's FreeBSD flags, "schg,uarch", or "".
func (v *View) Flags(f File) (string, error) {
	defer runtime.KeepAlive(v)
	if _, _, err := v.home(f); err != nil {
		return "", err
	}
	x, i := v.top.describer(f)
	return x.Flags(i), nil
}

// BodyDigest is the sha256 of a regular file's body.
func (v *View) BodyDigest(f File) ([32]byte, error) {
	defer runtime.KeepAlive(v)
	l, i, err := v.regular(f)
	if err != nil {
		return [32]byte{}, err
	}
	d, _ := l.x.BodyDigest(i)
	return d, nil
}

// regular is home for regular files: ErrIsDir for a directory, fs.ErrInvalid
// for what else has no body.
func (v *View) regular(f File) (*Layer, layerfmt.Inode, error) {
	l, i, err := v.home(f)
	if err != nil {
		return nil, 0, err
	}
	switch l.x.Kind(i) {
	case layerfmt.File:
		return l, i, nil
	case layerfmt.Dir:
		return nil, 0, ErrIsDir
	}
	return nil, 0, fs.ErrInvalid
}
