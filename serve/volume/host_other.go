//go:build !linux

package volume

import (
	"io/fs"
	"syscall"
)

func hostTimes(info fs.FileInfo) hostTimed {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		m := momentOf(info.ModTime())
		return hostTimed{m, m, m}
	}
	return hostTimed{hostMoment(st.Atimespec), hostMoment(st.Mtimespec), hostMoment(st.Ctimespec)}
}

func hostMoment(t syscall.Timespec) moment { return moment{int64(t.Sec), uint32(t.Nsec)} }
