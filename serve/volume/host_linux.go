package volume

import (
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// syncFileSystem puts all of a folder's file system on the disk.
func syncFileSystem(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = retry(func() (int, error) { return 0, unix.Syncfs(int(f.Fd())) })
	return err
}

func hostTimes(info fs.FileInfo) hostTimed {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		m := momentOf(info.ModTime())
		return hostTimed{m, m, m}
	}
	return hostTimed{hostMoment(st.Atim), hostMoment(st.Mtim), hostMoment(st.Ctim)}
}

func hostMoment(t syscall.Timespec) moment { return moment{int64(t.Sec), uint32(t.Nsec)} }
