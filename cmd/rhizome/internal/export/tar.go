// Package export takes a node's merged root out of its image: as a tar, or as
// a folder. Owners, modes, times, links and extended attributes are the view's.
package export

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"rhizome/serve/rootfs"
)

// xattrRecord begins the PAX record of an extended attribute, as GNU tar,
// bsdtar and Docker write it.
const xattrRecord = "SCHILY.xattr."

// Tar writes the root as one tar (POSIX.1-2008, pax), names in order: the same
// root gives the same bytes.
func Tar(w io.Writer, v *rootfs.View) error {
	t := tarWriter{out: tar.NewWriter(w), view: v, first: map[rootfs.File]string{}}
	if err := v.Walk("/", t.add); err != nil {
		return err
	}
	return t.out.Close()
}

type tarWriter struct {
	out  *tar.Writer
	view *rootfs.View
	// first is the name under which a file with several came first.
	first map[rootfs.File]string
}

func (t *tarWriter) add(p string, f rootfs.File, a rootfs.Attr) error {
	h, err := t.header(p, f, a)
	if err == nil {
		err = t.out.WriteHeader(h)
	}
	if err == nil && h.Typeflag == tar.TypeReg {
		err = copyBody(t.out, t.view, f)
	}
	if err != nil {
		return fmt.Errorf("writing %q: %w", p, err)
	}
	return nil
}

var types = map[rootfs.Kind]byte{
	rootfs.Dir: tar.TypeDir, rootfs.Regular: tar.TypeReg, rootfs.Symlink: tar.TypeSymlink,
	rootfs.Char: tar.TypeChar, rootfs.Block: tar.TypeBlock, rootfs.Fifo: tar.TypeFifo,
}

func (t *tarWriter) header(p string, f rootfs.File, a rootfs.Attr) (*tar.Header, error) {
	h := &tar.Header{
		Typeflag: types[a.Kind], Name: "." + strings.TrimSuffix(p, "/"), Mode: int64(a.Mode), Uid: int(a.UID), Gid: int(a.GID),
		ModTime: time.Unix(a.Sec, int64(a.Nsec)), Devmajor: int64(a.Major), Devminor: int64(a.Minor), Format: tar.FormatPAX,
	}
	if a.Kind == rootfs.Dir {
		h.Name += "/"
	}
	if name, again := t.again(h.Name, f, a); again {
		h.Typeflag, h.Linkname = tar.TypeLink, name
		return h, nil
	}
	return h, t.fill(h, f, a)
}

// again finds the name that a hard link goes back to.
func (t *tarWriter) again(name string, f rootfs.File, a rootfs.Attr) (string, bool) {
	if a.Nlink < 2 || a.Kind == rootfs.Dir {
		return "", false
	}
	if before, ok := t.first[f]; ok {
		return before, true
	}
	t.first[f] = name
	return "", false
}

func (t *tarWriter) fill(h *tar.Header, f rootfs.File, a rootfs.Attr) (err error) {
	switch a.Kind {
	case rootfs.Regular:
		h.Size = int64(a.Size)
	case rootfs.Symlink:
		if h.Linkname, err = t.view.Readlink(f); err != nil {
			return err
		}
	}
	attrs, err := t.view.Xattrs(f)
	if err != nil {
		return err
	}
	flags, err := t.view.Flags(f)
	if err != nil {
		return err
	}
	if len(attrs) > 0 || flags != "" {
		h.PAXRecords = map[string]string{}
	}
	for name, value := range attrs {
		h.PAXRecords[xattrRecord+name] = value
	}
	if flags != "" {
		h.PAXRecords["SCHILY.fflags"] = flags
	}
	return nil
}

func copyBody(w io.Writer, v *rootfs.View, f rootfs.File) error {
	r, err := v.OpenFile(f)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, r.Close())
}
