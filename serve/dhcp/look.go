package dhcp

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"rhizome/registry/imagefmt"
	"rhizome/serve/boot"
)

// Try opens all sockets that Serve would, and closes them at once. Nothing is
// sent; the error is the one that Serve would give for its ports.
func (s *Server) Try(ctx context.Context) error {
	n, err := s.look()
	if err != nil {
		return err
	}
	defer n.close()
	return n.listen(ctx)
}

// look is a session that does not begin.
func (s *Server) look() (*session, error) {
	s.defaults()
	st := inspect(s.Config.Interface)
	if !st.exists() {
		return nil, s.usable(st)
	}
	return &session{Server: s, link: st, cancel: func() {}, watched: map[netip.Addr]Machine{}}, nil
}

// Look asks, on the wire, who has the address of one of these machines or of
// this server, and which other DHCP servers offer anything to it. It takes as
// long as an offer may take, some five seconds; what is found comes as the
// events that Serve would send.
func (s *Server) Look(ctx context.Context, machines []Machine) error {
	n, err := s.look()
	if err != nil {
		return err
	}
	defer n.close()
	if err := s.usable(n.link); err != nil {
		return err
	}
	if n.out, err = openFrames(n.ifi(), tapNone); err == nil {
		n.arp, err = openFrames(n.ifi(), tapARP)
	}
	if err != nil {
		return fmt.Errorf("looking at the wire of %q: %w: run as root, or with the capability CAP_NET_RAW", s.Config.Interface, err)
	}
	n.watch(machines)
	n.run(func() { n.eachFrame(ctx, n.arp, n.sawARP) })
	if err := n.askAll(ctx); err != nil {
		return fmt.Errorf("asking on %q who has which address: %w", s.Config.Interface, err)
	}
	return n.probe(ctx)
}

// watch looks out for whoever has an address that is a machine's, or this
// server's own.
func (n *session) watch(machines []Machine) {
	if a := n.Config.ServerAddr; a.IsValid() {
		n.watched[a] = Machine{Node: imagefmt.Node{Address: a}}
	}
	for _, m := range machines {
		n.watched[m.Node.Address] = m
	}
}

// askPause lies between two questions, so that a rack's worth of them is no
// flood.
const askPause = time.Millisecond

// askAll asks for the owner of each address that is watched. Where this interface
// does not have the server's address, and for that address itself, the question
// has no sender (RFC 5227, section 2.1.1): in its name it would be an
// announcement, which takes it from whoever has it.
func (n *session) askAll(ctx context.Context) error {
	for a := range n.watched {
		own := n.Config.ServerAddr
		if a == own || !n.link.has(own) {
			own = netip.IPv4Unspecified()
		}
		if _, err := n.out.Write(arpRequest(n.link.mac, own, a)); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(askPause):
		}
	}
	return nil
}

// InUse judges an address of a machine that this system has seen at a MAC, as
// its own table of neighbours says: an event where it is not the machine's.
func InUse(m Machine, seen, own net.HardwareAddr) (boot.Event, bool) { return conflict(m, seen, own) }
