package prefetch

import (
	"path"

	"golang.org/x/sys/unix"
)

// Flush sends what this node wrote to a path, and has not sent yet, to the
// server: the region is read there.
func Flush(p string) error {
	fd, err := unix.Open(p, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Syncfs(fd)
}

// Refresh makes this node's NFS client ask anew what the folders of changed
// paths have, from the leased ones downwards, and for new attributes: it would
// else go by what it knew for as long as attributes are good (nfs(5), acdirmin),
// and find neither what was made nor miss what was removed.
func Refresh(tops []string, changed []Change) {
	for _, p := range outdated(tops, changed) {
		var st unix.Statx_t
		// What cannot be asked now is asked when its time is over.
		_ = unix.Statx(unix.AT_FDCWD, path.Join("/", p), unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st)
	}
}
