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
	return hostTimed{hostMoment(st.Atim), hostMoment(st.Mtim), hostMoment(st.Ctim)}
}

func hostMoment(t syscall.Timespec) moment { return moment{int64(t.Sec), uint32(t.Nsec)} }
