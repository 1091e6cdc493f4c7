package serve

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"syscall"

	"rhizome/serve/rpc"
)

// open takes every port, all or none.
func (s *Server) open(ctx context.Context, addr netip.Addr) (k *sockets, err error) {
	k = &sockets{addr: addr}
	var opened []io.Closer
	defer func() {
		if err != nil {
			for _, c := range opened {
				c.Close()
			}
		}
	}()
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(addr, port) }
	if k.tftp, err = listenUDP(at(tftpPort)); err != nil {
		return nil, err
	}
	opened = append(opened, k.tftp)
	if k.http, err = listenTCP(ctx, at(httpPort)); err != nil {
		return nil, err
	}
	opened = append(opened, k.http)
	if k.nfsTCP, err = listenTCP(ctx, at(nfsPort)); err != nil {
		return nil, err
	}
	opened = append(opened, k.nfsTCP)
	if k.nfsUDP, err = listenUDP(at(nfsPort)); err != nil {
		return nil, err
	}
	opened = append(opened, k.nfsUDP)
	more, err := s.openPortmap(ctx, k, at(rpc.PortmapPort))
	opened = append(opened, more...)
	return k, err
}

// openPortmap takes port 111, or registers with the system's rpcbind where
// that has it.
func (s *Server) openPortmap(ctx context.Context, k *sockets, at netip.AddrPort) ([]io.Closer, error) {
	udp, err := listenUDP(at)
	if err != nil {
		return nil, s.register(ctx, k, err)
	}
	tcp, err := listenTCP(ctx, at)
	if err != nil {
		return []io.Closer{udp}, err
	}
	k.portmapUDP, k.portmapTCP = udp, tcp
	return []io.Closer{udp, tcp}, nil
}

func (s *Server) register(ctx context.Context, k *sockets, taken error) error {
	if !errors.Is(taken, syscall.EADDRINUSE) {
		return taken
	}
	if rpc.LocalRpcbind().Register(ctx, mappings()...) != nil {
		return taken
	}
	k.registered = true
	return nil
}

func (s *Server) unregister(k *sockets) {
	if !k.registered {
		return
	}
	if err := rpc.LocalRpcbind().Unregister(context.Background(), mappings()...); err != nil && s.Config.Log != nil {
		s.Config.Log.Warn("rpcbind keeps our registrations", "error", err)
	}
}
