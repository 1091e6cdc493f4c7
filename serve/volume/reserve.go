package volume

import (
	"errors"
	"os"
	"sync/atomic"
	"syscall"
)

// reserve is a file that holds some room for the journal: to remove a file on a
// full disk takes a line in the journal first.
type reserve struct {
	path string
	held atomic.Bool
}

// reserveSize is in bytes; a removal takes some five hundred.
const reserveSize = 256 << 10

// hold makes the file, if the disk has the room and it is not there.
func (r *reserve) hold() {
	if r.held.Load() {
		return
	}
	if err := os.WriteFile(r.path, make([]byte, reserveSize), 0o600); err != nil {
		os.Remove(r.path)
		return
	}
	r.held.Store(true)
}

// give gives the room up for one who needs it to free more; it tells whether
// there was any, and err is that the disk is full.
func (r *reserve) give(err error) bool {
	full := errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
	return full && r.held.CompareAndSwap(true, false) && os.Remove(r.path) == nil
}
