package tftp

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
)

// faults are what a network does to datagrams, as chances of one packet.
type faults struct{ loss, double, swap float64 }

// relay is a bad network in front of a server: a UDP port that hands datagrams
// on in both directions and loses, doubles and swaps some, the same ones for
// the same seed and order. (Where the kernel has netem it does no better for UDP.)
type relay struct {
	faults
	server  netip.AddrPort
	front   *net.UDPConn
	mu      sync.Mutex
	random  *rand.Rand
	clients map[netip.AddrPort]*path
	held    map[*path][]func()
}

// path is one client's way to the server, which answers from another port than
// it was asked on.
type path struct {
	back *net.UDPConn
	to   netip.AddrPort
}

func throughRelay(t *testing.T, server netip.AddrPort, f faults) netip.AddrPort {
	t.Helper()
	r := &relay{faults: f, server: server, random: rand.New(rand.NewPCG(1, 2)), clients: map[netip.AddrPort]*path{}, held: map[*path][]func(){}}
	r.front = listen(t)
	go r.forward(t)
	return r.front.LocalAddr().(*net.UDPAddr).AddrPort()
}

func listen(t *testing.T) *net.UDPConn {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Error(err)
		return nil
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func (r *relay) forward(t *testing.T) {
	b := make([]byte, 65536)
	for {
		n, from, err := r.front.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		p := r.pathOf(t, from)
		packet := append([]byte(nil), b[:n]...)
		r.pass(p, func() {
			r.mu.Lock()
			to := p.to
			if packet[1] == opRRQ {
				to = r.server
			}
			r.mu.Unlock()
			_, _ = p.back.WriteToUDPAddrPort(packet, to)
		})
	}
}

func (r *relay) pathOf(t *testing.T, from netip.AddrPort) *path {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.clients[from]
	if p == nil {
		p = &path{back: listen(t), to: r.server}
		r.clients[from] = p
		go r.backward(p, from)
	}
	return p
}

func (r *relay) backward(p *path, to netip.AddrPort) {
	b := make([]byte, 65536)
	for {
		n, from, err := p.back.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		r.mu.Lock()
		p.to = from
		r.mu.Unlock()
		packet := append([]byte(nil), b[:n]...)
		r.pass(p, func() { _, _ = r.front.WriteToUDPAddrPort(packet, to) })
	}
}

// pass sends a packet, or not, or twice, or after the next one of its path.
func (r *relay) pass(p *path, write func()) {
	r.mu.Lock()
	lose, double, swap := r.random.Float64() < r.loss, r.random.Float64() < r.double, r.random.Float64() < r.swap
	late := r.held[p]
	r.held[p] = nil
	if swap && !lose {
		r.held[p] = []func(){write}
	}
	r.mu.Unlock()
	if !lose && !swap {
		write()
		if double {
			write()
		}
	}
	for _, w := range late {
		w()
	}
}
