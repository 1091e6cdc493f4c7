package dhcp

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// This file is compiled and vetted, and was never run: there is no FreeBSD host
// where this is tested. What it serves, the decisions and the frames, is the
// same everywhere and is tested.

// udpSocket hears all interfaces, since FreeBSD binds none, and leaves out what
// came in by another one (ip(4), IP_RECVIF).
type udpSocket struct {
	*net.UDPConn
	in    *ipv4.PacketConn
	index int
}

// listenUDP sets neither SO_REUSEADDR nor SO_REUSEPORT: two servers on one port
// would each get a part of the requests and nobody would know why.
func listenUDP(ctx context.Context, ifi *net.Interface, port uint16) (datagrams, error) {
	var lc net.ListenConfig
	c, err := lc.ListenPacket(ctx, "udp4", ":"+strconv.Itoa(int(port)))
	if err != nil {
		return nil, err
	}
	s := &udpSocket{UDPConn: c.(*net.UDPConn), in: ipv4.NewPacketConn(c), index: ifi.Index}
	if err := s.in.SetControlMessage(ipv4.FlagInterface, true); err != nil {
		_ = c.Close() // the first error is the one to report
		return nil, fmt.Errorf("asking for the interface of each datagram: %w", err)
	}
	return s, nil
}

func (s *udpSocket) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	for {
		n, cm, from, err := s.in.ReadFrom(b)
		if err != nil {
			return 0, netip.AddrPort{}, err
		}
		if cm != nil && cm.IfIndex == s.index {
			a := from.(*net.UDPAddr).AddrPort()
			return n, netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), nil
		}
	}
}

// bpfDevice is a bpf(4) descriptor. One read gives several frames, each behind
// a header of its own.
type bpfDevice struct {
	f    *os.File
	buf  []byte
	left []byte
}

func openFrames(ifi *net.Interface, t tap) (frames, error) {
	fd, err := unix.Open("/dev/bpf", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/dev/bpf", Err: err}
	}
	size, err := setUpBPF(fd, ifi, t)
	if err != nil {
		_ = unix.Close(fd) // the first error is the one to report
		return nil, err
	}
	return &bpfDevice{f: os.NewFile(uintptr(fd), "/dev/bpf"), buf: make([]byte, size)}, nil
}

// setUpBPF returns the size in bytes that every read must have.
func setUpBPF(fd int, ifi *net.Interface, t tap) (size uint32, err error) {
	var req struct {
		name [unix.IFNAMSIZ]byte
		_    [16]byte // the union of struct ifreq (if(4))
	}
	copy(req.name[:unix.IFNAMSIZ-1], ifi.Name)
	raw, err := bpf.Assemble(t.filter())
	if err != nil {
		return 0, err
	}
	code := make([]unix.BpfInsn, len(raw))
	for i, r := range raw {
		code[i] = unix.BpfInsn{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	prog := unix.BpfProgram{Len: uint32(len(code)), Insns: &code[0]}
	one, zero := uint32(1), uint32(0)
	for _, c := range []struct {
		name string
		req  uintptr
		arg  unsafe.Pointer
	}{
		{"BIOCSETF", unix.BIOCSETF, unsafe.Pointer(&prog)},
		{"BIOCSETIF", unix.BIOCSETIF, unsafe.Pointer(&req)},
		{"BIOCIMMEDIATE", unix.BIOCIMMEDIATE, unsafe.Pointer(&one)},
		{"BIOCSHDRCMPLT", unix.BIOCSHDRCMPLT, unsafe.Pointer(&one)},
		{"BIOCSSEESENT", unix.BIOCSSEESENT, unsafe.Pointer(&zero)},
		{"BIOCGBLEN", unix.BIOCGBLEN, unsafe.Pointer(&size)},
	} {
		if err := ioctl(fd, c.req, c.arg); err != nil {
			return 0, fmt.Errorf("bpf(4), %s on %q: %w", c.name, ifi.Name, err)
		}
	}
	return size, nil
}

func ioctl(fd int, req uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

func (d *bpfDevice) Write(p []byte) (int, error)       { return d.f.Write(p) }
func (d *bpfDevice) Close() error                      { return d.f.Close() }
func (d *bpfDevice) SetReadDeadline(t time.Time) error { return d.f.SetReadDeadline(t) }

func (d *bpfDevice) Read(p []byte) (int, error) {
	if len(d.left) == 0 {
		n, err := d.f.Read(d.buf)
		if err != nil {
			return 0, err
		}
		d.left = d.buf[:n]
	}
	frame, rest := splitBPF(d.left)
	d.left = rest
	return copy(p, frame), nil
}

// splitBPF takes the first frame off what bpf(4) gave: struct bpf_hdr tells its
// own length and the frame's, and the next header is aligned to a long.
func splitBPF(b []byte) (frame, rest []byte) {
	const caplen, hdrlen = 16, 24 // behind a struct timeval of 64 bits
	if len(b) < hdrlen+2 {
		return nil, nil
	}
	size, head := int(binary.NativeEndian.Uint32(b[caplen:])), int(binary.NativeEndian.Uint16(b[hdrlen:]))
	end := head + size
	if size > len(b) || end > len(b) {
		return nil, nil
	}
	const align = int(unsafe.Sizeof(uintptr(0)))
	return b[head:end], b[min(len(b), (end+align-1)/align*align):]
}

// watchNetwork signals when an interface or an address changes (route(4)).
func watchNetwork() (changes <-chan struct{}, stop func(), err error) {
	fd, err := unix.Socket(unix.AF_ROUTE, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socket AF_ROUTE", err)
	}
	f := os.NewFile(uintptr(fd), "route")
	signal := make(chan struct{}, 1)
	go forward(f, signal)
	return signal, func() { _ = f.Close() }, nil
}
