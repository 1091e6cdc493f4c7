package nfs

import (
	"errors"
	"io/fs"

	"rhizome/serve/rootfs"
)

// Program is NFS's number, Version the only version served, and Port where
// FreeBSD's kernel looks for it without asking.
const (
	Program = 100003
	Version = 3
	Port    = 2049
)

// The procedures of NFSv3 (RFC 1813, 3).
const (
	procNull = iota
	procGetattr
	procSetattr
	procLookup
	procAccess
	procReadlink
	procRead
	procWrite
	procCreate
	procMkdir
	procSymlink
	procMknod
	procRemove
	procRmdir
	procRename
	procLink
	procReaddir
	procReaddirplus
	procFsstat
	procFsinfo
	procPathconf
	procCommit
	procCount
)

var procNames = [procCount]string{"null", "getattr", "setattr", "lookup", "access", "readlink", "read", "write",
	"create", "mkdir", "symlink", "mknod", "remove", "rmdir", "rename", "link", "readdir", "readdirplus", "fsstat",
	"fsinfo", "pathconf", "commit"}

// status is nfsstat3 (RFC 1813, 2.6).
type status uint32

const (
	ok             status = 0
	errNoEnt       status = 2
	errIO          status = 5
	errAcces       status = 13
	errNotDir      status = 20
	errIsDir       status = 21
	errInval       status = 22
	errROFS        status = 30
	errNameTooLong status = 63
	errStale       status = 70
	errBadHandle   status = 10001
	errBadCookie   status = 10003
	errTooSmall    status = 10005
	errServerFault status = 10006
	// errJukebox has the client ask again, in a while.
	errJukebox status = 10008
)

// toStatus turns an error of a view or of Exports into what the client is told.
func toStatus(err error) status {
	switch {
	case err == nil:
		return ok
	case errors.Is(err, fs.ErrNotExist):
		return errNoEnt
	case errors.Is(err, rootfs.ErrNotDir):
		return errNotDir
	case errors.Is(err, rootfs.ErrIsDir):
		return errIsDir
	case errors.Is(err, rootfs.ErrStale):
		return errStale
	case errors.Is(err, fs.ErrPermission):
		return errAcces
	case errors.Is(err, fs.ErrInvalid):
		return errInval
	}
	return errIO
}

// Limits of the protocol and of this server, in bytes.
const (
	// maxHandle is NFS3_FHSIZE.
	maxHandle = 64
	// maxName is the longest name.
	maxName = 255
	// maxTCP and maxUDP are the largest READ; a datagram holds 64 KiB at most,
	// and many clients less than that.
	maxTCP = 1 << 20
	maxUDP = 32 << 10
	// maxDirUDP is the largest READDIR over UDP, and maxDirTCP over TCP.
	maxDirUDP = 32 << 10
	maxDirTCP = 256 << 10
)
