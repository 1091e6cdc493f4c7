// Package rootfs turns an image's layers into one merged, read-only root file
// system. Nothing is unpacked: names and attributes come from the layers'
// tree indexes, bodies out of the blobs' frames through a bounded cache that
// all nodes and protocols share.
package rootfs

import (
	"errors"
	"fmt"

	"rhizome/registry/layerfmt"
)

// Kind says what a file is; the constants are layerfmt's.
type Kind = layerfmt.Kind

// The kinds that a view shows. Whiteouts and links are resolved by the merge.
const (
	Dir     = layerfmt.Dir
	Regular = layerfmt.File
	Symlink = layerfmt.Symlink
	Char    = layerfmt.Char
	Block   = layerfmt.Block
	Fifo    = layerfmt.Fifo
)

// File names one inode of a view: the layer's ordinal, lowest first, and the
// inode in it. A directory that several layers share goes by its lowest one,
// so that a layer laid on top changes no directory's identity.
type File struct {
	Layer uint16
	Inode uint32
}

// Attr is what a view knows of a file.
type Attr struct {
	Kind Kind
	// Mode holds the permission bits with setuid, setgid and sticky (07777).
	Mode, Nlink, UID, GID uint32
	// Size is the body's length in bytes, or a symlink's text's.
	Size uint64
	// Major and Minor number a device.
	Major, Minor uint32
	// Sec and Nsec are the modification time since 1970.
	Sec  int64
	Nsec uint32
	// FileID is Layer<<32 | Inode: unique in the view and stable.
	FileID uint64
}

// Dirent is one name of a directory.
type Dirent struct {
	Name string
	File File
	// Kind is the file's kind.
	Kind   Kind
	FileID uint64
	// Cookie makes ReadDir go on after this name. Never 0.
	Cookie uint64
}

// What a view's methods may answer, beside fs.ErrNotExist and fs.ErrInvalid.
var (
	ErrNotDir = errors.New("not a directory")
	ErrIsDir  = errors.New("is a directory")
	// ErrStale is a handle or File of another image, layer or inode than
	// this view holds.
	ErrStale = errors.New("stale file handle")
	// ErrLoop is a path through more than 40 symlinks.
	ErrLoop = errors.New("too many levels of symbolic links")
	// ErrDamaged is matched by every *DamagedError.
	ErrDamaged = errors.New("damaged layer")
)

// DamagedError is a frame whose bytes are not those the layer's index
// promises. Nothing of such a frame is ever served.
type DamagedError struct {
	// Layer is the layer's digest.
	Layer string
	// Frame numbers the frame; Offset and Length are its place in the blob.
	Frame          int
	Offset, Length int64
	// File is the path that was being read, or empty.
	File string
	// Cause is what was found.
	Cause error
}

func (e *DamagedError) Error() string {
	what := fmt.Sprintf("layer %s is damaged in frame %d (%d bytes at %d): %v", e.Layer, e.Frame, e.Length, e.Offset, e.Cause)
	if e.File != "" {
		return fmt.Sprintf("reading %q: %s", e.File, what)
	}
	return what
}

// Is makes errors.Is(err, ErrDamaged) true.
func (e *DamagedError) Is(target error) bool { return target == ErrDamaged }

// Unwrap gives the cause.
func (e *DamagedError) Unwrap() error { return e.Cause }
