package layerfmt

import (
	"archive/tar"
	"errors"
	"fmt"
	"math"
	"sort"
	"strings"
)

// PAX records that carry what ustar cannot (star(1), libarchive-formats(5)).
const (
	paxXattr  = "SCHILY.xattr."
	paxFlags  = "SCHILY.fflags"
	paxSparse = "GNU.sparse."
)

var errSparse = errors.New("a sparse file, which layers do not carry; make the tar without --sparse")

var tarKinds = map[byte]Kind{
	tar.TypeReg: File, tar.TypeLink: Link, tar.TypeSymlink: Symlink, tar.TypeDir: Dir,
	tar.TypeChar: Char, tar.TypeBlock: Block, tar.TypeFifo: Fifo,
}

// entryOf turns a tar header into an entry, or says why no layer may hold it.
// A global PAX header, such as git archive writes, gives nil.
func entryOf(h *tar.Header, bodyAt int64) (*entry, error) {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil, nil
	}
	e, err := newEntry(h, bodyAt)
	if err == nil {
		err = e.takePAX(h.PAXRecords)
	}
	if err == nil {
		err = e.takeKind(h)
	}
	if err != nil {
		return nil, fmt.Errorf("entry %q: %w", shorten(h.Name), err)
	}
	return e, nil
}

func newEntry(h *tar.Header, bodyAt int64) (*entry, error) {
	kind, ok := tarKinds[h.Typeflag]
	switch {
	case h.Typeflag == tar.TypeGNUSparse:
		return nil, errSparse
	case !ok:
		return nil, fmt.Errorf("tar type %q, which no layer carries", h.Typeflag)
	case h.Uid < 0 || h.Uid > math.MaxUint32 || h.Gid < 0 || h.Gid > math.MaxUint32:
		return nil, fmt.Errorf("owner %d:%d is out of range", h.Uid, h.Gid)
	}
	p, err := cleanPath(h.Name)
	if err != nil {
		return nil, err
	}
	e := &entry{path: p, bodyAt: uint64(bodyAt), inode: inode{
		kind: kind, mode: uint16(h.Mode & 0o7777), uid: uint32(h.Uid), gid: uint32(h.Gid),
		sec: h.ModTime.Unix(), nsec: uint32(h.ModTime.Nanosecond()),
	}}
	return e, nil
}

// takeKind reads what belongs to one kind of entry alone.
func (e *entry) takeKind(h *tar.Header) error {
	switch e.kind {
	case File:
		e.size = uint64(h.Size)
	case Symlink:
		// A symlink may say what it likes: it is followed inside the view.
		e.target = h.Linkname
		if e.target == "" || len(e.target) > MaxPath || strings.IndexByte(e.target, 0) >= 0 {
			return fmt.Errorf("a symlink of %d bytes; 1 to %d are allowed, and no NUL", len(e.target), MaxPath)
		}
	case Link:
		e.hardLink = true
		p, err := cleanPath(h.Linkname)
		if err != nil {
			return fmt.Errorf("a hard link to %q: %w", shorten(h.Linkname), err)
		}
		e.target = p
	case Char, Block:
		return e.takeDevice(h)
	}
	return nil
}

func (e *entry) takeDevice(h *tar.Header) error {
	major, minor := h.Devmajor, h.Devminor
	switch {
	case major < 0 || minor < 0 || major > math.MaxUint32 || minor > math.MaxUint32:
		return fmt.Errorf("device %d:%d is out of range", major, minor)
	case e.kind == Char && major == 0 && minor == 0:
		return errors.New("character device 0:0, an overlayfs whiteout; make the layer with OCI whiteouts (.wh. files)")
	case !deviceBelongs(e.path):
		return errors.New("a device where none belongs: devices lie below a directory named dev or devices")
	}
	e.a = uint64(major) | uint64(minor)<<32
	return nil
}

func (e *entry) takePAX(records map[string]string) error {
	for k, v := range records {
		switch {
		case strings.HasPrefix(k, paxSparse):
			return errSparse
		case k == paxFlags:
			if len(v) > math.MaxUint16 {
				return fmt.Errorf("file flags of %d bytes", len(v))
			}
			e.flagText = sortFlags(v)
		case strings.HasPrefix(k, paxXattr):
			e.takeXattr(k[len(paxXattr):], v)
		}
	}
	sort.Strings(e.xattrNames)
	return nil
}

func (e *entry) takeXattr(name, value string) {
	if e.xattrValues == nil {
		e.xattrValues = map[string]string{}
	}
	e.xattrValues[name] = value
	e.xattrNames = append(e.xattrNames, name)
}

func sortFlags(s string) string {
	f := strings.FieldsFunc(s, func(r rune) bool { return r == ',' })
	sort.Strings(f)
	return strings.Join(f, ",")
}

// shorten keeps a hostile name from filling a terminal.
func shorten(s string) string {
	if len(s) > 200 {
		return s[:200] + "..."
	}
	return s
}
