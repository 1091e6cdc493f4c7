package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"rhizome/serve/rootfs"
)

// The procedures of NFSv3 (RFC 1813, 3).
const (
	procGetattr     = 1
	procSetattr     = 2
	procLookup      = 3
	procAccess      = 4
	procReadlink    = 5
	procRead        = 6
	procWrite       = 7
	procCreate      = 8
	procMkdir       = 9
	procSymlink     = 10
	procMknod       = 11
	procRemove      = 12
	procRmdir       = 13
	procRename      = 14
	procLink        = 15
	procReaddir     = 16
	procReaddirplus = 17
	procFsstat      = 18
	procFsinfo      = 19
	procPathconf    = 20
	procCommit      = 21
	procCount       = 22
)

// status is nfsstat3 (RFC 1813, 2.6); most are errno's numbers.
type status uint32

const (
	statusOK          status = 0
	statusPerm        status = 1
	statusNoEnt       status = 2
	statusIO          status = 5
	statusNXIO        status = 6
	statusAcces       status = 13
	statusExist       status = 17
	statusXDev        status = 18
	statusNotDir      status = 20
	statusIsDir       status = 21
	statusInval       status = 22
	statusFBig        status = 27
	statusNoSpc       status = 28
	statusROFS        status = 30
	statusMLink       status = 31
	statusNameTooLong status = 63
	statusNotEmpty    status = 66
	statusDQuot       status = 69
	statusStale       status = 70
	statusBadHandle   status = 10001
	statusNotSync     status = 10002
	statusBadCookie   status = 10003
	statusNotSupp     status = 10004
	statusTooSmall    status = 10005
	statusServerFault status = 10006
	statusBadType     status = 10007
	statusJukebox     status = 10008
)

// error makes a status an error, for decisions that are made deep inside.
func (s status) Error() string {
	for e, t := range statuses {
		if s == t {
			return e.Error()
		}
	}
	return fmt.Sprintf("NFSv3 status %d", uint32(s))
}

// mountError makes an error of a tree one that MOUNT understands.
func mountError(err error) error {
	switch toStatus(err) {
	case statusNoEnt:
		return fs.ErrNotExist
	case statusNotDir:
		return rootfs.ErrNotDir
	}
	return err
}

// statuses are what the operating system's errors are called in NFS.
var statuses = map[syscall.Errno]status{
	syscall.EPERM: statusPerm, syscall.ENOENT: statusNoEnt, syscall.EIO: statusIO, syscall.ENXIO: statusNXIO,
	syscall.EACCES: statusAcces, syscall.EEXIST: statusExist, syscall.EXDEV: statusXDev,
	syscall.ENOTDIR: statusNotDir, syscall.EISDIR: statusIsDir, syscall.EINVAL: statusInval,
	syscall.EFBIG: statusFBig, syscall.ENOSPC: statusNoSpc, syscall.EROFS: statusROFS,
	syscall.EMLINK: statusMLink, syscall.ENAMETOOLONG: statusNameTooLong, syscall.ENOTEMPTY: statusNotEmpty,
	syscall.EDQUOT: statusDQuot, syscall.ESTALE: statusStale, syscall.EOPNOTSUPP: statusNotSupp,
	syscall.ELOOP: statusInval,
}

// toStatus turns an error of a tree into what the client is told.
func toStatus(err error) status {
	var own status
	var sys syscall.Errno
	switch {
	case err == nil:
		return statusOK
	case errors.As(err, &own):
		return own
	case spent(err):
		return statusJukebox
	case errors.As(err, &sys):
		if s, ok := statuses[sys]; ok {
			return s
		}
		return statusIO
	case errors.Is(err, rootfs.ErrStale):
		return statusStale
	case errors.Is(err, rootfs.ErrNotDir):
		return statusNotDir
	case errors.Is(err, rootfs.ErrIsDir):
		return statusIsDir
	case errors.Is(err, fs.ErrNotExist):
		return statusNoEnt
	case errors.Is(err, fs.ErrInvalid):
		return statusInval
	}
	return statusIO
}

// spent tells whether an error is want of something that comes back: descriptors
// or memory. The client is told to ask again later, and the program on the node
// waits instead of failing.
func spent(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
}

// Limits of the protocol and of this server, in bytes; the same as those of
// read-only exports, so that a client that mounts both sees one server.
const (
	maxHandle = 64
	maxName   = 255
	maxPath   = 4096
	maxTCP    = 1 << 20
	maxUDP    = 32 << 10
	maxDirUDP = 32 << 10
	maxDirTCP = 256 << 10
)
