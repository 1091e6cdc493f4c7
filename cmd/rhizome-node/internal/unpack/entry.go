package unpack

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

const paxXattr = "SCHILY.xattr."

// lay makes one entry.
func (l *laying) lay(at string, h *tar.Header, body io.Reader) error {
	if err := l.inTheWay(at, h.Typeflag == tar.TypeDir); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeLink:
		return l.link(at, h)
	case tar.TypeReg:
		for name := range h.PAXRecords {
			// A few bytes would fill all memory with zeros.
			if strings.HasPrefix(name, "GNU.sparse.") {
				return errors.New("a sparse file, which no layer has")
			}
		}
		if err := l.file(at, h.Size, body); err != nil {
			return err
		}
	case tar.TypeDir:
		if err := os.Mkdir(at, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		l.times = append(l.times, stamped{at, h.ModTime})
	case tar.TypeSymlink:
		if len(h.Linkname) > maxPath {
			return errors.New("a symlink that is too long")
		}
		if err := os.Symlink(h.Linkname, at); err != nil {
			return err
		}
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		if err := special(at, h); err != nil {
			return err
		}
	default:
		return fmt.Errorf("a tar entry of the type %q, which no layer has", h.Typeflag)
	}
	return attributes(at, h)
}

func (l *laying) file(at string, size int64, body io.Reader) error {
	f, err := os.OpenFile(at, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, body)
	l.count.Bytes += n
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	return errors.Join(err, f.Close())
}

// link makes a hard link. Its target was laid by this layer or one below, or by
// an earlier part of this one.
func (l *laying) link(at string, h *tar.Header) error {
	parts, err := split(h.Linkname)
	if err != nil || len(parts) == 0 {
		return fmt.Errorf("a hard link to %q: it leads nowhere", clip(h.Linkname))
	}
	for _, dir := range l.Below {
		if old := plain(dir, parts); old != "" {
			return os.Link(old, at)
		}
	}
	dir, err := l.folder(parts[:len(parts)-1])
	if err != nil {
		return err
	}
	// os.Link follows no symlink in the last place (linkat(2) without
	// AT_SYMLINK_FOLLOW).
	return os.Link(dir+"/"+parts[len(parts)-1], at)
}

// plain is the path of something in a folder that no symlink leads to, or nothing
// where it is not there.
func plain(dir string, parts []string) string {
	for i, p := range parts {
		dir += "/" + p
		if info, err := os.Lstat(dir); err != nil || i < len(parts)-1 && !info.IsDir() {
			return ""
		}
	}
	return dir
}

// attributes sets owner, mode, attributes and time, in the order in which none
// undoes another: chown(2) clears setuid bits and capabilities.
func attributes(at string, h *tar.Header) error {
	if err := os.Lchown(at, h.Uid, h.Gid); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeSymlink {
		return nil
	}
	if err := syscall.Chmod(at, uint32(h.Mode)&0o7777); err != nil {
		return &fs.PathError{Op: "chmod", Path: at, Err: err}
	}
	for name, value := range h.PAXRecords {
		if attribute, ok := strings.CutPrefix(name, paxXattr); ok {
			if err := setXattr(at, attribute, value); err != nil {
				return fmt.Errorf("setting the attribute %q: %w", attribute, err)
			}
		}
	}
	if h.Typeflag == tar.TypeDir {
		return nil
	}
	return os.Chtimes(at, h.ModTime, h.ModTime)
}
