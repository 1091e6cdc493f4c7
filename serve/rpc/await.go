package rpc

import (
	"net"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Go's own poller wakes a second thread with each message that comes alone, to
// look for more work; on an idle machine that takes more CPU than the answer.
// Calls that come one at a time, which is how a machine boots, are waited for
// in poll(2) instead, on a thread that does nothing else meanwhile.

// await waits so for a socket's next datagram.
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

// lingerFor is how long a connection's next call is waited for on a thread of its
// own: longer than a client that has its answer needs to ask on, and shorter than
// Go's scheduler would take such a wait for a hindrance.
const lingerFor = 2 * time.Millisecond

// lingers are the connections that wait so at the same time. One processor is left
// to everything else: while none is free, nobody looks at the other connections.
func lingers() chan struct{} { return make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1)) }

// linger waits a moment for more on a connection whose calls come one at a time.
func (c *conn) linger() {
	if c.raw == nil || !c.alone.usual() {
		return
	}
	select {
	case c.s.lingers <- struct{}{}:
	default:
		return
	}
	_ = c.raw.Control(func(fd uintptr) {
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(lingerFor.Milliseconds()))
	})
	<-c.s.lingers
}

// rawConn is the system's side of a connection; nil where it has none.
func rawConn(nc net.Conn) syscall.RawConn {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}
