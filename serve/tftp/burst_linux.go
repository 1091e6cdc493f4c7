package tftp

import (
	"encoding/binary"
	"errors"
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Limits of UDP segmentation offload (linux/net/ipv4/udp.c): segments and bytes
// of one call.
const (
	maxSegments     = 64
	maxSegmentBytes = 65000
)

// burst hands equal packets (the last may be shorter) to the kernel in as few
// calls as it takes: udp(7), UDP_SEGMENT. One call for a window of 16 is most of
// what makes a window cheaper than single blocks.
type burst struct {
	conn *net.UDPConn
	// plain is set once the kernel or the card has refused segmentation.
	plain bool
	oob   []byte
}

func newBurst(conn *net.UDPConn, packet int) *burst {
	oob := make([]byte, unix.CmsgSpace(2))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
	h.Level, h.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(oob[unix.CmsgLen(0):], uint16(packet))
	return &burst{conn: conn, oob: oob}
}

func (b *burst) send(packets []byte, packet int) error {
	for len(packets) > 0 {
		n := min(len(packets), packet*min(maxSegments, max(1, maxSegmentBytes/packet)))
		if err := b.sendSome(packets[:n], packet); err != nil {
			return err
		}
		packets = packets[n:]
	}
	return nil
}

func (b *burst) sendSome(packets []byte, packet int) error {
	if b.plain || len(packets) <= packet {
		return writeEach(b.conn, packets, packet)
	}
	_, _, err := b.conn.WriteMsgUDP(packets, b.oob, nil)
	if refusesSegments(err) {
		b.plain = true
		return writeEach(b.conn, packets, packet)
	}
	return err
}

func refusesSegments(err error) bool {
	return errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EIO) ||
		errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.EMSGSIZE) || errors.Is(err, syscall.ENOPROTOOPT)
}
