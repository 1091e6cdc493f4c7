package prefetch

import (
	"path"

	"golang.org/x/sys/unix"
)

// Flush sends what this node wrote and has not sent yet to the server: the
// region is read there.
func Flush(string) error { return unix.Sync() }

// Refresh makes this node's NFS client ask anew what the folders of changed
// paths have, from the leased ones downwards, and for new attributes. FreeBSD
// has no call that only asks; one that sets the mode that is there already
// brings the attributes with it. What was written back has that mode, whatever
// the client knows.
func Refresh(tops []string, changed []Change) {
	modes := map[string]uint32{}
	for i := range changed {
		if c := &changed[i]; c.kept() {
			modes[c.Path] = c.Entry.Mode
		}
	}
	for _, p := range outdated(tops, changed) {
		var st unix.Stat_t
		if unix.Lstat(path.Join("/", p), &st) != nil || st.Mode&unix.S_IFMT == unix.S_IFLNK {
			continue
		}
		mode, known := modes[p]
		if !known {
			mode = uint32(st.Mode) & 0o7777
		}
		_ = unix.Chmod(path.Join("/", p), mode) // else it is asked when its time is over
	}
}
