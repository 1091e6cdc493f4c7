package dhcp

import (
	"encoding/binary"
	"net"
	"net/netip"

	"rhizome/serve/boot"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// probeClass is the class of our own probes, which other servers of ours let
// pass without a word.
const probeClass = "rhizome-probe"

// probe is a DISCOVER in the name of this server's own card, broadcast flag
// set: whichever other DHCP server is on the wire offers something to it.
func probe(mac net.HardwareAddr, xid uint32) []byte {
	b := []byte{byte(dhcpv4.OpcodeBootRequest), 1, 6, 0}
	b = binary.BigEndian.AppendUint32(b, xid)
	b = append(b, 0, 0, broadcastFlag>>8, 0)
	b = append(b, make([]byte, 16)...)
	b = appendField(b, string(mac), 16)
	b = append(b, make([]byte, snameLen+fileLen)...)
	b = append(b, 0x63, 0x82, 0x53, 0x63, optType, 1, byte(dhcpv4.MessageTypeDiscover), optClass, byte(len(probeClass)))
	b = append(append(b, probeClass...), optEnd)
	return append(b, make([]byte, minMessage-len(b))...)
}

func probeFrame(mac net.HardwareAddr, xid uint32) []byte {
	from := netip.AddrPortFrom(netip.IPv4Unspecified(), clientPort)
	to := netip.AddrPortFrom(toAll().Addr(), serverPort)
	return appendFrame(nil, mac, broadcastMAC, from, to, func(b []byte) []byte { return append(b, probe(mac, xid)...) })
}

// foreignServer reads which server answered somebody: one that is not this
// one.
func foreignServer(payload []byte, ours func(netip.Addr) bool) (netip.Addr, bool) {
	m, err := dhcpv4.FromBytes(payload)
	if err != nil || m.OpCode != dhcpv4.OpcodeBootReply {
		return netip.Addr{}, false
	}
	id, ok := netip.AddrFromSlice(m.Options[optServerID])
	return id, ok && id.Is4() && !ours(id)
}

func foreignEvent(id netip.Addr) boot.Event {
	return boot.Event{
		Kind: boot.DHCPForeign, Addr: id, Detail: id.String(),
		Error: "another DHCP server, " + id.String() + ", answers on this interface: nodes may take its offer; stop it there, or run with --dhcp proxy",
	}
}
