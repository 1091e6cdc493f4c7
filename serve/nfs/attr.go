package nfs

import (
	"encoding/binary"

	"rhizome/serve/rootfs"
	"rhizome/serve/rpc"
)

// fattr3Size is the length of fattr3 in bytes.
const fattr3Size = 84

// ftypes gives ftype3 (RFC 1813, 2.6) by a view's kind.
var ftypes = [...]uint32{rootfs.Regular: 1, rootfs.Dir: 2, rootfs.Block: 3, rootfs.Char: 4, rootfs.Symlink: 5, rootfs.Fifo: 7}

// putAttr writes fattr3 (RFC 1813, 2.6) to p, which has fattr3Size bytes. The
// image keeps one time; it stands for all three.
func putAttr(p []byte, a *rootfs.Attr, fsid uint64) {
	_ = p[fattr3Size-1]
	be := binary.BigEndian
	be.PutUint32(p[0:], ftypes[a.Kind])
	be.PutUint32(p[4:], a.Mode&07777)
	be.PutUint32(p[8:], a.Nlink)
	be.PutUint32(p[12:], a.UID)
	be.PutUint32(p[16:], a.GID)
	be.PutUint64(p[20:], a.Size)
	be.PutUint64(p[28:], (a.Size+511)&^511)
	be.PutUint32(p[36:], a.Major)
	be.PutUint32(p[40:], a.Minor)
	be.PutUint64(p[44:], fsid)
	be.PutUint64(p[52:], a.FileID)
	time := uint64(uint32(a.Sec))<<32 | uint64(a.Nsec)
	be.PutUint64(p[60:], time)
	be.PutUint64(p[68:], time)
	be.PutUint64(p[76:], time)
}

// appendAttr appends fattr3.
func appendAttr(out *rpc.Reply, a *rootfs.Attr, fsid uint64) {
	putAttr(out.Grow(fattr3Size), a, fsid)
}

// appendPostOp appends post_op_attr with attributes: always, for FreeBSD's
// loader takes no reply without.
func appendPostOp(out *rpc.Reply, a *rootfs.Attr, fsid uint64) {
	p := out.Grow(4 + fattr3Size)
	binary.BigEndian.PutUint32(p, 1)
	putAttr(p[4:], a, fsid)
}

// appendWcc appends wcc_data (RFC 1813, 2.6) of a file that did not change.
func appendWcc(out *rpc.Reply, a *rootfs.Attr, fsid uint64) {
	time := uint64(uint32(a.Sec))<<32 | uint64(a.Nsec)
	out.Uint32(1)
	out.Uint64(a.Size)
	out.Uint64(time)
	out.Uint64(time)
	appendPostOp(out, a, fsid)
}
