package dhcp

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// Ethernet types.
const (
	etherIPv4 = 0x0800
	etherARP  = 0x0806
	etherIPv6 = 0x86dd

	etherLen = 14
	ipLen    = 20
	udpLen   = 8

	protoUDP    = 17
	protoICMPv6 = 58
)

// appendFrame puts an Ethernet, IPv4 and UDP header before a payload that is
// appended by body: a machine without an address answers no ARP, so nobody
// else can address it (RFC 2131, section 4.1).
func appendFrame(b []byte, from net.HardwareAddr, to net.HardwareAddr, src, dst netip.AddrPort, body func([]byte) []byte) []byte {
	start := len(b)
	b = appendEther(b, to, from, etherIPv4)
	b = append(b, make([]byte, ipLen+udpLen)...)
	b = body(b)
	packet := b[start+etherLen:]
	putUDP(packet[ipLen:], src, dst)
	putIPv4(packet, src.Addr(), dst.Addr())
	return b
}

func appendEther(b []byte, to, from net.HardwareAddr, kind uint16) []byte {
	b = appendField(b, string(to), 6)
	b = appendField(b, string(from), 6)
	return binary.BigEndian.AppendUint16(b, kind)
}

// putIPv4 fills in a header of RFC 791. Packets are never fragmented, so that
// their identification may be zero (RFC 6864, section 4.1).
func putIPv4(p []byte, src, dst netip.Addr) {
	p[0] = 4<<4 | ipLen/4
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	p[6] = 0x40 // do not fragment
	p[8] = 64   // time to live
	p[9] = protoUDP
	copy(p[12:16], bytes4(src))
	copy(p[16:20], bytes4(dst))
	binary.BigEndian.PutUint16(p[10:], ^fold(sum(p[:ipLen])))
}

// putUDP fills in a header of RFC 768 with its checksum over the pseudo header.
func putUDP(p []byte, src, dst netip.AddrPort) {
	binary.BigEndian.PutUint16(p[0:], src.Port())
	binary.BigEndian.PutUint16(p[2:], dst.Port())
	binary.BigEndian.PutUint16(p[4:], uint16(len(p)))
	total := sum(bytes4(src.Addr())) + sum(bytes4(dst.Addr())) + protoUDP + uint32(len(p)) + sum(p)
	check := ^fold(total)
	if check == 0 {
		check = 0xffff // 0 would say that there is none
	}
	binary.BigEndian.PutUint16(p[6:], check)
}

// sum adds 16-bit words as RFC 1071 does; at most 64 KiB do not overflow it.
func sum(p []byte) uint32 {
	var s uint32
	for ; len(p) >= 2; p = p[2:] {
		s += uint32(p[0])<<8 | uint32(p[1])
	}
	if len(p) == 1 {
		s += uint32(p[0]) << 8
	}
	return s
}

func fold(s uint32) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// udpPayload takes a frame apart: the payload of an unfragmented UDP datagram
// over IPv4 to a port.
func udpPayload(frame []byte, port uint16) (payload []byte, ok bool) {
	if len(frame) < etherLen+ipLen || binary.BigEndian.Uint16(frame[12:]) != etherIPv4 {
		return nil, false
	}
	p := frame[etherLen:]
	head, size := int(p[0]&15)*4, int(binary.BigEndian.Uint16(p[2:]))
	if p[0]>>4 != 4 || head < ipLen || size > len(p) || size < head+udpLen || p[9] != protoUDP {
		return nil, false
	}
	if binary.BigEndian.Uint16(p[6:])&0x3fff != 0 { // more fragments, or an offset
		return nil, false
	}
	u := p[head:size]
	n := int(binary.BigEndian.Uint16(u[4:]))
	if binary.BigEndian.Uint16(u[2:]) != port || n < udpLen || n > len(u) {
		return nil, false
	}
	return u[udpLen:n], true
}
