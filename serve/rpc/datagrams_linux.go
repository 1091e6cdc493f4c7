package rpc

import (
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// directly makes a socket's datagrams be read and sent without telling Go's
// scheduler of each call; direct.go says why. p, which does the same with telling,
// is kept for what is no socket of the system's.
func directly(pc net.PacketConn, p packetConn) packetConn {
	sc, ok := pc.(syscall.Conn)
	if !ok {
		return p
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return p
	}
	d := &datagrams{raw: raw}
	d.in.try, d.out.try = d.in.receive, d.out.send
	return d
}

// datagrams reads and writes batches by recvmmsg(2) and sendmmsg(2). One goroutine
// reads; any number may write.
type datagrams struct {
	raw syscall.RawConn
	in  batch
	mu  sync.Mutex // of out
	out batch
}

// batch is what one call to the system is handed, in the kernel's own form.
type batch struct {
	heads [udpBatch]mmsghdr
	names [udpBatch]unix.RawSockaddrInet6 // as long as any
	iov   []unix.Iovec
	// count is how many messages of heads there are, n how many went.
	count, n int
	errno    syscall.Errno
	try      func(fd uintptr) bool
}

// mmsghdr is struct mmsghdr of sendmmsg(2).
type mmsghdr struct {
	unix.Msghdr
	len uint32
}

// origin is where a datagram came from, in the kernel's own form beside Go's.
type origin struct {
	net.UDPAddr
	name   unix.RawSockaddrInet6
	length uint32
}

// ReadBatch is packetConn's; flags are none.
func (d *datagrams) ReadBatch(ms []ipv4.Message, _ int) (int, error) {
	b := &d.in
	b.iov = b.iov[:0]
	for i := range ms[:min(len(ms), udpBatch)] {
		b.add(ms[i].Buffers, ms[i].OOB, &b.names[i], unix.SizeofSockaddrInet6)
	}
	if err := b.do(d.raw.Read, "recvmmsg"); err != nil {
		return 0, err
	}
	for i := range ms[:b.n] {
		h := &b.heads[i]
		ms[i].N, ms[i].NN = int(h.len), int(h.Controllen)
		ms[i].Addr = newOrigin(&b.names[i], h.Namelen)
	}
	return b.n, nil
}

// WriteBatch is packetConn's. It sends to where datagrams came from, and to no
// other address.
func (d *datagrams) WriteBatch(ms []ipv4.Message, _ int) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := &d.out
	b.iov = b.iov[:0]
	for i := range ms[:min(len(ms), udpBatch)] {
		to := ms[i].Addr.(*origin)
		b.add(ms[i].Buffers, ms[i].OOB, &to.name, to.length)
	}
	err := b.do(d.raw.Write, "sendmmsg")
	for i := range ms[:b.n] {
		ms[i].N = int(b.heads[i].len)
	}
	return b.n, err
}

// add puts one more message into the batch. The pieces of earlier ones may move:
// do points to them.
func (b *batch) add(bufs [][]byte, control []byte, name *unix.RawSockaddrInet6, length uint32) {
	h := &b.heads[b.count]
	*h = mmsghdr{}
	for _, p := range bufs {
		v := unix.Iovec{Base: unsafe.SliceData(p)}
		v.SetLen(len(p))
		b.iov = append(b.iov, v)
	}
	h.SetIovlen(len(bufs))
	h.Name, h.Namelen = (*byte)(unsafe.Pointer(name)), length
	if len(control) > 0 {
		h.Control = unsafe.SliceData(control)
		h.SetControllen(len(control))
	}
	b.count++
}

// do makes the call, waiting as often as it takes until one message went.
func (b *batch) do(wait func(func(fd uintptr) bool) error, call string) error {
	at := 0
	for i := range b.heads[:b.count] {
		h := &b.heads[i]
		if h.Iovlen > 0 {
			h.Iov = &b.iov[at]
			at += int(h.Iovlen)
		}
	}
	b.n, b.errno = 0, 0
	err := wait(b.try)
	if err == nil && b.errno != 0 {
		err = os.NewSyscallError(call, b.errno)
	}
	b.count = 0
	clear(b.iov) // what lies there may be given back from now on
	return err
}

func (b *batch) receive(fd uintptr) bool { return b.mmsg(unix.SYS_RECVMMSG, fd) }

func (b *batch) send(fd uintptr) bool { return b.mmsg(unix.SYS_SENDMMSG, fd) }

func (b *batch) mmsg(call, fd uintptr) bool {
	for {
		n, _, errno := unix.RawSyscall6(call, fd, uintptr(unsafe.Pointer(&b.heads[0])), uintptr(b.count), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		case 0:
			b.n = int(n)
		}
		b.errno = errno
		return true
	}
}

// newOrigin reads what recvmmsg(2) says of the sender: a sockaddr_in or
// sockaddr_in6, whose port is in network order.
func newOrigin(name *unix.RawSockaddrInet6, length uint32) *origin {
	o := &origin{name: *name, length: length}
	port := (*[2]byte)(unsafe.Pointer(&o.name.Port)) // at the same place in both
	o.Port = int(port[0])<<8 | int(port[1])
	if name.Family == unix.AF_INET {
		o.IP = (*unix.RawSockaddrInet4)(unsafe.Pointer(&o.name)).Addr[:]
	} else {
		o.IP = o.name.Addr[:]
	}
	return o
}
