package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"rhizome/serve/rpc"
)

// PortError is a port that could not be had, with who has it where that can
// be found out.
type PortError struct {
	Network string
	Addr    netip.AddrPort
	Owner   string
	Err     error
}

func (e *PortError) Error() string {
	what := fmt.Sprintf("listening on %s port %d of %s", e.Network, e.Addr.Port(), e.Addr.Addr())
	if !errors.Is(e.Err, syscall.EADDRINUSE) {
		return fmt.Sprintf("%s: %v", what, e.Err)
	}
	owner := e.Owner
	if owner == "" {
		owner = "another process (see: ss -lntup)"
	}
	return fmt.Sprintf("%s: the port is taken by %s: stop it, or serve another address", what, owner)
}

func (e *PortError) Unwrap() error { return e.Err }

// portOwner names the process that has a port, or gives "".
func portOwner(network string, port uint16) string {
	o, ok := rpc.PortOwner(network, port)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%s (pid %d)", o.Command, o.PID)
}

func portError(network string, a netip.AddrPort, err error) error {
	e := &PortError{Network: network, Addr: a, Err: err}
	if errors.Is(err, syscall.EADDRINUSE) {
		e.Owner = portOwner(network, a.Port())
	}
	return e
}

// NoInterfaceError is an interface that this machine does not have.
type NoInterfaceError struct{ Name string }

func (e *NoInterfaceError) Error() string {
	return fmt.Sprintf("there is no interface %q here; `ip link` lists those there are", e.Name)
}

func listenTCP(ctx context.Context, a netip.AddrPort) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", a.String())
	if err != nil {
		return nil, portError("tcp", a, err)
	}
	return l, nil
}

func listenUDP(a netip.AddrPort) (*net.UDPConn, error) {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(a))
	if err != nil {
		return nil, portError("udp", a, err)
	}
	return c, nil
}

// checkInterface makes sure that the interface exists and has the address that
// nodes are told to boot from.
func checkInterface(name string, addr netip.Addr) error {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return &NoInterfaceError{Name: name}
	}
	addrs, err := ifi.Addrs()
	if err != nil {
		return fmt.Errorf("reading the addresses of %q: %w", name, err)
	}
	var have []string
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		if p.Addr() == addr {
			return nil
		}
		have = append(have, p.Addr().String())
	}
	return fmt.Errorf("the interface %q does not have the address %s, which the image names as its server; it has %v: `ip addr add %s/24 dev %s`, or change network.server in the recipe", name, addr, have, addr, name)
}
