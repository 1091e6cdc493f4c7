package dhcp

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"rhizome/serve/boot"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// datagrams is a UDP socket of one interface.
type datagrams interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
	io.Closer
}

// frames are whole Ethernet frames of one interface.
type frames interface {
	io.ReadWriteCloser
	SetReadDeadline(time.Time) error
}

// tap says which frames are to be read.
type tap uint8

const (
	tapNone          tap = iota // for writing alone
	tapARP                      // all of ARP
	tapSolicitations            // IPv6 router solicitations
	tapReplies                  // IPv4 datagrams to the DHCP client's port
)

// session is the sockets on one incarnation of the interface.
type session struct {
	*Server
	link   state
	dhcp   datagrams
	pxe    datagrams // in proxy mode
	out    frames
	arp    frames
	nd     frames
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu      sync.Mutex
	watched map[netip.Addr]Machine // whose address is looked out for
}

func (s *Server) open(ctx context.Context, st state) (*session, error) {
	n := &session{Server: s, link: st, watched: map[netip.Addr]Machine{}}
	ctx, n.cancel = context.WithCancel(ctx)
	if err := n.listen(ctx); err != nil {
		n.close()
		return nil, err
	}
	n.start(ctx)
	if s.Ready != nil {
		s.Ready()
	}
	return n, nil
}

func (n *session) listen(ctx context.Context) (err error) {
	ifi := n.ifi()
	if n.dhcp, err = listenUDP(ctx, ifi, serverPort); err != nil {
		return n.openError(serverPort, err)
	}
	if n.Config.mode() == ModeProxy {
		if n.pxe, err = listenUDP(ctx, ifi, pxePort); err != nil {
			return n.openError(pxePort, err)
		}
	}
	if n.out, err = openFrames(ifi, tapNone); err != nil {
		return n.openError(serverPort, err)
	}
	if n.arp, err = openFrames(ifi, tapARP); err != nil {
		return n.openError(serverPort, err)
	}
	if n.nd, err = openFrames(ifi, tapSolicitations); err != nil {
		return n.openError(serverPort, err)
	}
	return nil
}

func (n *session) ifi() *net.Interface {
	return &net.Interface{Index: n.link.index, Name: n.Config.Interface, HardwareAddr: n.link.mac}
}

func (n *session) start(ctx context.Context) {
	n.run(func() { n.receive(ctx, n.dhcp, serverPort) })
	if n.pxe != nil {
		n.run(func() { n.receive(ctx, n.pxe, pxePort) })
	}
	n.run(func() { n.eachFrame(ctx, n.arp, n.sawARP) })
	n.run(func() { n.eachFrame(ctx, n.nd, n.solicited) })
	if n.ProbeEvery > 0 && n.Config.mode() == ModeServer {
		n.run(func() { n.lookOut(ctx) })
	}
}

func (n *session) run(f func()) {
	n.done.Add(1)
	go func() {
		defer n.done.Done()
		f()
	}()
}

func (n *session) close() {
	n.cancel()
	for _, c := range []io.Closer{n.dhcp, n.pxe, n.out, n.arp, n.nd} {
		if c != nil {
			_ = c.Close() // nothing is buffered
		}
	}
	n.done.Wait()
}

// receive answers one socket's requests until it is closed.
func (n *session) receive(ctx context.Context, c datagrams, port uint16) {
	in, out := make([]byte, maxRequest+1), make([]byte, 0, maxRequest)
	for {
		size, from, err := c.ReadFromUDPAddrPort(in)
		if err == nil {
			out = n.handle(in[:size], Arrival{From: from, Port: port}, c, out[:0])
			continue
		}
		if !n.goesOn(ctx, err) {
			return
		}
	}
}

// goesOn tells the errors of a moment (the interface is down) from the end.
func (n *session) goesOn(ctx context.Context, err error) bool {
	if ctx.Err() != nil || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) {
		return false
	}
	if !errors.Is(err, syscall.ENETDOWN) {
		n.Log.Warn("receiving: "+err.Error(), "interface", n.Config.Interface)
	}
	// An error that stays must not become a busy loop.
	select {
	case <-ctx.Done():
		return false
	case <-time.After(100 * time.Millisecond):
		return true
	}
}

// handle answers one message, with buf for the reply; it returns the buffer.
func (n *session) handle(p []byte, at Arrival, c datagrams, buf []byte) []byte {
	if n.ignored(p) {
		return buf
	}
	r, err := Parse(p)
	if err != nil {
		if n.bad.allow(at.From.Addr().String()) {
			n.tell(boot.Event{Kind: boot.DHCPBad, Addr: at.From.Addr().Unmap(), Error: err.Error()})
		}
		return buf
	}
	if n.Asks != nil && (r.Bootp || r.MessageType() == dhcpv4.MessageTypeDiscover) {
		n.Asks(r.ClientHWAddr, r.Client.Kind)
	}
	m, known := n.Nodes.ByMAC(r.ClientHWAddr)
	d := Decide(r, at, m, known, n.Config)
	if d.Reply != nil {
		if buf, err = n.send(d.Reply, m, at, c, buf); err != nil {
			d.Events[len(d.Events)-1].Error = join(d.Reason, "sending the reply: "+err.Error())
		}
	}
	if n.mayTell(r, d, known) {
		n.tell(d.Events...)
	}
	if d.Reply != nil && r.giaddr().IsUnspecified() {
		n.ask(m)
	}
	return buf
}

