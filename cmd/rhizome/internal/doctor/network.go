package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"rhizome/registry/imagefmt"
)

// Interface is a network interface of this machine.
type Interface struct {
	Name string
	// Up says that it was brought up, Carrier that it has a link.
	Up, Carrier bool
	// MAC is lower case with colons, empty where it is no Ethernet.
	MAC string
	MTU int
	// Loopback says that it leads to this machine itself.
	Loopback bool
	Addrs    []netip.Prefix
}

// address is the interface's own address in front of its network.
func (i Interface) address(a netip.Addr) (netip.Prefix, bool) {
	at := slices.IndexFunc(i.Addrs, func(p netip.Prefix) bool { return p.Addr() == a })
	if at < 0 {
		return netip.Prefix{}, false
	}
	return i.Addrs[at], true
}

func (i Interface) addresses() string {
	if len(i.Addrs) == 0 {
		return "no address"
	}
	var all []string
	for _, p := range i.Addrs {
		all = append(all, p.String())
	}
	return strings.Join(all, ", ")
}

// Network is the nodes' network as the image wants it, and this machine's part
// in it.
type Network struct {
	Want imagefmt.Network
	// Asked is the interface that was named, or empty.
	Asked      string
	Interfaces []Interface
}

// Choose is the interface that was named, or else the one that has the server's
// address.
func (n Network) Choose() (Interface, bool) {
	at := slices.IndexFunc(n.Interfaces, func(i Interface) bool {
		if n.Asked != "" {
			return i.Name == n.Asked
		}
		_, has := i.address(n.Want.Server)
		return has
	})
	if at < 0 {
		return Interface{}, false
	}
	return n.Interfaces[at], true
}

// Check judges the interface that serve would answer on.
func (n Network) Check() []Finding {
	f := findings{what: AboutNetwork}
	in, found := n.Choose()
	if !found {
		n.none(&f)
		return f.all
	}
	n.link(&f, in)
	n.addressed(&f, in)
	n.others(&f, in)
	return f.all
}

func (n Network) names() string {
	var all []string
	for _, i := range n.Interfaces {
		all = append(all, i.Name)
	}
	return strings.Join(all, ", ")
}

func (n Network) none(f *findings) {
	if n.Asked != "" {
		f.fail("name one of "+n.names(), "there is no interface %q here", n.Asked)
		return
	}
	for _, i := range n.Interfaces {
		for _, p := range i.Addrs {
			if n.Want.Subnet.Contains(p.Addr()) {
				f.fail(fmt.Sprintf("%s, or change network.server in the recipe", n.give(i.Name)),
					"no interface has the server's address %s; %s has %s in the nodes' subnet %s", n.Want.Server, i.Name, p, n.Want.Subnet)
				return
			}
		}
	}
	f.fail(fmt.Sprintf("give it to the interface that the nodes are on: %s; there are %s", n.give("IF"), n.names()), "no interface has the server's address %s", n.Want.Server)
}

// give is the command that gives an interface the server's address.
func (n Network) give(name string) string {
	return fmt.Sprintf("ip addr add %s/%d dev %s", n.Want.Server, n.bits(), name)
}

// bits is the prefix length of the server's own network, as far as it is known.
func (n Network) bits() int {
	if n.Want.Subnet.Contains(n.Want.Server) {
		return n.Want.Subnet.Bits()
	}
	return 24
}

func (n Network) link(f *findings, in Interface) {
	switch {
	case !in.Up:
		f.fail("ip link set "+in.Name+" up", "the interface %s is down", in.Name)
	case !in.Carrier:
		f.fail("look at the cable, the switch's port, and the ports of a bridge", "the interface %s is up and has no carrier: nothing that is sent leaves it", in.Name)
	}
	if in.MAC == "" {
		f.fail("name the Ethernet interface that the nodes are on with --interface", "the interface %s is no Ethernet: nodes cannot ask for an address there", in.Name)
	}
	if n.Want.MTU > in.MTU && in.MTU > 0 {
		f.fail(fmt.Sprintf("ip link set %s mtu %d, or change network.mtu in the recipe", in.Name, n.Want.MTU),
			"nodes are told an MTU of %d, and the interface %s has %d: large packets are lost in one direction", n.Want.MTU, in.Name, in.MTU)
	}
}

func (n Network) addressed(f *findings, in Interface) {
	p, has := in.address(n.Want.Server)
	switch {
	case !has:
		f.fail(n.give(in.Name)+", or change network.server in the recipe", "the interface %s does not have the server's address %s but %s", in.Name, n.Want.Server, in.addresses())
	case n.Want.Subnet.Contains(p.Addr()) && p.Bits() != n.Want.Subnet.Bits():
		f.fail(fmt.Sprintf("ip addr del %s dev %s && %s, or change network.subnet in the recipe", p, in.Name, n.give(in.Name)),
			"the interface %s has %s, and nodes are told %s: the two do not agree on who is near", in.Name, p, n.Want.Subnet)
	}
}

// others looks for a second way into the nodes' network: answers may leave by it.
func (n Network) others(f *findings, in Interface) {
	for _, i := range n.Interfaces {
		if i.Name == in.Name {
			continue
		}
		for _, p := range i.Addrs {
			if p.Addr().Is4() && n.Want.Subnet.IsValid() && p.Masked().Overlaps(n.Want.Subnet) {
				f.warn("give one of them another network, or remove the address: ip addr del "+p.String()+" dev "+i.Name,
					"the interface %s has %s, which overlaps the nodes' network %s on %s: answers to nodes may leave by it", i.Name, p, n.Want.Subnet, in.Name)
			}
		}
	}
}

// Seen is what was heard or read of the wire: a sentence each.
type Seen struct {
	Text string
	// MAC is whose it is, where it is a card's.
	MAC string
	// Node is whose address it is, if a node's.
	Node string
}

// Wire judges what was seen of other machines. A card of this machine that
// answers is told apart: both interfaces are on one wire then.
func Wire(all []Seen, own []Interface) []Finding {
	var out []Finding
	for _, s := range all {
		f := findings{what: AboutNetwork, node: s.Node}
		at := slices.IndexFunc(own, func(i Interface) bool { return i.MAC != "" && i.MAC == s.MAC })
		if at >= 0 {
			f.warn("connect it elsewhere, or set net.ipv4.conf.all.arp_ignore=1", "this machine's own interface %s answers on the nodes' network as well: %s", own[at].Name, s.Text)
		} else {
			f.fail("", "%s", s.Text)
		}
		out = append(out, f.all...)
	}
	return out
}
