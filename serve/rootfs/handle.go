package rootfs

import (
	"encoding/binary"
	"fmt"
	"io/fs"
)

// HandleSize is the length of every handle in bytes.
const HandleSize = 32

// A handle's bytes, numbers in network order:
//
//	0     HandleVersion
//	1     HandleImage; 1 and 2 are for persistent and copy-on-write exports
//	2-3   the layer's ordinal
//	4-7   the inode
//	8-15  the layer's tag: zero, or which memory layer it is
//	16-31 the image's identity, or that of its blobs
//
// Nothing in it would change with a restart, another server or another
// transport, as long as the image is the same.
const (
	HandleVersion = 1

	HandleImage       = 0
	HandlePersist     = 1
	HandleCopyOnWrite = 2
)

// Handle names a file for clients.
func (v *View) Handle(f File) []byte { return v.AppendHandle(make([]byte, 0, HandleSize), f) }

// AppendHandle is Handle into a buffer.
func (v *View) AppendHandle(dst []byte, f File) []byte {
	var tag [8]byte
	if int(f.Layer) < len(v.layers) {
		tag = v.layers[f.Layer].tag
	}
	return appendHandle(dst, f, tag, v.id)
}

func appendHandle(dst []byte, f File, tag [8]byte, id [16]byte) []byte {
	dst = append(dst, HandleVersion, HandleImage)
	dst = binary.BigEndian.AppendUint16(dst, f.Layer)
	dst = binary.BigEndian.AppendUint32(dst, f.Inode)
	dst = append(dst, tag[:]...)
	return append(dst, id[:]...)
}

// FromHandle takes a handle of this view, and refuses any other with ErrStale:
// another image's, another memory layer's, one whose inode there is not.
func (v *View) FromHandle(h []byte) (File, error) {
	id, f, err := ParseHandle(h)
	if err != nil {
		return File{}, err
	}
	if id != v.id || int(f.Layer) >= len(v.layers) || [8]byte(h[8:16]) != v.layers[f.Layer].tag {
		return File{}, ErrStale
	}
	if _, _, err := v.home(f); err != nil {
		return File{}, err
	}
	return f, nil
}

// ParseHandle splits a handle into the image's identity, to find the view by,
// and the file. It refuses with fs.ErrInvalid what is no handle of an image.
// FromHandle checks more.
func ParseHandle(h []byte) (id [16]byte, f File, err error) {
	if len(h) != HandleSize || h[0] != HandleVersion || h[1] != HandleImage {
		return id, f, fmt.Errorf("a file handle of %d bytes that no image gave: %w", len(h), fs.ErrInvalid)
	}
	copy(id[:], h[16:])
	return id, File{binary.BigEndian.Uint16(h[2:]), binary.BigEndian.Uint32(h[4:])}, nil
}
