package prefetch

import "golang.org/x/sys/unix"

// Used is what a memory file system takes, in bytes.
func Used(dir string) int64 {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return 0
	}
	return int64(st.Blocks-st.Bfree) * int64(st.Bsize)
}