// ignored passes over, at little cost, a machine that nobody knows and that was
// told of already: it will ask for ever, and a flood has many.
func (n *session) ignored(p []byte) bool {
	mac, ok := sender(p)
	if !ok {
		return false
	}
	if _, known := n.Nodes.ByMAC(mac); known {
		return false
	}
	return !n.unknown.allow(string(mac))
}

// mayTell keeps one machine's events within what a log and a disk can bear.
func (n *session) mayTell(r *Request, d Decision, known bool) bool {
	if len(d.Events) == 0 {
		return false
	}
	switch mac := string(r.ClientHWAddr); {
	case !known: // ignored has counted it
		return true
	case d.Events[0].Kind == boot.DHCPForeign:
		return n.foreign.allow(mac + d.Events[0].Detail)
	default:
		return n.known.allow(mac)
	}
}

func (n *session) tell(events ...boot.Event) {
	now := n.Clock()
	for _, e := range events {
		e.Time = now
		n.Events.Send(e)
	}
}

func (n *session) send(r *Reply, m Machine, at Arrival, c datagrams, buf []byte) ([]byte, error) {
	if r.To.MAC == nil {
		buf = r.Append(buf)
		_, err := c.WriteToUDPAddrPort(buf, r.To.Addr)
		return buf, err
	}
	src := netip.AddrPortFrom(n.Config.server(m), at.Port)
	buf = appendFrame(buf, n.link.mac, r.To.MAC, src, r.To.Addr, r.Append)
	_, err := n.out.Write(buf)
	return buf, err
}

// eachFrame hands on frames until the socket is closed.
func (n *session) eachFrame(ctx context.Context, f frames, do func([]byte)) {
	buf := make([]byte, maxRequest)
	for {
		size, err := f.Read(buf)
		if err == nil {
			do(buf[:size])
			continue
		}
		if !n.goesOn(ctx, err) {
			return
		}
	}
}

// ask looks once in a while whether somebody else has a node's address. The
// answer comes to sawARP, and no reply waits for it.
func (n *session) ask(m Machine) {
	if n.Config.mode() != ModeServer || !n.asked.allow(m.Node.Address.String()) {
		return
	}
	n.mu.Lock()
	n.watched[m.Node.Address] = m
	n.mu.Unlock()
	if _, err := n.out.Write(arpRequest(n.link.mac, n.Config.server(m), m.Node.Address)); err != nil {
		n.Log.Debug("asking for the owner of "+m.Node.Address.String()+": "+err.Error(), "interface", n.Config.Interface)
	}
}

func (n *session) sawARP(frame []byte) {
	mac, a, ok := arpSender(frame)
	if !ok {
		return
	}
	n.mu.Lock()
	m, ok := n.watched[a]
	n.mu.Unlock()
	if !ok {
		return
	}
	if e, ok := conflict(m, mac, n.link.mac); ok && n.conflicts.allow(e.MAC+a.String()) {
		n.tell(e)
	}
}

func (n *session) solicited(frame []byte) {
	mac, src, ok := solicitation(frame)
	if !ok {
		return
	}
	if _, known := n.Nodes.ByMAC(mac); !known {
		return
	}
	if _, err := n.out.Write(advertisement(n.link.mac, mac, src)); err != nil {
		n.Log.Debug("answering a router solicitation: "+err.Error(), "interface", n.Config.Interface)
	}
}

// lookOut looks for other DHCP servers now and then.
func (n *session) lookOut(ctx context.Context) {
	t := time.NewTicker(n.ProbeEvery)
	defer t.Stop()
	for {
		if err := n.probe(ctx); err != nil && ctx.Err() == nil {
			n.Log.Debug("looking for other DHCP servers: "+err.Error(), "interface", n.Config.Interface)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// probeWait is how long offers are listened for: dnsmasq, the slowest, pings an
// address for 3 s before it offers it.
const probeWait = 5 * time.Second

func (n *session) probe(ctx context.Context) error {
	f, err := openFrames(n.ifi(), tapReplies)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer func() { stop(); _ = f.Close() }()
	if err := f.SetReadDeadline(time.Now().Add(probeWait)); err != nil {
		return err
	}
	xid := binary.BigEndian.Uint32(n.link.mac[2:])
	if _, err := n.out.Write(probeFrame(n.link.mac, xid)); err != nil {
		return err
	}
	return n.offers(f)
}

// offers reports every server that is heard until the deadline, whomever it
// answers.
func (n *session) offers(f frames) error {
	buf := make([]byte, maxRequest)
	for {
		size, err := f.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		if p, ok := udpPayload(buf[:size], clientPort); ok {
			n.heard(p)
		}
	}
}

func (n *session) heard(payload []byte) {
	if id, ok := foreignServer(payload, n.own); ok && n.foreign.allow(id.String()) {
		n.tell(foreignEvent(id))
	}
}

// own says whether a server's address is this one's. Where the address is left
// to the images, it is one of the interface's.
func (n *session) own(a netip.Addr) bool {
	return n.link.has(a) || a == n.Config.ServerAddr
}
