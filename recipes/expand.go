package recipes

import (
	"fmt"
	"net"
	"net/netip"
)

// unroll makes the recipe's nodes out of the drafts: profiles laid under them,
// ranges written out.
func unroll(d *decoder, r *draft) {
	in := newInheritance(d, r.profiles)
	for i := range r.nodes {
		for _, n := range unrollNode(d, in, &r.nodes[i]) {
			if len(r.Nodes) == maxNames {
				d.failAt(n.Pos, fmt.Sprintf("the recipe has more than %d nodes", maxNames), "describe them as several clusters")
				return
			}
			r.Nodes = append(r.Nodes, n)
		}
	}
}

func unrollNode(d *decoder, in *inheritance, n *nodeDraft) []Node {
	before := len(d.findings)
	base := in.lay(n)
	if _, known := n.of["mac"]; !known || n.name.text == "" || n.addresses == nil {
		return nil
	}
	names, err := expand(n.name.text, 10)
	if err != nil {
		d.failAt(n.name.pos, fmt.Sprintf("the node name %v", err), "write ranges as n[1-64]")
		return nil
	}
	macs := d.macs(n, len(names))
	addrs := d.addresses(n, len(names))
	if len(d.findings) > before || macs == nil || addrs == nil {
		return nil
	}
	out := make([]Node, len(names))
	for i := range out {
		out[i] = base
		out[i].Name, out[i].MACs, out[i].Address = names[i], macs[i], addrs[i]
		out[i].Pos = n.Pos
		out[i].MACPos = n.at("mac", n.Pos)
		out[i].AddressPos = n.at("address", n.Pos)
	}
	return out
}

// macs shares the addresses of "mac" out to the nodes of a range.
func (d *decoder) macs(n *nodeDraft, nodes int) [][]string {
	cells := make([][]string, len(n.macs))
	at := n.at("mac", n.Pos)
	wide, total := len(cells) > 0, 0
	for i, item := range n.macs {
		for _, w := range item.words {
			list := d.mac(w)
			if list == nil {
				return nil
			}
			cells[i] = append(cells[i], list...)
			if total += len(list); total > 4*maxNames {
				d.failAt(at, "\"mac\" names too many addresses", "")
				return nil
			}
		}
		wide = wide && !item.nested && len(cells[i]) == nodes
	}
	return d.share(at, n, cells, nodes, wide)
}

// share is the rule for lists: ranges that each cover all nodes give every
// node one address each; else there is an element per node.
func (d *decoder) share(at Pos, n *nodeDraft, cells [][]string, nodes int, wide bool) [][]string {
	out := make([][]string, nodes)
	switch {
	case nodes == 1:
		for _, c := range cells {
			out[0] = append(out[0], c...)
		}
	case wide:
		for _, c := range cells {
			for i := range out {
				out[i] = append(out[i], c[i])
			}
		}
	case len(cells) == nodes:
		copy(out, cells)
	default:
		got := fmt.Sprintf("\"mac\" has a list of %d", len(cells))
		if len(cells) == 1 {
			got = fmt.Sprintf("\"mac\" has %d", len(cells[0]))
		}
		d.failAt(at, fmt.Sprintf("%q names %s, but %s", n.name.text, counted(nodes), got), "give one MAC per node: a range is hexadecimal, so [01-40] are 64")
		return nil
	}
	for i := range out {
		if len(out[i]) == 0 {
			d.failAt(at, fmt.Sprintf("a node of %q has no MAC", n.name.text), "a node is known by its MAC")
			return nil
		}
	}
	return out
}

func counted(nodes int) string {
	if nodes == 1 {
		return "1 node"
	}
	return fmt.Sprintf("%d nodes", nodes)
}

// mac expands one word of "mac" and writes each address with colons and in
// lower case.
func (d *decoder) mac(w word) []string {
	list, err := expand(w.text, 16)
	if err != nil {
		d.failAt(w.pos, fmt.Sprintf("the MAC %v", err), "write ranges as 52:54:00:77:00:[01-40]")
		return nil
	}
	for i, s := range list {
		hw, err := net.ParseMAC(s)
		if err != nil || len(hw) != 6 {
			d.failAt(w.pos, fmt.Sprintf("%s is no MAC address", clip(s)), "write six pairs of hexadecimal digits, such as 52:54:00:77:00:01")
			return nil
		}
		if hw[0]&1 != 0 || hw.String() == "00:00:00:00:00:00" {
			d.failAt(w.pos, fmt.Sprintf("%s is the address of no network card", hw), "a card's first byte is even, and not all of it is zero")
			return nil
		}
		list[i] = hw.String()
	}
	return list
}

func (d *decoder) addresses(n *nodeDraft, nodes int) []netip.Addr {
	var out []netip.Addr
	at := n.at("address", n.Pos)
	for _, w := range n.addresses {
		list, err := expand(w.text, 10)
		if err != nil {
			d.failAt(w.pos, fmt.Sprintf("the address %v", err), "write ranges as 10.77.0.[11-74]")
			return nil
		}
		for _, s := range list {
			a, err := parseAddr(s)
			if err != nil {
				d.failAt(w.pos, err.Error(), "write it as 10.77.0.11")
				return nil
			}
			out = append(out, a)
		}
		if len(out) > maxNames {
			break
		}
	}
	if len(out) != nodes {
		d.failAt(at, fmt.Sprintf("%q names %s, but \"address\" has %d", n.name.text, counted(nodes), len(out)), "give one address per node, such as 10.77.0.[11-74] for 64")
		return nil
	}
	return out
}
