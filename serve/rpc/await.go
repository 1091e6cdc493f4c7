package rpc

import (
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// await waits for a socket's next datagram in poll(2), on a thread that does
// nothing else meanwhile. Go's own poller wakes a second thread with each
// datagram that comes alone, to look for more work, and on an idle machine that
// takes as much CPU as the answer.
type await struct {
	raw syscall.RawConn
	// wake and end are a pipe; closing end ends every wait for good.
	wake, end *os.File
}

// newAwait returns nil where pc is no socket of the system's, or where there are
// no descriptors left: reading waits by itself then.
func newAwait(pc net.PacketConn) *await {
	sc, ok := pc.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	wake, end, err := os.Pipe()
	if err != nil {
		return nil
	}
	return &await{raw: raw, wake: wake, end: end}
}

// next returns when there is something to read, or at once after stop. What goes
// wrong in it, reading meets again.
func (a *await) next() {
	if a == nil {
		return
	}
	_ = a.raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(a.wake.Fd()), Events: unix.POLLIN}}
		_, _ = unix.Poll(fds, -1)
	})
}

// stop ends the waits. The socket can be closed after it, not before: closing
// waits for whoever waits on it.
func (a *await) stop() {
	if a != nil {
		a.end.Close()
	}
}

// close gives the pipe back; nobody waits any more.
func (a *await) close() {
	if a != nil {
		a.end.Close()
		a.wake.Close()
	}
}
