package httpd

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
)

// limited closes connections beyond a bound as soon as they come: a client that
// opens too many finds out at once, and the others find room.
type limited struct {
	net.Listener
	total, perClient int
	dropped          *atomic.Int64

	mu      sync.Mutex
	open    int
	clients map[netip.Addr]int
}

func limit(ln net.Listener, total, perClient int, dropped *atomic.Int64) net.Listener {
	return &limited{Listener: ln, total: total, perClient: perClient, dropped: dropped, clients: map[netip.Addr]int{}}
}

func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := clientOf(c.RemoteAddr().String()).Addr()
		if l.take(from) {
			return counted(c, func() { l.give(from) }), nil
		}
		l.dropped.Add(1)
		_ = c.Close()
	}
}

func (l *limited) take(from netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.total || l.clients[from] >= l.perClient {
		return false
	}
	l.open++
	l.clients[from]++
	return true
}

func (l *limited) give(from netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if l.clients[from]--; l.clients[from] <= 0 {
		delete(l.clients, from)
	}
}

// counted calls back once when the connection closes. It keeps ReadFrom of TCP,
// which is sendfile.
func counted(c net.Conn, closed func()) net.Conn {
	once := sync.OnceFunc(closed)
	if tcp, ok := c.(*net.TCPConn); ok {
		return &countedTCP{tcp, once}
	}
	return &countedConn{c, once}
}

type countedTCP struct {
	*net.TCPConn
	closed func()
}

func (c *countedTCP) Close() error {
	c.closed()
	return c.TCPConn.Close()
}

type countedConn struct {
	net.Conn
	closed func()
}

func (c *countedConn) Close() error {
	c.closed()
	return c.Conn.Close()
}

// clientOf reads "address:port"; the zero value stands for what is none.
func clientOf(remote string) netip.AddrPort {
	a, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
