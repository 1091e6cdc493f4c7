package dhcp

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"

	"rhizome/serve/boot"
)

// arpHead is the fixed part of an ARP packet of Ethernet and IPv4 (RFC 826).
var arpHead = []byte{0, 1, 8, 0, 6, 4}

const arpLen = 28

// arpRequest asks who has an address, in the name of ours. It is no probe of
// RFC 5227, with sender 0.0.0.0: a node that probes its own address at that
// moment would take such a one for a conflict.
func arpRequest(mac net.HardwareAddr, own, whose netip.Addr) []byte {
	b := appendEther(nil, broadcastMAC, mac, etherARP)
	b = append(b, arpHead...)
	b = append(b, 0, 1) // request
	b = append(appendField(b, string(mac), 6), bytes4(own)...)
	return append(append(b, make([]byte, 6)...), bytes4(whose)...)
}

// arpSender reads who says to have which address: the sender of a request or
// an answer, but for a probe's empty one.
func arpSender(frame []byte) (net.HardwareAddr, netip.Addr, bool) {
	if len(frame) < etherLen+arpLen || binary.BigEndian.Uint16(frame[12:]) != etherARP {
		return nil, netip.Addr{}, false
	}
	p := frame[etherLen:]
	a := netip.AddrFrom4([4]byte(p[14:18]))
	if !bytes.Equal(p[:6], arpHead) || a.IsUnspecified() {
		return nil, netip.Addr{}, false
	}
	return net.HardwareAddr(bytes.Clone(p[8:14])), a, true
}

// conflict says whether a machine that has an address is not the node whose
// address it is. own is this server's card, which may answer for others.
func conflict(m Machine, who, own net.HardwareAddr) (boot.Event, bool) {
	if bytes.Equal(who, own) || slices.Contains(m.Node.MACs, who.String()) {
		return boot.Event{}, false
	}
	whose := "of node \"" + m.Node.Name + "\""
	if m.Node.Name == "" {
		whose = "of this server"
	}
	return boot.Event{
		Kind: boot.DHCPConflict, Node: m.Node.Name, Addr: m.Node.Address, Digest: m.Digest, MAC: who.String(),
		Error: "the address " + m.Node.Address.String() + " " + whose + " is used by the machine " + who.String() + ": give that machine another one",
	}, true
}
