package dhcp

import (
	"net/netip"

	"rhizome/serve/boot"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// useBootFile is PXE's vendor option 6, PXE_DISCOVERY_CONTROL, with bit 3 set:
// fetch the named boot file and look for no other server (RFC 4578 does not
// list it; PXE specification 2.1, table 2-1).
var useBootFile = []byte{6, 1, 8, optEnd}

// proxy answers beside a DHCP server: firmware and iPXE alone, on DISCOVER, and
// again where firmware comes back on port 4011.
func (q question) proxy() Decision {
	switch t := q.MessageType(); {
	case !q.Client.boots():
		// FreeBSD's loader would take a proxy's offer for its lease.
		return q.passed(q.seen(), "proxy mode answers firmware and iPXE alone")
	case q.at.Port == pxePort && (t == dhcpv4.MessageTypeRequest || t == dhcpv4.MessageTypeInform):
		return q.proxyReply(dhcpv4.MessageTypeAck, boot.DHCPRequest, boot.DHCPAck)
	case q.at.Port != pxePort && t == dhcpv4.MessageTypeDiscover:
		return q.proxyReply(dhcpv4.MessageTypeOffer, boot.DHCPDiscover, boot.DHCPOffer)
	}
	return q.passed(q.seen(), "the DHCP server answers this, not its proxy")
}

// seen is the event of a message that is left to others.
func (q question) seen() boot.Kind {
	if q.Bootp {
		return boot.DHCPBootp
	}
	switch q.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		return boot.DHCPDiscover
	case dhcpv4.MessageTypeInform:
		return boot.DHCPInform
	case dhcpv4.MessageTypeDecline:
		return boot.DHCPDecline
	case dhcpv4.MessageTypeRelease:
		return boot.DHCPRelease
	}
	return boot.DHCPRequest
}

func (q question) proxyReply(t dhcpv4.MessageType, seen, sent boot.Kind) Decision {
	reply := q.reply(t)
	reply.Next = q.c.server(q.m)
	var why string
	if reply.File, why = bootFile(q.Client, q.m, q.c); reply.File == "" {
		return q.silent(seen, why)
	}
	l := list{}
	l.header(q.Request, t, q.serverID())
	l.keep(optClass, q.class())
	l.boot(q.Request, reply.File, q.m, q.c)
	if q.skipsDiscovery() {
		l.add(optVendor, useBootFile)
	}
	l.echo(q.Request)
	reply.Options = l
	reply.To = q.proxyDestination(reply)
	return q.answered(reply, why, seen, sent)
}

// class is what makes a proxy's answer one: the family that the client is of.
func (q question) class() []byte {
	if q.Client.Kind == HTTPBoot {
		return []byte("HTTPClient")
	}
	return []byte("PXEClient")
}

// skipsDiscovery: a BIOS ROM and iPXE are told to fetch the file at once. Some
// UEFI firmware ignores an offer that says so, while all of it comes to port
// 4011 where option 43 is missing, and takes the name from there.
func (q question) skipsDiscovery() bool { return q.Client.Kind == IPXE || q.Client.Firmware == BIOS }

// proxyDestination: a client that came to port 4011 has an address and waits at
// the port it sent from.
func (q question) proxyDestination(r *Reply) Destination {
	if q.at.Port != pxePort || !q.giaddr().IsUnspecified() {
		return q.destination(r)
	}
	if a := q.at.From.Addr(); a.Is4() && !a.IsUnspecified() && q.m.Cluster.Network.Subnet.Contains(a) {
		return Destination{Addr: q.at.From}
	}
	return Destination{Addr: netip.AddrPortFrom(toAll().Addr(), clientPort), MAC: broadcastMAC}
}
