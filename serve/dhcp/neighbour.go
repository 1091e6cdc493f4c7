package dhcp

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// ICMPv6 of neighbour discovery (RFC 4861, sections 4.1 and 4.2).
const (
	routerSolicitation  = 133
	routerAdvertisement = 134

	ip6Len   = 40
	hopLimit = 255
)

// allRouters is the Ethernet address of ff02::2, where solicitations go.
var allRouters = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 2}

// solicitation reads who solicits routers: its MAC and its IPv6 address. iPXE
// does, and waits some sixteen seconds for an answer before it boots by IPv4.
func solicitation(frame []byte) (net.HardwareAddr, netip.Addr, bool) {
	if len(frame) < etherLen+ip6Len+8 || binary.BigEndian.Uint16(frame[12:]) != etherIPv6 {
		return nil, netip.Addr{}, false
	}
	p := frame[etherLen:]
	size := int(binary.BigEndian.Uint16(p[4:]))
	if p[0]>>4 != 6 || p[6] != protoICMPv6 || p[7] != hopLimit || size < 8 || size > len(p)-ip6Len {
		return nil, netip.Addr{}, false
	}
	icmp, src := p[ip6Len:ip6Len+size], netip.AddrFrom16([16]byte(p[8:24]))
	if icmp[0] != routerSolicitation || icmp[1] != 0 || !src.IsLinkLocalUnicast() && !src.IsUnspecified() {
		return nil, netip.Addr{}, false
	}
	if checksum6(p[8:24], p[24:40], icmp) != 0 {
		return nil, netip.Addr{}, false
	}
	mac := make(net.HardwareAddr, 6)
	copy(mac, frame[6:12])
	return mac, src, true
}

// advertisement answers a solicitation: no prefix, no DHCPv6, and a lifetime of
// 0, which says that this is no router. So nobody's routes change, and whoever
// waits for IPv6 learns that there is none. It goes to one machine alone.
func advertisement(own, to net.HardwareAddr, dst netip.Addr) []byte {
	if dst.IsUnspecified() {
		dst = netip.IPv6LinkLocalAllNodes()
	}
	src := linkLocal(own)
	b := appendEther(nil, to, own, etherIPv6)
	const size = 16 + 8
	b = append(b, 6<<4, 0, 0, 0, 0, size, protoICMPv6, hopLimit)
	b = append(append(b, src[:]...), dst.AsSlice()...)
	icmp := make([]byte, size)
	icmp[0] = routerAdvertisement
	icmp[16], icmp[17] = 1, 1 // source link-layer address
	copy(icmp[18:], own)
	binary.BigEndian.PutUint16(icmp[2:], checksum6(src[:], dst.AsSlice(), icmp))
	return append(b, icmp...)
}

// checksum6 is ICMPv6's, over the pseudo header of RFC 8200, section 8.1. Over
// a message that holds its checksum it is 0.
func checksum6(src, dst, icmp []byte) uint16 {
	return ^fold(sum(src) + sum(dst) + uint32(len(icmp)) + protoICMPv6 + sum(icmp))
}

// linkLocal makes the address of RFC 4291, appendix A, from a MAC: the host may
// have IPv6 switched off.
func linkLocal(mac net.HardwareAddr) [16]byte {
	var a [16]byte
	a[0], a[1] = 0xfe, 0x80
	copy(a[8:11], mac)
	a[8] ^= 2
	a[11], a[12] = 0xff, 0xfe
	copy(a[13:], mac[3:])
	return a
}
