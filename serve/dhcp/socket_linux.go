package dhcp

import (
	"context"
	"encoding/binary"
	"net"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// receiveBuffer is in bytes.
const receiveBuffer = 4 << 20

// listenUDP opens a socket that hears one interface alone (socket(7),
// SO_BINDTODEVICE). It sets neither SO_REUSEADDR nor SO_REUSEPORT: two servers
// on one port would each get a part of the requests and nobody would know why.
func listenUDP(ctx context.Context, ifi *net.Interface, port uint16) (datagrams, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var inner error
		err := c.Control(func(fd uintptr) { inner = bindToDevice(int(fd), ifi.Name) })
		if err != nil {
			return err
		}
		return inner
	}}
	c, err := lc.ListenPacket(ctx, "udp4", ":"+strconv.Itoa(int(port)))
	if err != nil {
		return nil, err
	}
	return c.(*net.UDPConn), nil
}

func bindToDevice(fd int, name string) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1); err != nil {
		return os.NewSyscallError("setsockopt SO_BROADCAST", err)
	}
	// A rack that is switched on sends hundreds of requests at one moment. The
	// forced size needs CAP_NET_ADMIN; without it the system's limit holds.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	return os.NewSyscallError("setsockopt SO_BINDTODEVICE", unix.BindToDevice(fd, name))
}

// openFrames opens a packet socket (packet(7)) that reads what t says. It
// outlives the interface going down, but not its being made anew.
func openFrames(ifi *net.Interface, t tap) (frames, error) {
	// Protocol 0 receives nothing: the filter must be there first.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket AF_PACKET", err)
	}
	if err := setUp(fd, ifi, t); err != nil {
		_ = unix.Close(fd) // the first error is the one to report
		return nil, err
	}
	return os.NewFile(uintptr(fd), "packet:"+ifi.Name), nil
}

func setUp(fd int, ifi *net.Interface, t tap) error {
	if err := attach(fd, t.filter()); err != nil {
		return err
	}
	if t == tapSolicitations {
		m := unix.PacketMreq{Ifindex: int32(ifi.Index), Type: unix.PACKET_MR_MULTICAST, Alen: 6}
		copy(m.Address[:], allRouters)
		if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &m); err != nil {
			return os.NewSyscallError("setsockopt PACKET_ADD_MEMBERSHIP", err)
		}
	}
	to := &unix.SockaddrLinklayer{Protocol: networkOrder(t.etherType()), Ifindex: ifi.Index}
	return os.NewSyscallError("bind AF_PACKET", unix.Bind(fd, to))
}

// etherType is what a tap's frames are of; 0 is none.
func (t tap) etherType() uint16 {
	switch t {
	case tapARP:
		return etherARP
	case tapSolicitations:
		return etherIPv6
	case tapReplies:
		return etherIPv4
	}
	return 0
}

func networkOrder(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

func attach(fd int, program []bpf.Instruction) error {
	raw, err := bpf.Assemble(program)
	if err != nil {
		return err
	}
	code := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	return os.NewSyscallError("setsockopt SO_ATTACH_FILTER", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog))
}

// watchNetwork signals when an interface or an address changes (rtnetlink(7)).
func watchNetwork() (changes <-chan struct{}, stop func(), err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, nil, os.NewSyscallError("socket AF_NETLINK", err)
	}
	groups := &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR}
	if err := unix.Bind(fd, groups); err != nil {
		_ = unix.Close(fd) // the first error is the one to report
		return nil, nil, os.NewSyscallError("bind AF_NETLINK", err)
	}
	f := os.NewFile(uintptr(fd), "netlink")
	signal := make(chan struct{}, 1)
	go forward(f, signal)
	return signal, func() { _ = f.Close() }, nil
}
