package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"rhizome/serve/boot"
	"rhizome/serve/bootspec"
	"rhizome/serve/dhcp"
	httpd "rhizome/serve/http"
	"rhizome/serve/nfs"
	"rhizome/serve/node"
	"rhizome/serve/node/nodeapi"
	"rhizome/serve/reads"
	"rhizome/serve/rootfs"
	"rhizome/serve/rpc"
	"rhizome/serve/tftp"
)

// The ports that firmware, loaders and kernels expect.
const (
	tftpPort = 69
	httpPort = 80
	nfsPort  = 2049
)

// Config is what the operator chose.
type Config struct {
	// Interface is the one network interface that is answered on.
	Interface string
	// DHCP is "server", "proxy" or "off".
	DHCP string
	// Events takes what is seen of the nodes; nil is silence.
	Events boot.Sink
	Log    *slog.Logger
	Now    func() time.Time
}

// Server boots the machines of a fleet: every protocol, one process.
type Server struct {
	Config Config
	Fleet  *Fleet
	// OpenBlob opens a blob of the store by its digest, for nodes that fetch
	// layers of their own manifest.
	OpenBlob func(ctx context.Context, digest string) (httpd.BlobFile, error)
	// ReadBlob opens a blob of the store, or one that is on its way there, by its
	// digest, for nodes to which HTTP does not answer: they read it in pieces over
	// NFS, and verify it. Nil is no such export.
	ReadBlob func(digest string) (rootfs.BlobReader, error)
	// Backends serve writable exports.
	Backends []nfs.Mounted
	// Node answers programs on nodes; nil is nobody.
	Node *node.Server
	// Reads counts what nodes ask of their roots; nil counts nothing.
	Reads *reads.Book

	counters atomic.Pointer[Counters]
}

// sockets are all that a server listens on.
type sockets struct {
	addr                     netip.Addr
	tftp                     *net.UDPConn
	http, nfsTCP, portmapTCP net.Listener
	nfsUDP, portmapUDP       *net.UDPConn
	// registered is set where the system's own rpcbind has port 111.
	registered bool
}

// Run answers until ctx ends. It returns an error if it cannot begin: a
// missing interface or address, a port that another process has.
func (s *Server) Run(ctx context.Context) error {
	addr, err := s.address()
	if err != nil {
		return err
	}
	if err := checkInterface(s.Config.Interface, addr); err != nil {
		return err
	}
	socks, err := s.open(ctx, addr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ready := make(chan struct{})
	var wg sync.WaitGroup
	for _, run := range s.parts(socks, ready) {
		wg.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				cancel(err)
			}
		})
	}
	wg.Go(func() { s.announce(ctx, ready, addr) })
	wg.Wait()
	s.unregister(socks)
	select {
	case <-ready:
		s.Config.Events.Send(boot.Event{Time: s.Config.Now(), Kind: boot.ServeStopped})
	default:
		// It never began, and the error says why.
	}
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// address is the one that every node of the fleet is told to boot from.
func (s *Server) address() (netip.Addr, error) {
	var addr netip.Addr
	for _, m := range s.Fleet.Machines() {
		a := m.Cluster.Network.Server
		if addr.IsValid() && a != addr {
			return addr, fmt.Errorf("the images name two servers, %s and %s; serve them from two processes", addr, a)
		}
		addr = a
	}
	if !addr.IsValid() {
		return addr, errors.New("there is no node to serve")
	}
	return addr, nil
}

// announce says that everything answers.
func (s *Server) announce(ctx context.Context, ready <-chan struct{}, addr netip.Addr) {
	select {
	case <-ready:
		s.Config.Events.Send(boot.Event{
			Time: s.Config.Now(), Kind: boot.ServeReady, Addr: addr,
			Detail: fmt.Sprintf("%d node(s) on %s, DHCP %s", len(s.Fleet.Machines()), s.Config.Interface, s.Config.DHCP),
		})
	case <-ctx.Done():
	}
}

