package prefetch

import (
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// Flush sends what this node wrote and has not sent yet to the server: the
// region is read there.
func Flush(string) error { return unix.Sync() }

// Refresh makes this node's NFS client ask anew what the folders of changed
// paths have, from the leased ones downwards. FreeBSD has no call that only
// asks; one that sets what is there already brings the attributes with it.
func Refresh(tops []string, changed []Change) {
	for _, dir := range foldersOf(tops, changed) {
		if info, err := os.Lstat(path.Join("/", dir)); err == nil && info.IsDir() {
			_ = os.Chmod(path.Join("/", dir), info.Mode()) // else it is asked when its time is over
		}
	}
}
