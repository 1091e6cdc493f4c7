package volume

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"rhizome/serve/node/nodeapi"
)

// errMoving is a region that others write to while it is streamed.
var errMoving = errors.New("somebody writes to it while it is read: ask again")

// Stream writes a leased region as one tar (PAX: pax(1), "pax Interchange
// Format"), and notes the version of what was written for the commit. Names are
// absolute paths of the node without the first slash; owners, modes, times to
// the nanosecond, symlinks and hard links are all there, sockets are not.
func (r *Regions) Stream(ctx context.Context, h nodeapi.Holder, id string, w io.Writer) error {
	_, n, at, err := r.snapshot(h, id)
	if err != nil {
		return err
	}
	out := tar.NewWriter(w)
	whole := &regionList{}
	for _, p := range at {
		l, err := r.list(ctx, n, []place{p})
		if err != nil {
			return err
		}
		if err := l.stream(ctx, out); err != nil {
			return fmt.Errorf("streaming %q: %w", p.node, err)
		}
		whole.entries = append(whole.entries, l.entries...)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	t, l, err := r.mine(h, id)
	if err != nil {
		return err
	}
	if version := whole.version(); version != l.Version {
		if err := t.change(l, func(l *lease) { l.Version = version }); err != nil {
			return err
		}
	}
	return out.Close()
}

// tarTypes are the kinds that a tar has.
var tarTypes = map[kind]byte{kindRegular: tar.TypeReg, kindDir: tar.TypeDir, kindSymlink: tar.TypeSymlink,
	kindChar: tar.TypeChar, kindBlock: tar.TypeBlock, kindFifo: tar.TypeFifo}

// stream writes a listing. The export is in use only while one piece is read:
// a client that takes its time must hold up nobody.
func (l *regionList) stream(ctx context.Context, out *tar.Writer) error {
	first := map[uint64]string{}
	buf := make([]byte, 1<<20)
	for i := range l.entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		e := &l.entries[i]
		h := e.header()
		if h == nil {
			continue
		}
		if name, again := first[e.attr.fileid]; again && e.attr.kind != kindDir {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, name, 0
			if err := out.WriteHeader(h); err != nil {
				return err
			}
			continue
		}
		if e.attr.nlink > 1 && e.attr.kind != kindDir {
			first[e.attr.fileid] = h.Name
		}
		if err := l.streamOne(e, h, out, buf); err != nil {
			return fmt.Errorf("%q: %w", e.node, err)
		}
	}
	return nil
}

// header is an entry's, or nil for what a tar cannot hold.
func (e *regionEntry) header() *tar.Header {
	t, ok := tarTypes[e.attr.kind]
	if !ok {
		return nil
	}
	a := &e.attr
	h := &tar.Header{Format: tar.FormatPAX, Typeflag: t, Name: e.node, Linkname: e.target, Mode: int64(a.mode), Uid: int(a.uid), Gid: int(a.gid),
		ModTime: time.Unix(a.mtime.Sec, int64(a.mtime.Nsec)), Devmajor: int64(a.major), Devminor: int64(a.minor)}
	switch a.kind {
	case kindDir:
		h.Name += "/"
	case kindRegular:
		h.Size = int64(a.size)
	}
	return h
}

// xattrPrefix begins the PAX keys of extended attributes, as star(1) and GNU
// tar write them.
const xattrPrefix = "SCHILY.xattr."

// attributed is an object that has extended attributes.
type attributed interface {
	xattrs() (map[string]string, error)
}

func (l *regionList) streamOne(e *regionEntry, h *tar.Header, out *tar.Writer, buf []byte) error {
	o, err := l.open(e)
	if err != nil {
		return err
	}
	defer o.close()
	if x, ok := o.(attributed); ok && (e.attr.kind == kindRegular || e.attr.kind == kindDir) {
		all, err := x.xattrs()
		if err != nil {
			return err
		}
		for k, v := range all {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords[xattrPrefix+k] = v
		}
	}
	if err := out.WriteHeader(h); err != nil || e.attr.kind != kindRegular {
		return err
	}
	for off := int64(0); off < h.Size; {
		n := int(min(int64(len(buf)), h.Size-off))
		if err := l.read(o, buf[:n], off); err != nil {
			return err
		}
		if _, err := out.Write(buf[:n]); err != nil {
			return err
		}
		off += int64(n)
	}
	return l.unchanged(o, e)
}

// open opens an entry's object, which must be as it was listed.
func (l *regionList) open(e *regionEntry) (object, error) {
	if !l.x.enter() {
		return nil, errElsewhere
	}
	defer l.x.leave()
	return l.x.tree.open(e.id)
}

func (l *regionList) read(o object, p []byte, off int64) error {
	if !l.x.enter() {
		return errElsewhere
	}
	defer l.x.leave()
	n, err := o.readAt(p, off)
	if n < len(p) && (err == nil || errors.Is(err, io.EOF)) {
		return errMoving
	}
	if n == len(p) {
		return nil
	}
	return err
}

func (l *regionList) unchanged(o object, e *regionEntry) error {
	if !l.x.enter() {
		return errElsewhere
	}
	defer l.x.leave()
	now, err := o.attr()
	if err == nil && (now.size != e.attr.size || now.mtime != e.attr.mtime) {
		err = errMoving
	}
	return err
}
