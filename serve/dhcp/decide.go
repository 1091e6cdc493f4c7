package dhcp

import (
	"fmt"
	"net/netip"
	"strconv"

	"rhizome/serve/boot"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Ports of UDP (RFC 951, PXE specification 2.1 section 2.4).
const (
	serverPort = 67
	clientPort = 68
	pxePort    = 4011
)

// Arrival says where a request came in.
type Arrival struct {
	From netip.AddrPort
	// Port is the local port: 67, or 4011 of proxy mode.
	Port uint16
}

// Decision is the answer to one request: a reply, or silence and its reason.
type Decision struct {
	// Reply is nil for silence.
	Reply *Reply
	// Reason says why there is silence or a refusal, or what is amiss with a
	// reply that is sent all the same.
	Reason string
	// Events are what to tell, in order, without their time.
	Events []boot.Event
}

// Decide answers a request. m is the machine of the request's MAC; known is
// false if there is none. Equal arguments give equal decisions, so that two
// servers with the same images answer alike.
func Decide(r *Request, at Arrival, m Machine, known bool, c Config) Decision {
	q := question{Request: r, at: at, m: m, c: c}
	switch {
	case !known && string(r.option(optClass)) == probeClass:
		return Decision{Reason: "another server of rhizome looks for DHCP servers"}
	case !known:
		return q.silent(boot.DHCPUnknown, "no node of the images that are served has this MAC")
	case !c.server(m).Is4() || !m.Node.Address.Is4():
		return q.silent(boot.DHCPBad, "the image of cluster "+strconv.Quote(m.Cluster.Name)+" names no IPv4 address for the server or the node")
	case c.mode() == ModeProxy:
		return q.proxy()
	case r.Bootp:
		return q.bootp()
	}
	return q.byType()
}

// question is a request with all that an answer depends on.
type question struct {
	*Request
	at Arrival
	m  Machine
	c  Config
}

func (q question) byType() Decision {
	switch t := q.MessageType(); t {
	case dhcpv4.MessageTypeDiscover:
		return q.grant(boot.DHCPDiscover, boot.DHCPOffer, dhcpv4.MessageTypeOffer)
	case dhcpv4.MessageTypeRequest:
		return q.request()
	case dhcpv4.MessageTypeInform:
		return q.inform()
	case dhcpv4.MessageTypeDecline:
		return q.decline()
	case dhcpv4.MessageTypeRelease:
		return q.passed(boot.DHCPRelease, "")
	default:
		return q.silent(boot.DHCPBad, fmt.Sprintf("message type %d is no request of a client", t))
	}
}

// request is a DHCPREQUEST in any of a client's states (RFC 2131, section
// 4.3.2). Leases are static: what counts is whether the address is the node's.
func (q question) request() Decision {
	id, asked := q.addrOption(optServerID), q.addrOption(optRequested)
	switch {
	case id.IsValid() && id != q.serverID(): // SELECTING, and not us
		return q.elsewhere(id)
	case !asked.IsValid() && !q.ciaddr().IsUnspecified(): // RENEWING, REBINDING
		asked = q.ciaddr()
	case !asked.IsValid():
		return q.silent(boot.DHCPBad, "a request names no address, neither in option 50 nor in ciaddr (RFC 2131, section 4.3.2)")
	}
	if asked != q.m.Node.Address {
		return q.nak(asked)
	}
	return q.grant(boot.DHCPRequest, boot.DHCPAck, dhcpv4.MessageTypeAck)
}

// elsewhere is a client that took another server's offer.
func (q question) elsewhere(id netip.Addr) Decision {
	if id == q.c.server(q.m) {
		return q.passed(boot.DHCPRequest, "the node took the offer of server "+id.String())
	}
	d := q.silent(boot.DHCPForeign, fmt.Sprintf("the node took the offer of another DHCP server, %s: stop that server, or run with --dhcp proxy", id))
	d.Events[0].Detail = id.String()
	return d
}

func (q question) grant(seen, sent boot.Kind, t dhcpv4.MessageType) Decision {
	reply, why := q.full(t)
	reply.Options = append(reply.Options, q.tail()...)
	return q.answered(reply, why, seen, sent)
}

// bootp answers RFC 951: an address for good, and no lease.
func (q question) bootp() Decision {
	reply, why := q.full(dhcpv4.MessageTypeNone)
	reply.Options = append(reply.Options, q.tail()...)
	return q.answered(reply, why, boot.DHCPBootp)
}

// full is a reply with an address, all of its options but the echoed ones.
func (q question) full(t dhcpv4.MessageType) (*Reply, string) {
	reply := q.reply(t)
	reply.Your, reply.Next = q.m.Node.Address, q.c.server(q.m)
	var why string
	reply.File, why = bootFile(q.Client, q.m, q.c)
	l := list{}
	l.header(q.Request, t, q.serverID())
	if !q.Bootp {
		l.leaseTimes(q.Request, q.c.lease(q.m, q.leaseAsked()))
	}
	q.body(&l, reply.File)
	reply.Options = l
	reply.To = q.destination(reply)
	return reply, why
}

func (q question) body(l *list, file string) {
	if q.Client.boots() {
		l.boot(q.Request, file, q.m, q.c)
		l.special(q.Request, q.m, q.c)
		l.network(q.Request, q.m, q.c)
		return
	}
	l.network(q.Request, q.m, q.c)
	l.special(q.Request, q.m, q.c)
}

func (q question) tail() []Option {
	l := list{}
	l.echo(q.Request)
	return l
}

// inform gives parameters to a client that has an address (RFC 2131, section
// 4.3.5): no address and no lease. Only addresses of the subnet are answered,
// or a forged ciaddr would send replies anywhere.
func (q question) inform() Decision {
	if !q.m.Cluster.Network.Subnet.Contains(q.ciaddr()) {
		return q.silent(boot.DHCPInform, "its address "+q.ciaddr().String()+" is outside the cluster's subnet")
	}
	reply, why := q.full(dhcpv4.MessageTypeAck)
	reply.Your = netip.IPv4Unspecified()
	reply.Options = without(reply.Options, optLease, optRenew, optRebind)
	reply.Options = append(reply.Options, q.tail()...)
	return q.answered(reply, why, boot.DHCPInform)
}

func without(options []Option, codes ...uint8) []Option {
	var out []Option
	for _, o := range options {
		drop := false
		for _, c := range codes {
			drop = drop || o.Code == c
		}
		if !drop {
			out = append(out, o)
		}
	}
	return out
}

// decline: the client found its address in use (RFC 2131, section 4.3.3).
func (q question) decline() Decision {
	if id := q.addrOption(optServerID); id.IsValid() && id != q.serverID() {
		return q.passed(boot.DHCPDecline, "it declines an address of server "+id.String())
	}
	d := q.passed(boot.DHCPDecline, "")
	e := q.event(boot.DHCPConflict)
	e.Error = fmt.Sprintf("the node declined its address %s: another machine uses it; give that machine another one", q.m.Node.Address)
	if v := q.option(optMessage); len(v) > 0 {
		e.Detail = printable(string(v))
	}
	d.Events = append(d.Events, e)
	return d
}

// nak refuses an address that is not the node's: it asks anew then. Leases of
// known machines are ours alone to give, so this server is authoritative.
func (q question) nak(asked netip.Addr) Decision {
	why := fmt.Sprintf("the address %s is not the node's: that is %s", asked, q.m.Node.Address)
	reply := q.reply(dhcpv4.MessageTypeNak)
	reply.Client = netip.IPv4Unspecified()
	l := list{}
	l.header(q.Request, dhcpv4.MessageTypeNak, q.serverID())
	l.add(optMessage, []byte(why))
	l.echo(q.Request)
	reply.Options = l
	reply.To = q.destination(reply)
	d := q.answered(reply, why, boot.DHCPRequest, boot.DHCPNak)
	d.Events[1].Error = why
	return d
}

// reply copies what every reply takes from its request (RFC 2131, table 3).
func (q question) reply(t dhcpv4.MessageType) *Reply {
	zero := netip.IPv4Unspecified()
	return &Reply{
		Type: t, XID: q.TransactionID, Flags: q.Flags, MAC: q.ClientHWAddr,
		Your: zero, Next: zero, Client: q.ciaddr(), Relay: q.giaddr(), Limit: q.limit(),
	}
}

func (q question) serverID() netip.Addr {
	if a := q.overridden(); a.IsValid() {
		return a
	}
	return q.c.server(q.m)
}
