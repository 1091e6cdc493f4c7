package volume

import (
	"sync/atomic"
	"syscall"
)

type counter = atomic.Int64

func newQuota(limit int64) *quota {
	if limit <= 0 {
		return nil
	}
	return &quota{limit: limit}
}

// room tells with EDQUOT that grow more bytes are too many.
func (q *quota) room(grow int64) error {
	if q == nil || grow <= 0 || q.used.Load() <= q.limit-grow {
		return nil
	}
	return syscall.EDQUOT
}

// changed notes that something takes so many bytes more, or less.
func (q *quota) changed(by int64) {
	if q != nil {
		q.used.Add(by)
	}
}

// growth is how many bytes more a file may take when n bytes are written at
// off: all of them where it has holes, else those behind its end.
func growth(a *attr, off int64, n int) int64 {
	if a.used < a.size {
		return int64(n)
	}
	return max(0, off+int64(n)-int64(a.size))
}

// within cuts the numbers of a file system down to those of the quota.
func (q *quota) within(s space) space {
	if q == nil {
		return s
	}
	left := uint64(max(0, q.limit-q.used.Load()))
	s.total = min(s.total, uint64(q.limit))
	s.free, s.available = min(s.free, left), min(s.available, left)
	return s
}