// parts are the protocols' loops; ready is closed when the slowest answers.
func (s *Server) parts(k *sockets, ready chan struct{}) []func(context.Context) error {
	find := s.Fleet.bootMachine("http://" + netip.AddrPortFrom(k.addr, httpPort).String())
	front, answers := s.front(k)
	files := &tftp.Server{Machines: find, Events: s.Config.Events, Log: s.Config.Log, Now: s.Config.Now}
	web := &httpd.Server{Machines: find, OpenBlob: s.OpenBlob, Events: s.Config.Events, Log: s.Config.Log, Now: s.Config.Now,
		Conns: connections(len(s.Fleet.Machines()))}
	s.counters.Store(&Counters{TFTP: &files.Counters, HTTP: &web.Counters, NFS: answers.Clients})
	parts := []func(context.Context) error{
		func(ctx context.Context) error { return files.Serve(ctx, k.tftp) },
		func(ctx context.Context) error { return web.Serve(ctx, k.http) },
		func(ctx context.Context) error { return front.ServeTCP(ctx, k.nfsTCP) },
		func(ctx context.Context) error { return front.ServeUDP(ctx, k.nfsUDP) },
		func(ctx context.Context) error { return s.tend(ctx, answers) },
	}
	if s.Node != nil {
		web.Under = map[string]func(http.ResponseWriter, *http.Request, bootspec.Machine){nodeapi.Prefix: s.Node.Handle}
		parts = append(parts, s.Node.Run)
	}
	if !k.registered {
		parts = append(parts,
			func(ctx context.Context) error { return front.ServeTCP(ctx, k.portmapTCP) },
			func(ctx context.Context) error { return front.ServeUDP(ctx, k.portmapUDP) })
	}
	if s.Config.DHCP == "off" {
		close(ready)
		return parts
	}
	return append(parts, s.dhcpServer(k.addr, ready).Serve)
}

// tend closes what nobody uses any more, now and then.
func (s *Server) tend(ctx context.Context, answers *nfs.Server) error {
	tick := time.NewTicker(idleAfter / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		closed := s.Fleet.CloseIdle()
		answers.ForgetGrants()
		if closed > 0 && s.Config.Log != nil {
			s.Config.Log.Debug("roots that no node uses are closed", "roots", closed)
		}
	}
}

func (s *Server) dhcpServer(addr netip.Addr, ready chan struct{}) *dhcp.Server {
	return &dhcp.Server{
		Config:    dhcp.Config{Interface: s.Config.Interface, ServerAddr: addr, Mode: dhcp.Mode(s.Config.DHCP), HTTPPort: httpPort},
		Nodes:     dhcpNodes{s.Fleet},
		Asks:      s.dhcpStep,
		Events:    s.Config.Events,
		Log:       s.Config.Log,
		Clock:     s.Config.Now,
		PortOwner: portOwner,
		Ready:     sync.OnceFunc(func() { close(ready) }),
	}
}

// front is the one RPC server of portmapper, MOUNT and NFS.
func (s *Server) front(k *sockets) (*rpc.Server, *nfs.Server) {
	answers := nfs.NewServer(nfs.Config{Exports: nfsExports{s.Fleet, s.Backends, s.ReadBlob}, Backends: s.Backends, Events: s.nameNodes(), Meters: s.meter, Now: s.Config.Now})
	programs := append(answers.Programs(), rpc.NewPortmapper(mappings()...).Program())
	return rpc.NewServer(programs, rpc.Limits{Connections: connections(len(s.Fleet.Machines()))}, s.Config.Log), answers
}

// connections is how many a server of so many nodes takes of one protocol: a few of
// each node, which keeps that of its root open, and at least as many as a small
// cluster's programs may think of.
func connections(nodes int) int { return max(httpd.DefaultConns, 4*nodes) }

// nameNodes adds the node's name to events that know only an address, and
// notes which roots are mounted.
func (s *Server) nameNodes() boot.Sink {
	return func(e boot.Event) {
		m, ok := s.Fleet.ByAddr(e.Addr)
		if ok && e.Node == "" {
			e.Node = m.Node.Name
		}
		if ok && e.Kind == boot.MountDone && e.Digest == m.Manifest.String() {
			s.Fleet.Mounted(m)
		}
		s.Config.Events.Send(e)
	}
}

func mappings() []rpc.Mapping {
	var all []rpc.Mapping
	for _, t := range []rpc.Transport{rpc.TCP, rpc.UDP} {
		all = append(all,
			rpc.Mapping{Program: nfs.Program, Version: nfs.Version, Transport: t, Port: nfsPort},
			rpc.Mapping{Program: nfs.MountProgram, Version: 1, Transport: t, Port: nfsPort},
			rpc.Mapping{Program: nfs.MountProgram, Version: 3, Transport: t, Port: nfsPort})
	}
	return all
}
