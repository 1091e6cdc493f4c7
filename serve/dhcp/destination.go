package dhcp

import (
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

var broadcastMAC = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// destination follows RFC 2131, section 4.1: the relay, else the address that
// the client has, else broadcast if it cannot take unicast yet, else unicast to
// an address that it does not answer ARP for so far.
func (q question) destination(r *Reply) Destination {
	switch {
	case !q.giaddr().IsUnspecified():
		if r.Type == dhcpv4.MessageTypeNak {
			// Table 3: the relay must broadcast a refusal.
			r.Flags |= broadcastFlag
		}
		return Destination{Addr: netip.AddrPortFrom(q.giaddr(), serverPort)}
	case r.Type == dhcpv4.MessageTypeNak:
		return Destination{Addr: toAll(), MAC: q.refusedAt()}
	case q.hasAddress(r):
		return Destination{Addr: netip.AddrPortFrom(q.ciaddr(), clientPort)}
	case q.IsBroadcast() && q.Client.Kind != FreeBSDLoader, !r.Your.IsValid() || r.Your.IsUnspecified():
		return Destination{Addr: toAll(), MAC: broadcastMAC}
	}
	return Destination{Addr: netip.AddrPortFrom(r.Your, clientPort), MAC: q.ClientHWAddr}
}

// refusedAt: refusals are broadcast. But every FreeBSD loader on UEFI numbers
// its requests from 1 and looks at nothing else, so a broadcast to one of them
// would refuse all.
func (q question) refusedAt() net.HardwareAddr {
	if q.Client.Kind == FreeBSDLoader {
		return q.ClientHWAddr
	}
	return broadcastMAC
}

// hasAddress: replies go to ciaddr where it is the address that the node has,
// or one that INFORM was checked for. A forged one gets nothing sent there.
func (q question) hasAddress(r *Reply) bool {
	c := q.ciaddr()
	return !c.IsUnspecified() && (c == r.Your || q.MessageType() == dhcpv4.MessageTypeInform)
}

func toAll() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), clientPort)
}
