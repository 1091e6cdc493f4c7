package volume

import (
	"archive/tar"
	"cmp"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"rhizome/serve/rootfs"
)

// WriteLayer writes what a node changed as a tar stream that is a layer over
// the image (image-spec, layer.md): changed files whole, whiteouts for what was
// removed. view is the image that the changes lie over (Tree.Image).
func WriteLayer(w io.Writer, t Tree, view *rootfs.View) error {
	r, err := readRecords(t.Dir)
	if err != nil {
		return fmt.Errorf("reading a node's changes in %q: %w", t.Dir, err)
	}
	base, err := newBaseIndex(view, t.Path)
	if err != nil {
		return err
	}
	l := layerWriter{tar: tar.NewWriter(w), seen: map[uint64]string{},
		o: &overlay{overlayConfig: overlayConfig{dir: t.Dir, path: t.Path}, bodies: newFileCache(0, nil), records: r, base: base}}
	if err := l.directory(rootID, strings.Trim(t.Path, "/"), false); err != nil {
		return fmt.Errorf("writing a node's changes as a layer: %w", err)
	}
	return l.tar.Close()
}

// Names of whiteouts (image-spec, layer.md, "Whiteouts").
const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
)

type layerWriter struct {
	o    *overlay
	tar  *tar.Writer
	seen map[uint64]string // where objects were written first
}

// named is a name of a directory, and what the node made of it.
type named struct {
	name string
	id   uint64 // 0 for a whiteout
}

// names lists what belongs into the layer: what the node made, or with whole
// everything, for a directory that the image does not have at this place.
func (l *layerWriter) names(dir uint64, whole bool) []named {
	var all []named
	if whole {
		l.o.eachName(dir, func(name string, id uint64, _ kind) { all = append(all, named{name, id}) })
	} else {
		for name, e := range l.o.names[dir] {
			all = append(all, named{name, e.ID})
		}
	}
	slices.SortFunc(all, func(a, b named) int { return cmp.Compare(a.name, b.name) })
	return all
}

func (l *layerWriter) directory(dir uint64, at string, whole bool) error {
	for _, n := range l.names(dir, whole) {
		p := path.Join(at, n.name)
		if strings.HasPrefix(n.name, whiteoutPrefix) {
			return fmt.Errorf("%q has a name that means a whiteout in a layer; rename it first", p)
		}
		if n.id == 0 {
			if err := l.tar.WriteHeader(&tar.Header{Name: path.Join(at, whiteoutPrefix+n.name), Typeflag: tar.TypeReg, Format: tar.FormatPAX}); err != nil {
				return err
			}
			continue
		}
		if err := l.object(dir, n, p, whole); err != nil {
			return fmt.Errorf("%q: %w", p, err)
		}
	}
	return nil
}

var layerTypes = map[kind]byte{kindRegular: tar.TypeReg, kindDir: tar.TypeDir, kindSymlink: tar.TypeSymlink,
	kindChar: tar.TypeChar, kindBlock: tar.TypeBlock, kindFifo: tar.TypeFifo}

func (l *layerWriter) object(dir uint64, n named, p string, whole bool) error {
	a, err := l.o.attrAt(n.id)
	if err != nil || a.kind == kindSocket {
		return err // a layer has no sockets
	}
	h := &tar.Header{Name: p, Typeflag: layerTypes[a.kind], Mode: int64(a.mode), Uid: int(a.uid), Gid: int(a.gid),
		ModTime: time.Unix(a.mtime.Sec, 0), Devmajor: int64(a.major), Devminor: int64(a.minor), Format: tar.FormatPAX}
	x := l.o.object(n.id)
	if first, again := l.seen[n.id]; again && a.kind != kindDir {
		h.Typeflag, h.Linkname = tar.TypeLink, first
		return l.tar.WriteHeader(h)
	}
	l.seen[n.id] = p
	switch a.kind {
	case kindRegular:
		return l.file(x, h, int64(a.size))
	case kindDir:
		return l.subdirectory(dir, n, h, whole)
	case kindSymlink:
		if h.Linkname, err = x.readlink(); err != nil {
			return err
		}
	}
	return l.tar.WriteHeader(h)
}

func (l *layerWriter) file(x *overlayObject, h *tar.Header, size int64) error {
	h.Size = size
	if err := l.tar.WriteHeader(h); err != nil {
		return err
	}
	defer l.o.bodies.clear()
	_, err := io.Copy(l.tar, io.NewSectionReader(objectReader{x}, 0, size))
	return err
}

type objectReader struct{ x *overlayObject }

func (r objectReader) ReadAt(p []byte, off int64) (int, error) { return r.x.readAt(p, off) }

// subdirectory writes a directory. One that the image does not have here shows
// nothing of what the image may have by its name, and all of its own.
func (l *layerWriter) subdirectory(dir uint64, n named, h *tar.Header, whole bool) error {
	h.Name += "/"
	if err := l.tar.WriteHeader(h); err != nil {
		return err
	}
	ref, here := l.o.base.child(dir, n.name)
	inPlace := here && ref.id == n.id && !whole
	if here && !inPlace {
		if err := l.tar.WriteHeader(&tar.Header{Name: h.Name + whiteoutOpaque, Typeflag: tar.TypeReg, Format: tar.FormatPAX}); err != nil {
			return err
		}
	}
	return l.directory(n.id, strings.TrimSuffix(h.Name, "/"), !inPlace)
}

// LayerFile writes WriteLayer's stream to a new file at name, which is removed
// if that fails.
func LayerFile(name string, t Tree, view *rootfs.View) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = WriteLayer(f, t, view)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(name)
	}
	return err
}
