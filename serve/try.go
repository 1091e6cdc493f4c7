package serve

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"syscall"

	"rhizome/serve/dhcp"
	"rhizome/serve/rpc"
)

// Try takes every port that a server of this configuration takes at an address,
// one by one, gives each back at once, and returns what it could not have: a
// *PortError each, or what DHCP says of its sockets. Nothing is sent to nodes.
func (c Config) Try(ctx context.Context, addr netip.Addr) (errs []error) {
	for _, take := range c.doors(ctx, addr) {
		held, err := take()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		held.Close()
	}
	if c.DHCP == "off" {
		return errs
	}
	d := dhcp.Server{Config: dhcp.Config{Interface: c.Interface, Mode: dhcp.Mode(c.DHCP)}, PortOwner: portOwner}
	if err := d.Try(ctx); err != nil {
		errs = append(errs, err)
	}
	return errs
}

func (c Config) doors(ctx context.Context, addr netip.Addr) (all []func() (io.Closer, error)) {
	udp := func(port uint16) {
		all = append(all, func() (io.Closer, error) { return listenUDP(netip.AddrPortFrom(addr, port)) })
	}
	tcp := func(port uint16) {
		all = append(all, func() (io.Closer, error) { return listenTCP(ctx, netip.AddrPortFrom(addr, port)) })
	}
	udp(tftpPort)
	tcp(httpPort)
	tcp(nfsPort)
	udp(nfsPort)
	all = append(all, func() (io.Closer, error) { return tryPortmap(ctx, netip.AddrPortFrom(addr, rpc.PortmapPort)) })
	return all
}

// tryPortmap is content with a portmapper of the system: serve registers there.
func tryPortmap(ctx context.Context, at netip.AddrPort) (io.Closer, error) {
	c, err := listenUDP(at)
	if errors.Is(err, syscall.EADDRINUSE) && rpc.LocalRpcbind().Ping(ctx) == nil {
		return io.NopCloser(nil), nil
	}
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return listenTCP(ctx, at)
}
