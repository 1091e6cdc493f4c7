// Package prefetch works on a leased region in memory: it fills a folder from
// the region's tar (fill.go), finds what a command changed in it (compare.go)
// and makes the tar of changes that goes back. It knows no server and mounts
// nothing; mount_*.go in this package do, for the command.
package prefetch

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"
)

// Entry is an object of the region as the server had it.
type Entry struct {
	Type     byte
	Mode     uint32
	UID, GID int
	MTime    time.Time
	Size     int64
	// Target is a symlink's.
	Target string
	// First is the name of the group of hard links that the object belongs to:
	// the first of them, or its own.
	First string
	Major int64
	Minor int64
	Sum   [sha256.Size]byte
}

// Listing is a region by path, without a slash at the ends.
type Listing map[string]*Entry

// Bytes sums the files' sizes.
func (l Listing) Bytes() (n int64) {
	for p, e := range l {
		if e.First == p {
			n += e.Size
		}
	}
	return n
}

// Fill unpacks a tar into root and tells what it was. Folders above the first
// name are made as root's.
func Fill(root *os.Root, r io.Reader) (Listing, error) {
	f := filler{root: root, list: Listing{}}
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("reading the region: %w", err)
		}
		if err := f.add(h, t); err != nil {
			return nil, fmt.Errorf("putting %q into memory: %w", h.Name, err)
		}
	}
	if len(f.list) == 0 {
		return nil, errors.New("reading the region: nothing came")
	}
	// Times of folders last: what is put into them changes those.
	for i := len(f.dirs) - 1; i >= 0; i-- {
		if err := setTime(root, f.dirs[i], f.list[f.dirs[i]].MTime); err != nil {
			return nil, err
		}
	}
	return f.list, nil
}

type filler struct {
	root *os.Root
	list Listing
	dirs []string
}

func (f *filler) add(h *tar.Header, body io.Reader) error {
	name := strings.Trim(h.Name, "/")
	if name == "" || name != path.Clean(name) || strings.HasPrefix(name, "../") {
		return errors.New("this is no plain name")
	}
	if f.list[name] != nil {
		return errors.New("the name comes twice")
	}
	if len(f.list) == 0 || f.list[path.Dir(name)] == nil {
		if err := f.root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
	}
	e := &Entry{Type: h.Typeflag, Mode: uint32(h.Mode) & 0o7777, UID: h.Uid, GID: h.Gid, MTime: h.ModTime, Size: h.Size,
		Target: h.Linkname, First: name, Major: h.Devmajor, Minor: h.Devminor}
	if h.Typeflag == tar.TypeLink {
		first := f.list[h.Linkname]
		if first == nil {
			return fmt.Errorf("it is a link to %q, which did not come", h.Linkname)
		}
		f.list[name] = first
		return f.root.Link(h.Linkname, name)
	}
	f.list[name] = e
	return f.make(name, e, h, body)
}

func (f *filler) make(name string, e *Entry, h *tar.Header, body io.Reader) error {
	switch h.Typeflag {
	case tar.TypeDir:
		f.dirs = append(f.dirs, name)
		if err := f.root.Mkdir(name, 0o700); err != nil {
			return err
		}
	case tar.TypeReg:
		if err := f.file(name, e, body); err != nil {
			return err
		}
	case tar.TypeSymlink:
		if err := f.root.Symlink(h.Linkname, name); err != nil {
			return err
		}
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		if err := makeNode(f.root, name, e); err != nil {
			return err
		}
	default:
		return fmt.Errorf("its type %q is not known", h.Typeflag)
	}
	return dress(f.root, name, e, h.PAXRecords)
}

func (f *filler) file(name string, e *Entry, body io.Reader) error {
	out, err := f.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	sum := sha256.New()
	if _, err = io.Copy(io.MultiWriter(out, sum), body); err == nil {
		sum.Sum(e.Sum[:0])
	}
	if closed := out.Close(); err == nil {
		err = closed
	}
	return err
}
