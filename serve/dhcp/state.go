package dhcp

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// state is what matters of an interface at one moment. The zero state is an
// interface that is not there.
type state struct {
	index int
	up    bool
	mac   net.HardwareAddr
	addrs []netip.Addr
}

func inspect(name string) state {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return state{}
	}
	st := state{index: ifi.Index, up: ifi.Flags&net.FlagUp != 0, mac: ifi.HardwareAddr}
	list, err := ifi.Addrs()
	if err != nil {
		return st
	}
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
			st.addrs = append(st.addrs, p.Addr())
		}
	}
	return st
}

func (st state) exists() bool { return st.index != 0 }

// ready says whether frames can be sent. A bridge whose last port goes has a MAC
// of zeros for a moment, which net shows as none.
func (st state) ready() bool { return st.exists() && len(st.mac) == 6 }

func (st state) has(a netip.Addr) bool { return slices.Contains(st.addrs, a) }

// sameLink says whether sockets that were bound to the one still work with the
// other: going down and up does not hurt them, being made anew does.
func (st state) sameLink(o state) bool { return st.index == o.index && bytes.Equal(st.mac, o.mac) }

func (st state) addresses() string {
	if len(st.addrs) == 0 {
		return "no IPv4 address"
	}
	var out []string
	for _, a := range st.addrs {
		out = append(out, a.String())
	}
	return strings.Join(out, ", ")
}

// differences tells an operator what happened to the interface, in sentences.
func differences(was, is state, c Config) []string {
	switch {
	case was.exists() && !is.exists():
		return []string{"the interface is gone: nodes get no answer until it is back"}
	case !is.exists():
		return nil
	case !was.exists():
		return []string{"the interface is back: listening anew"}
	case was.index != is.index:
		return []string{"the interface was made anew: listening anew"}
	case !is.ready() && !was.ready():
		return nil
	case !is.ready():
		return []string{"the interface has no MAC: nodes get no answer until it has"}
	case !was.sameLink(is):
		return []string{"the interface has another MAC now, " + is.mac.String() + ": listening anew"}
	}
	return append(upOrDown(was, is), addressChange(was, is, c.ServerAddr)...)
}

func upOrDown(was, is state) []string {
	switch {
	case was.up && !is.up:
		return []string{"the interface is down: nodes get no answer until it is up"}
	case !was.up && is.up:
		return []string{"the interface is up again"}
	}
	return nil
}

func addressChange(was, is state, server netip.Addr) []string {
	if !server.IsValid() || was.has(server) == is.has(server) {
		return nil
	}
	if is.has(server) {
		return []string{fmt.Sprintf("the interface has the server's address %s again", server)}
	}
	return []string{fmt.Sprintf("the interface has lost the server's address %s and has %s: nodes are told to boot from an address that does not answer; add it again", server, is.addresses())}
}
