package doctor

import (
	"net/netip"
	"slices"

	"rhizome/registry/imagefmt"
)

// Claim is a node of a cluster, with what is its own alone.
type Claim struct {
	Cluster string
	Node    imagefmt.Node
}

// Identities judges the addresses of nodes, against their network and against
// nodes of other clusters of this store.
func Identities(w imagefmt.Network, nodes []imagefmt.Node, others []Claim) (all []Finding) {
	macs, addrs := claimed(others)
	for _, n := range nodes {
		f := findings{what: AboutImage, node: n.Name}
		place(&f, w, n)
		for _, mac := range n.MACs {
			if c, taken := macs[mac]; taken {
				f.warn("serve one of the two clusters alone, or take the card out of one recipe", "the MAC %s is node %q's of the cluster %q as well", mac, c.Node.Name, c.Cluster)
			}
		}
		if c, taken := addrs[n.Address]; taken {
			f.warn("serve one of the two clusters alone, or give the node another address", "the address %s is node %q's of the cluster %q as well", n.Address, c.Node.Name, c.Cluster)
		}
		all = append(all, f.all...)
	}
	return all
}

func claimed(others []Claim) (map[string]Claim, map[netip.Addr]Claim) {
	macs, addrs := map[string]Claim{}, map[netip.Addr]Claim{}
	for _, c := range others {
		addrs[c.Node.Address] = c
		for _, mac := range c.Node.MACs {
			macs[mac] = c
		}
	}
	return macs, addrs
}

// place judges where in the network a node's address is.
func place(f *findings, w imagefmt.Network, n imagefmt.Node) {
	const remedy = "change the address in the recipe and build again"
	switch {
	case len(n.MACs) == 0:
		f.fail("add its mac to the recipe and build again", "it has no MAC: no machine is ever this node")
	case !n.Address.IsValid():
		f.fail("add its address to the recipe and build again", "it has no address")
		return
	}
	switch n.Address {
	case w.Server:
		f.fail(remedy, "its address %s is the server's own", n.Address)
	case w.Gateway:
		f.fail(remedy, "its address %s is the gateway's", n.Address)
	}
	if w.Subnet.IsValid() && !w.Subnet.Contains(n.Address) {
		f.fail(remedy+", or widen network.subnet", "its address %s is outside the subnet %s", n.Address, w.Subnet)
	}
	if slices.Contains(w.DNS, n.Address) {
		f.warn("name another DNS server, or another address", "its address %s is that of a DNS server that nodes are told", n.Address)
	}
}
