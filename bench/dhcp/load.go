//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"
)

// patience is when a client asks once more.
const patience = time.Second

// client is one machine that boots.
type client struct {
	node  int
	xid   dhcpv4.TransactionID
	since time.Time // of the DISCOVER
	sent  time.Time // of the last message
	last  []byte
}

// loader drives a window of clients over one packet socket.
type loader struct {
	fd      int
	nodes   int
	next    int
	active  map[dhcpv4.TransactionID]*client
	took    []time.Duration
	resends int
}

func load(ifname string, nodes, window int, length time.Duration) error {
	fd, err := open(ifname)
	if err != nil {
		return err
	}
	l := &loader{fd: fd, nodes: nodes, active: map[dhcpv4.TransactionID]*client{}}
	start := time.Now()
	for range window {
		if err := l.discover(); err != nil {
			return err
		}
	}
	if err := l.loop(start.Add(length)); err != nil {
		return err
	}
	l.report(time.Since(start))
	return nil
}

// open makes a socket that sees all frames of an interface.
func open(ifname string) (int, error) {
	ifi, err := net.InterfaceByName(ifname)
	if err != nil {
		return 0, err
	}
	ip := binary.NativeEndian.Uint16([]byte{8, 0})
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(ip))
	if err != nil {
		return 0, os.NewSyscallError("socket AF_PACKET", err)
	}
	// All machines are behind one card.
	m := unix.PacketMreq{Ifindex: int32(ifi.Index), Type: unix.PACKET_MR_PROMISC}
	if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &m); err != nil {
		return 0, os.NewSyscallError("setsockopt PACKET_ADD_MEMBERSHIP", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20) // as large as allowed
	wait := unix.NsecToTimeval(int64(20 * time.Millisecond))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return 0, os.NewSyscallError("setsockopt SO_RCVTIMEO", err)
	}
	return fd, os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: ip, Ifindex: ifi.Index}))
}

func (l *loader) loop(end time.Time) error {
	buf := make([]byte, 2048)
	for time.Now().Before(end) {
		n, _, err := unix.Recvfrom(l.fd, buf, 0)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			err = l.resend()
		case err == nil:
			err = l.received(buf[:n])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *loader) resend() error {
	for _, c := range l.active {
		if time.Since(c.sent) > patience {
			l.resends++
			if err := l.send(c, c.last); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *loader) discover() error {
	c := &client{node: l.next % l.nodes, since: time.Now()}
	l.next++
	binary.BigEndian.PutUint32(c.xid[:], uint32(l.next))
	l.active[c.xid] = c
	return l.message(c, dhcpv4.MessageTypeDiscover)
}

func (l *loader) message(c *client, t dhcpv4.MessageType, options ...dhcpv4.Modifier) error {
	m, err := dhcpv4.New(append(options, dhcpv4.WithTransactionID(c.xid), dhcpv4.WithHwAddr(mac(c.node)), dhcpv4.WithMessageType(t),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00000:UNDI:002001")),
		dhcpv4.WithGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 0}),
		dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionBootfileName, dhcpv4.OptionTFTPServerName))...)
	if err != nil {
		return err
	}
	return l.send(c, frame(mac(c.node), m.ToBytes()))
}

func (l *loader) send(c *client, p []byte) error {
	c.last, c.sent = p, time.Now()
	_, err := unix.Write(l.fd, p)
	if errors.Is(err, unix.ENOBUFS) {
		return nil // it is sent again
	}
	return err
}

// frame lays headers before a message; a UDP checksum of 0 is none.
func frame(from net.HardwareAddr, payload []byte) []byte {
	b := append([]byte{255, 255, 255, 255, 255, 255}, from...)
	b = append(b, 8, 0, 0x45, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(28+len(payload)))
	b = append(b, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255)
	var sum uint32
	for i := 14; i < 34; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(b[24:], ^uint16(sum+sum>>16))
	b = append(b, 0, 68, 0, 67)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	return append(append(b, 0, 0), payload...)
}

func (l *loader) received(p []byte) error {
	const headers = 14 + 20 + 8
	if len(p) < headers || p[23] != 17 || binary.BigEndian.Uint16(p[36:]) != 68 {
		return nil
	}
	m, err := dhcpv4.FromBytes(p[headers:])
	if err != nil {
		return fmt.Errorf("a reply that cannot be read: %w", err)
	}
	c, ok := l.active[m.TransactionID]
	if !ok {
		return nil
	}
	return l.answered(c, m)
}

func (l *loader) answered(c *client, m *dhcpv4.DHCPv4) error {
	if got, want := m.YourIPAddr.String(), address(c.node).String(); got != want {
		return fmt.Errorf("node %d was given %s, not %s", c.node, got, want)
	}
	switch m.MessageType() {
	case dhcpv4.MessageTypeOffer:
		return l.message(c, dhcpv4.MessageTypeRequest, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(m.YourIPAddr)),
			dhcpv4.WithOption(dhcpv4.OptServerIdentifier(m.ServerIdentifier())))
	case dhcpv4.MessageTypeAck:
		l.took = append(l.took, time.Since(c.since))
		delete(l.active, c.xid)
		return l.discover()
	}
	return fmt.Errorf("node %d got %s", c.node, m.MessageType())
}

func (l *loader) report(d time.Duration) {
	if len(l.took) == 0 {
		fmt.Println("exchanges 0")
		return
	}
	slices.Sort(l.took)
	at := func(q float64) time.Duration { return l.took[int(q*float64(len(l.took)-1))] }
	fmt.Printf("exchanges %d persecond %.0f p50us %d p99us %d resends %d\n",
		len(l.took), float64(len(l.took))/d.Seconds(), at(0.5).Microseconds(), at(0.99).Microseconds(), l.resends)
}
