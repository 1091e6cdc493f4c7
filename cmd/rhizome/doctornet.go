package main

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"syscall"

	"rhizome/cmd/rhizome/internal/doctor"
	"rhizome/registry/imagefmt"
	"rhizome/serve"
	"rhizome/serve/boot"
	"rhizome/serve/dhcp"
	"rhizome/serve/rpc"
)

// checkNetwork looks at the interface that serve would answer on, at its ports,
// and at what is known of other machines there.
func (p *patient) checkNetwork(ctx context.Context) {
	if !p.serves() {
		return
	}
	interfaces := readInterfaces()
	w := doctor.Network{Want: p.network, Asked: p.iface, Interfaces: interfaces}
	if !p.network.Server.IsValid() {
		p.checkPorts(ctx, anyInterface(interfaces))
		return
	}
	p.add(w.Check())
	in, found := w.Choose()
	if !found {
		p.checkPorts(ctx, anyInterface(interfaces))
		return
	}
	p.checkPorts(ctx, in)
	seen := p.heard(in)
	if p.probe {
		seen = append(seen, p.ask(ctx, in)...)
	} else {
		p.term.note("doctor   other machines were not asked; --probe does")
	}
	p.add(doctor.Wire(seen, interfaces))
}

func readInterfaces() (all []doctor.Interface) {
	list, _ := net.Interfaces() // none is a finding of its own
	for _, i := range list {
		one := doctor.Interface{
			Name: i.Name, Up: i.Flags&net.FlagUp != 0, Carrier: i.Flags&net.FlagRunning != 0,
			MAC: i.HardwareAddr.String(), MTU: i.MTU, Loopback: i.Flags&net.FlagLoopback != 0,
		}
		addrs, _ := i.Addrs() // it went away
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				one.Addrs = append(one.Addrs, p)
			}
		}
		all = append(all, one)
	}
	return all
}

// quiet is an address of this machine that nothing listens on by name: whoever
// has a port there has it on all addresses, and so on any that serve would
// take. Linux has all of 127.0.0.0/8.
var quiet = netip.AddrFrom4([4]byte{127, 77, 0, 1})

// anyInterface stands for the interface where none is known.
func anyInterface(all []doctor.Interface) doctor.Interface {
	for _, i := range all {
		if i.Loopback {
			return i
		}
	}
	return doctor.Interface{}
}

// checkPorts tries the ports that serve takes: on the server's address where the
// interface has it.
func (p *patient) checkPorts(ctx context.Context, in doctor.Interface) {
	if in.Name == "" || !in.Up {
		return
	}
	at := quiet
	for _, a := range in.Addrs {
		if a.Addr() == p.network.Server {
			at = p.network.Server
		}
	}
	var ports []doctor.Port
	for _, err := range (serve.Config{Interface: in.Name, DHCP: p.dhcp}).Try(ctx, at) {
		if errors.Is(err, syscall.EADDRNOTAVAIL) {
			continue // no such loopback address on this system
		}
		ports = append(ports, portOf(err))
	}
	p.add(doctor.Ports(ports, p.serving(), func(s doctor.Serving) bool {
		p.term.note("doctor   process %d is %s: its ports are its own", s.PID, s.Purpose)
		return p.name == "" || s.Purpose == servingPurpose+p.name
	}))
}

// portOf reads why a port could not be had.
func portOf(err error) doctor.Port {
	out := doctor.Port{
		Text: err.Error(), Kernel: kernelNFS(),
		Taken: errors.Is(err, syscall.EADDRINUSE), Denied: errors.Is(err, fs.ErrPermission),
	}
	network, ports := "udp", []uint16{67, 4011} // what DHCP tells of in words
	var port *serve.PortError
	if errors.As(err, &port) {
		network, ports = port.Network, []uint16{port.Addr.Port()}
	}
	for _, n := range ports {
		if o, ok := rpc.PortOwner(network, n); ok && out.Taken && out.Owner == "" {
			out.Owner, out.PID = o.Command, o.PID
		}
	}
	out.Number = ports[0]
	return out
}

func (p *patient) dhcpMachines() (all []dhcp.Machine) {
	c := imagefmt.Cluster{Name: p.cluster, Network: p.network}
	for _, n := range p.members {
		all = append(all, dhcp.Machine{Cluster: c, Node: n})
	}
	return all
}

// heard is what this machine knows of the wire without asking.
func (p *patient) heard(in doctor.Interface) (all []doctor.Seen) {
	machines := map[netip.Addr]dhcp.Machine{p.network.Server: {Node: imagefmt.Node{Address: p.network.Server}}}
	for _, m := range p.dhcpMachines() {
		machines[m.Node.Address] = m
	}
	own, _ := net.ParseMAC(in.MAC) // a loopback has none
	for _, n := range neighbours() {
		if m, ok := machines[n.addr]; ok && n.on == in.Name {
			if e, ok := dhcp.InUse(m, n.mac, own); ok {
				all = append(all, seenOf(e))
			}
		}
	}
	return all
}

func seenOf(e boot.Event) doctor.Seen {
	return doctor.Seen{Text: e.Error, MAC: e.MAC, Node: e.Node}
}

// ask asks on the wire, which takes some five seconds.
func (p *patient) ask(ctx context.Context, in doctor.Interface) (all []doctor.Seen) {
	p.term.note("doctor   asking on %s ...", in.Name)
	events := make(chan boot.Event, 1000)
	s := dhcp.Server{
		Config: dhcp.Config{Interface: in.Name, ServerAddr: p.network.Server},
		Events: func(e boot.Event) {
			select {
			case events <- e:
			default: // a thousand are enough
			}
		},
	}
	err := s.Look(ctx, p.dhcpMachines())
	close(events)
	for e := range events {
		all = append(all, seenOf(e))
	}
	if err != nil && ctx.Err() == nil {
		all = append(all, doctor.Seen{Text: err.Error()})
	}
	return all
}
