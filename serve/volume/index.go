package volume

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"rhizome/serve/rootfs"
)

// An object of the image goes by a number made of its path in the export, so
// that it is the same object in the next version of the image, and after a
// restart, with nothing kept: the number of a name is a hash of its directory's
// number and the name. Objects that the node made are counted from 1.
const (
	fromImage = 1 << 63
	rootID    = fromImage
)

// imageID is the number of a name in a directory of the image.
func imageID(dir uint64, name string) uint64 {
	buf := binary.BigEndian.AppendUint64(make([]byte, 0, 8+maxName), dir)
	sum := sha256.Sum256(append(buf, name...))
	return binary.BigEndian.Uint64(sum[:]) | fromImage
}

// baseRef is an object of the image.
type baseRef struct {
	id, parent uint64
	file       rootfs.File
}

// baseIndex finds the objects of an image's folder by their numbers. The zero
// value is a folder with nothing in it.
type baseIndex struct {
	view *rootfs.View
	refs []baseRef // by id
	// links are the numbers of files with several names: that of the first.
	links map[rootfs.File]uint64
	// names are those of the directories that were asked for them last.
	names map[uint64]map[uint64]string
}

// newBaseIndex reads the folder of a view that has a path.
func newBaseIndex(view *rootfs.View, path string) (*baseIndex, error) {
	x := &baseIndex{view: view, links: map[rootfs.File]uint64{}}
	if view == nil {
		return x, nil
	}
	top, err := view.Resolve(path)
	if err != nil {
		return nil, fmt.Errorf("finding the copy-on-write export in the image: %w", err)
	}
	a, err := view.Attr(top)
	if err == nil && a.Kind != rootfs.Dir {
		err = rootfs.ErrNotDir
	}
	if err != nil {
		return nil, fmt.Errorf("finding the copy-on-write export in the image: %q: %w", path, err)
	}
	x.refs = append(x.refs, baseRef{rootID, rootID, top})
	if err := x.walk(rootID, top); err != nil {
		return nil, fmt.Errorf("reading the image below %q: %w", path, err)
	}
	slices.SortFunc(x.refs, func(a, b baseRef) int { return cmp.Compare(a.id, b.id) })
	return x, nil
}

func (x *baseIndex) walk(id uint64, dir rootfs.File) error {
	var failed error
	err := x.view.ReadDir(dir, 0, func(d rootfs.Dirent) bool {
		ref := baseRef{x.idOf(id, d.Name, d.File), id, d.File}
		if d.Kind == rootfs.Regular {
			if fresh, err := x.note(d.File, ref.id); err != nil || !fresh {
				failed = err
				return err == nil
			}
		}
		x.refs = append(x.refs, ref)
		if d.Kind == rootfs.Dir {
			failed = x.walk(ref.id, d.File)
		}
		return failed == nil
	})
	return errors.Join(failed, err)
}

// note remembers the number of a file with several names; it is fresh where
// this is the first of them.
func (x *baseIndex) note(f rootfs.File, id uint64) (fresh bool, err error) {
	if _, known := x.links[f]; known {
		return false, nil
	}
	a, err := x.view.Attr(f)
	if err == nil && a.Nlink > 1 {
		x.links[f] = id
	}
	return true, err
}

func (x *baseIndex) idOf(dir uint64, name string, f rootfs.File) uint64 {
	if id, ok := x.links[f]; ok {
		return id
	}
	return imageID(dir, name)
}

// find is the object with a number, if the image has it.
func (x *baseIndex) find(id uint64) (baseRef, bool) {
	i, ok := slices.BinarySearchFunc(x.refs, id, func(r baseRef, id uint64) int { return cmp.Compare(r.id, id) })
	if !ok {
		return baseRef{}, false
	}
	return x.refs[i], true
}

// child is a name of a directory of the image.
func (x *baseIndex) child(dir uint64, name string) (baseRef, bool) {
	d, ok := x.find(dir)
	if !ok {
		return baseRef{}, false
	}
	f, err := x.view.Lookup(d.file, name)
	if err != nil {
		return baseRef{}, false
	}
	return baseRef{x.idOf(dir, name, f), dir, f}, true
}

// each calls fn for the names of a directory of the image; for any other
// number, and for a file's, it does not. The names are fn's to keep: lists of them
// outlive the image that they came from.
func (x *baseIndex) each(dir uint64, fn func(name string, id uint64, k kind)) {
	d, ok := x.find(dir)
	if !ok {
		return
	}
	// A directory that the index holds can be read; an error means that it is
	// none, which is the file's case above.
	_ = x.view.ReadDir(d.file, 0, func(e rootfs.Dirent) bool {
		fn(strings.Clone(e.Name), x.idOf(dir, e.Name, e.File), baseKinds[e.Kind])
		return true
	})
}

// maxNamed is how many directories' names are kept by number.
const maxNamed = 64

// nameOf finds the name that an object of the image has in its directory. The
// overlay's lock is held for writing.
func (x *baseIndex) nameOf(r baseRef) string {
	names, known := x.names[r.parent]
	if known {
		return names[r.id]
	}
	names = map[uint64]string{}
	x.each(r.parent, func(name string, id uint64, _ kind) {
		if _, again := names[id]; !again {
			names[id] = name
		}
	})
	if x.names == nil || len(x.names) >= maxNamed {
		x.names = map[uint64]map[uint64]string{}
	}
	x.names[r.parent] = names
	return names[r.id]
}

var baseKinds = map[rootfs.Kind]kind{rootfs.Regular: kindRegular, rootfs.Dir: kindDir, rootfs.Block: kindBlock,
	rootfs.Char: kindChar, rootfs.Symlink: kindSymlink, rootfs.Fifo: kindFifo}

func (x *baseIndex) attr(r baseRef) (attr, error) {
	a, err := x.view.Attr(r.file)
	if err != nil {
		return attr{}, err
	}
	at := moment{a.Sec, a.Nsec}
	return attr{kind: baseKinds[a.Kind], mode: a.Mode, nlink: a.Nlink, uid: a.UID, gid: a.GID, size: a.Size, used: (a.Size + 511) &^ 511,
		major: a.Major, minor: a.Minor, fileid: r.id, atime: at, mtime: at, ctime: at}, nil
}

// fingerprint is what an object of the image is, but for its times: where two
// versions of the image have the same, the object did not change.
func (x *baseIndex) fingerprint(r baseRef) string {
	a, err := x.view.Attr(r.file)
	if err != nil {
		return ""
	}
	what := fmt.Sprintf("%d %o %d %d %d %d", a.Kind, a.Mode, a.UID, a.GID, a.Major, a.Minor)
	switch a.Kind {
	case rootfs.Regular:
		d, _ := x.view.BodyDigest(r.file)
		what += string(d[:])
	case rootfs.Symlink:
		target, _ := x.view.Readlink(r.file)
		what += target
	}
	sum := sha256.Sum256([]byte(what))
	return hex.EncodeToString(sum[:8])
}
