package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// listener is one TCP socket and its connections.
type listener struct {
	s  *Server
	nl net.Listener
	// tick counts steps of the janitor; connections note it and compare.
	tick atomic.Int64

	wg    sync.WaitGroup
	mu    sync.Mutex
	conns map[*conn]struct{}
}

// ServeTCP accepts connections from nl, which it closes, until ctx ends; then
// calls in flight have Limits.Drain to end. It returns nil then, and an error
// where nl can accept no more.
func (s *Server) ServeTCP(ctx context.Context, nl net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l := &listener{s: s, nl: nl, conns: map[*conn]struct{}{}}
	go l.janitor(ctx)
	stop := context.AfterFunc(ctx, func() { nl.Close() })
	defer stop()
	err := l.accept(ctx)
	nl.Close()
	l.drain()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("accepting RPC connections on %s: %w", nl.Addr(), err)
}

// accept runs until the listener is closed. Anything else that goes wrong,
// such as no descriptors left (EMFILE), passes: it waits and tries again.
func (l *listener) accept(ctx context.Context) error {
	const first, longest = 5 * time.Millisecond, time.Second
	wait := first
	for {
		nc, err := l.nl.Accept()
		if err == nil {
			wait = first
			l.admit(ctx, nc)
			continue
		}
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return err
		}
		l.s.log.Warn("accepting an RPC connection failed; trying again", "address", l.nl.Addr(), "error", err, "after", wait)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, longest)
	}
}

// admit starts a connection, or closes it where it would be one too many.
func (l *listener) admit(ctx context.Context, nc net.Conn) {
	s := l.s
	remote := addrPort(nc.RemoteAddr())
	var who *client
	if s.Stats.Connections.Add(1) <= int64(s.limits.Connections) {
		who = s.enter(remote.Addr(), s.limits.PerClient)
	}
	if who == nil {
		s.Stats.Connections.Add(-1)
		s.Stats.Refused.Add(1)
		nc.Close()
		return
	}
	s.Stats.Accepted.Add(1)
	c := newConn(ctx, l, nc, remote, who)
	l.mu.Lock()
	l.conns[c] = struct{}{}
	l.mu.Unlock()
	l.wg.Go(func() {
		c.serve()
		l.forget(c)
	})
}

func (l *listener) forget(c *conn) {
	l.mu.Lock()
	delete(l.conns, c)
	l.mu.Unlock()
	l.s.leave(c.peer.Remote.Addr(), c.who)
	l.s.Stats.Connections.Add(-1)
}

// drain lets calls in flight end, and cuts what lasts too long.
func (l *listener) drain() {
	l.each(func(c *conn) { c.stopReading() })
	cut := time.AfterFunc(l.s.limits.Drain, func() { l.each(func(c *conn) { c.nc.Close() }) })
	defer cut.Stop()
	l.wg.Wait()
}

func (l *listener) each(fn func(*conn)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		fn(c)
	}
}

// janitor closes what has been silent, half sent or unread for too long, until
// ctx ends. Connections note ticks instead of setting deadlines: a deadline
// costs as much as a GETATTR.
func (l *listener) janitor(ctx context.Context) {
	step := l.s.limits.step()
	t := time.NewTicker(step)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			now := l.tick.Add(1)
			l.each(func(c *conn) { c.sweep(now, step) })
		}
	}
}

// step is the janitor's, a quarter of the shortest limit.
func (l Limits) step() time.Duration {
	return max(min(l.Idle, l.Partial, l.Write)/4, time.Millisecond)
}

// addrPort is the address of a socket's other end, without the form that IPv4
// has on IPv6 sockets.
func addrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	if a, ok := a.(interface{ AddrPort() netip.AddrPort }); ok { // *net.TCPAddr, *net.UDPAddr, *origin
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
