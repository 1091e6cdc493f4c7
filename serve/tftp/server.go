// Package tftp serves files read-only over TFTP (RFC 1350, 2347, 2348, 2349 and
// 7440), straight from the merged root of the node that asks, and nothing but
// what its boot spec names.
//
// What a request means is decided in negotiate.go, what an acknowledgement means
// in window.go, how long to wait in clock.go; server.go owns port 69, send.go the
// socket of one transfer.
//
// github.com/pin/tftp gives the netascii encoding here and the client of the tests.
// Its server cannot be taught windows: a handler sees a name and an
// io.ReaderFrom, not the options. Nor can it end a transfer when FreeBSD's
// loader asks for the next file from the same port, choose the address that it answers
// from, or tell a client's error code; so the loop here is our own.
package tftp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"rhizome/serve/boot"
	"rhizome/serve/bootspec"
)

// Defaults of Server's bounds.
const (
	DefaultTransfers = 4096
	DefaultPerClient = 32
)

// Server answers read requests. Its fields must not change once Serve runs.
type Server struct {
	// Machines finds the machine behind a client's address.
	Machines bootspec.ByAddr
	// Events takes what was seen; nil is silence.
	Events boot.Sink
	// Log takes what is wrong with the server itself; nil is silence.
	Log *slog.Logger
	// Now is the clock of events; nil means time.Now.
	Now func() time.Time
	// Transfers and PerClient bound how many run at once, in all and for one
	// address; 0 means the defaults. What is beyond stays unanswered, so that the client asks again.
	Transfers, PerClient int
	// MTU bounds the block size beside the interface's own MTU, in bytes; 0
	// leaves it to the interface.
	MTU int
	// Counters may be read at any time.
	Counters Counters
}

// Counters count since the start.
type Counters struct {
	// Requests are well-formed read and write requests; Done, NotFound, Refused
	// and Aborted are how they ended; Dropped were beyond a bound or malformed.
	Requests, Done, NotFound, Refused, Aborted, Dropped atomic.Int64
	// Bytes of files that were acknowledged, Repeats windows sent again.
	Bytes, Repeats atomic.Int64
	// Active are the transfers that run now.
	Active atomic.Int64
}

// listener is one Serve: a socket and what runs because of it.
type listener struct {
	*Server
	local  netip.Addr
	bounds bounds
	table  *table
	quiet  bootspec.Valve
	wg     sync.WaitGroup
}

// Serve answers requests that come to conn until ctx ends, then ends the running
// transfers and returns nil. Any other error is the socket's. conn must be bound
// to one address, the one that clients know: answers are sent from it.
func (s *Server) Serve(ctx context.Context, conn *net.UDPConn) error {
	local, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil || local.Addr().IsUnspecified() {
		return fmt.Errorf("serving TFTP on %v: the socket must be bound to one address", conn.LocalAddr())
	}
	l := &listener{Server: s, local: local.Addr().Unmap()}
	l.bounds = boundsFor(linkMTU(l.local), s.MTU, l.local)
	l.table = newTable(orDefault(s.Transfers, DefaultTransfers), orDefault(s.PerClient, DefaultPerClient))
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	err = l.loop(ctx, conn)
	cancel(errStopping)
	l.wg.Wait()
	return err
}

func orDefault(n, otherwise int) int {
	if n > 0 {
		return n
	}
	return otherwise
}

// loop only receives. Errors of a UDP socket pass (an interface that goes down
// and comes back), so it goes on, slowly, unless the socket is closed.
func (l *listener) loop(ctx context.Context, conn *net.UDPConn) error {
	packet := make([]byte, 2048)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(packet)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the socket was closed because serving ends
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("receiving TFTP requests on %v: %w", conn.LocalAddr(), err)
		case err != nil:
			l.logError("receiving a TFTP request", err)
			wait(ctx, 100*time.Millisecond)
		default:
			l.receive(ctx, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), packet[:n])
		}
	}
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func (s *Server) logError(doing string, err error) {
	if s.Log != nil {
		s.Log.Error(doing, "error", err)
	}
}

// receive admits one packet of port 69 and answers it in a goroutine.
func (l *listener) receive(ctx context.Context, from netip.AddrPort, packet []byte) {
	r, err := ParseRequest(packet)
	if err != nil {
		l.Counters.Dropped.Add(1)
		return
	}
	e, ok := l.table.admit(ctx, from, string(packet))
	if !ok {
		l.Counters.Dropped.Add(1)
		return
	}
	l.Counters.Requests.Add(1)
	l.Counters.Active.Add(1)
	l.wg.Go(func() {
		defer l.Counters.Active.Add(-1)
		defer l.table.release(from, e)
		defer l.recovered(from, r.Name)
		l.answer(e, from, r)
	})
}

// recovered keeps one request from ending all boots.
func (l *listener) recovered(from netip.AddrPort, name string) {
	if p := recover(); p != nil {
		l.logError("answering a TFTP request", fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
		l.event(boot.Event{Kind: boot.TFTPAborted, Addr: from.Addr(), File: name, Error: "an internal error; the server's log has it"})
	}
}

func (s *Server) event(e boot.Event) {
	if s.Now != nil {
		e.Time = s.Now()
	} else {
		e.Time = time.Now()
	}
	s.Events.Send(e)
}
