package rpc

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Reading and writing a socket takes a moment: it is not blocking, and Go's poller
// is who waits. Go tells its scheduler of each call to the system all the same, and
// when calls come one at a time, which is how a machine boots, that wakes the
// scheduler's watchman (sysmon) for every one of them: a third of all changes of
// threads of a boot. So these calls are made without telling.

// directMost is how many bytes may go in one such call: a copy of about 50 us, for
// which nothing else of the program can be stopped.
const directMost = 256 << 10

// direct is a connection that is read and written so. It has one reader and one
// writer at a time.
type direct struct {
	net.Conn
	raw syscall.RawConn
	// in is what is being read into, out what is still to be written, with the
	// outcome of each.
	in  transfer
	out struct {
		transfer
		bufs net.Buffers
		iov  []unix.Iovec
	}
	read, write, writev func(fd uintptr) bool
}

// transfer is one call to the system, repeated until it did something.
type transfer struct {
	p     []byte
	n     int
	errno syscall.Errno
}

// newDirect makes one of a connection; what is not the system's is left to itself.
func newDirect(nc net.Conn) *direct {
	d := &direct{Conn: nc}
	if sc, ok := nc.(syscall.Conn); ok {
		d.raw, _ = sc.SyscallConn()
	}
	// Methods as values, made once: a closure would be allocated for each call.
	d.read, d.write, d.writev = d.tryRead, d.tryWrite, d.tryWritev
	return d
}

// Read is net.Conn's.
func (d *direct) Read(p []byte) (int, error) {
	if d.raw == nil || len(p) == 0 {
		return d.Conn.Read(p)
	}
	d.in = transfer{p: p[:min(len(p), directMost)]}
	err := d.raw.Read(d.read)
	n := d.in.n
	if err = d.in.outcome("read", err); err == nil && n == 0 {
		err = io.EOF
	}
	d.in = transfer{}
	return n, err
}

func (d *direct) tryRead(fd uintptr) bool {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&d.in.p[0])), uintptr(len(d.in.p)))
		switch errno {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		case 0:
			d.in.n = int(n)
		}
		d.in.errno = errno
		return true
	}
}

// Write is net.Conn's.
func (d *direct) Write(p []byte) (int, error) {
	if d.raw == nil || len(p) == 0 || len(p) > directMost {
		return d.Conn.Write(p)
	}
	d.out.transfer = transfer{p: p}
	err := d.raw.Write(d.write)
	n := d.out.n
	err = d.out.outcome("write", err)
	d.out.transfer = transfer{}
	return n, err
}

func (d *direct) tryWrite(fd uintptr) bool {
	o := &d.out.transfer
	for o.n < len(o.p) {
		n, _, errno := unix.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(&o.p[o.n])), uintptr(len(o.p)-o.n))
		if again, done := o.next(n, errno); !again {
			return done
		}
	}
	return true
}

// WriteBuffers writes all of bufs, which it uses up, with as few calls as it takes
// (writev(2)). size is their length together.
func (d *direct) WriteBuffers(bufs *net.Buffers, size int) error {
	if d.raw == nil || size > directMost {
		_, err := bufs.WriteTo(d.Conn)
		return err
	}
	d.out.transfer, d.out.bufs = transfer{}, *bufs
	err := d.raw.Write(d.writev)
	err = d.out.outcome("writev", err)
	d.out.transfer, d.out.bufs = transfer{}, nil
	clear(d.out.iov)
	return err
}

// maxIovec is how many pieces one writev(2) takes (IOV_MAX is 1024).
const maxIovec = 512

func (d *direct) tryWritev(fd uintptr) bool {
	o := &d.out
	for {
		o.bufs = skip(o.bufs, o.n)
		o.n = 0
		if len(o.bufs) == 0 {
			return true
		}
		o.iov = o.iov[:0]
		for _, b := range o.bufs[:min(len(o.bufs), maxIovec)] {
			v := unix.Iovec{Base: unsafe.SliceData(b)}
			v.SetLen(len(b))
			o.iov = append(o.iov, v)
		}
		n, _, errno := unix.RawSyscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&o.iov[0])), uintptr(len(o.iov)))
		if again, done := o.next(n, errno); !again {
			return done
		}
	}
}

// skip takes n bytes, and what is empty, off the front.
func skip(bufs net.Buffers, n int) net.Buffers {
	for len(bufs) > 0 && n >= len(bufs[0]) {
		n -= len(bufs[0])
		bufs = bufs[1:]
	}
	if n > 0 {
		bufs[0] = bufs[0][n:]
	}
	return bufs
}

// next notes what a call wrote. again says that the rest can be tried at once, done
// that there is nothing to wait for.
func (t *transfer) next(n uintptr, errno syscall.Errno) (again, done bool) {
	switch errno {
	case 0:
		t.n += int(n)
		return true, false
	case unix.EINTR:
		return true, false
	case unix.EAGAIN:
		return false, false
	}
	t.errno = errno
	return false, true
}

// outcome is the error of a transfer; err is the poller's.
func (t *transfer) outcome(call string, err error) error {
	if err == nil && t.errno != 0 {
		return &net.OpError{Op: call, Net: "tcp", Err: os.NewSyscallError(call, t.errno)}
	}
	return err
}
