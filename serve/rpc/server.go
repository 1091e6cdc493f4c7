package rpc

import (
	"log/slog"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
)

// Server serves programs on any number of sockets that are handed to
// ServeTCP and ServeUDP. All programs answer on all of them.
type Server struct {
	programs []Program
	limits   Limits
	log      *slog.Logger
	// Stats may be read while the server runs.
	Stats Stats

	// memory is what calls in pieces and replies on their way take, and waiting what
	// replies do that workers have yet to send.
	memory, waiting budget
	workers         chan struct{}

	mu      sync.Mutex
	clients map[netip.Addr]*client
}

// client is what one address holds: its connections, and its calls that wait
// for disk.
type client struct {
	uses  int
	slots chan struct{}
}

// NewServer makes a server of programs. A nil log is silence.
func NewServer(programs []Program, l Limits, log *slog.Logger) *Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l = l.withDefaults()
	return &Server{
		programs: programs, limits: l, log: log,
		memory:  budget{limit: l.Memory},
		waiting: budget{limit: l.Memory},
		workers: make(chan struct{}, l.Workers),
		clients: map[netip.Addr]*client{},
	}
}

// enter gives the record of an address, or nil where limit uses of it are
// under way already; leave must follow.
func (s *Server) enter(addr netip.Addr, limit int) *client {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.clients[addr]
	if c == nil {
		c = &client{slots: make(chan struct{}, s.limits.InFlight)}
		s.clients[addr] = c
	}
	if c.uses >= limit {
		return nil
	}
	c.uses++
	return c
}

func (s *Server) leave(addr netip.Addr, c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.uses--; c.uses == 0 {
		delete(s.clients, addr)
	}
}

// answer serves the call in c, whose header said v, and appends the reply
// message, if there is one. It tells whether the call must be handed to a
// worker instead.
func (s *Server) answer(v verdict, c *Call, out *Reply) (later bool) {
	switch v {
	case drop:
		s.Stats.Dropped.Add(1)
		return false
	case denyVersion, denyCred:
		s.Stats.Denied.Add(1)
		appendDenied(out, c.XID, v)
		return false
	}
	status := s.run(c, out)
	if status == WouldBlock && c.MayBlock {
		status = SystemErr
	}
	switch status {
	case Success:
		out.end()
	case WouldBlock:
		out.abandon()
		return true
	case NoReply:
		out.abandon()
	default:
		out.abandon()
		s.appendFailed(out, c, status)
	}
	return false
}

// run calls the handler, with the reply's header written before. A panic in it
// is the call's failure and nobody else's.
func (s *Server) run(c *Call, out *Reply) (status Status) {
	out.begin()
	p := s.program(c.Program)
	if p == nil {
		return ProgUnavail
	}
	if !slices.Contains(p.Versions, c.Version) {
		return ProgMismatch
	}
	defer func() {
		if e := recover(); e != nil {
			s.Stats.Panics.Add(1)
			s.log.Error("a call made its handler panic", "program", c.Program, "procedure", c.Procedure,
				"client", c.Peer.Remote, "panic", e, "stack", string(debug.Stack()))
			status = SystemErr
		}
	}()
	appendAccepted(out, c.XID, Success)
	return p.Handler.Serve(c, out)
}

func (s *Server) program(n uint32) *Program {
	for i := range s.programs {
		if s.programs[i].Number == n {
			return &s.programs[i]
		}
	}
	return nil
}

// appendFailed is a whole reply to a call that was understood and not served.
func (s *Server) appendFailed(out *Reply, c *Call, status Status) {
	out.begin()
	appendAccepted(out, c.XID, status)
	if status == ProgMismatch {
		p := s.program(c.Program)
		out.Uint32(p.Versions[0])
		out.Uint32(p.Versions[len(p.Versions)-1])
	}
	out.end()
}

// appendAccepted is accepted_reply up to its status, with a verifier of
// AUTH_NONE and length 0: FreeBSD's loader takes no other.
func appendAccepted(out *Reply, xid uint32, status Status) {
	out.Uint32(xid)
	out.Uint32(msgReply)
	out.Uint32(replyAccepted)
	out.Uint64(0)
	out.Uint32(uint32(status))
}

// appendDenied is a whole rejected_reply.
func appendDenied(out *Reply, xid uint32, v verdict) {
	out.begin()
	out.Uint32(xid)
	out.Uint32(msgReply)
	out.Uint32(replyDenied)
	if v == denyVersion {
		out.Uint32(rpcMismatch)
		out.Uint32(rpcVersion)
		out.Uint32(rpcVersion)
	} else {
		out.Uint32(authError)
		out.Uint32(authBadCred)
	}
	out.end()
}
