package nfs

import (
	"net/netip"
	"sync/atomic"
	"time"

	"rhizome/serve/boot"
	"rhizome/serve/rpc"
)

// maxSessions is how many client addresses are remembered.
const maxSessions = 1 << 16

// Counters are what one client did. Read them with Load at any time.
type Counters struct {
	// Calls by procedure; ProcedureName names them.
	Calls [procCount]atomic.Uint64
	// Errors are calls answered with a status other than NFS3_OK and
	// NFS3ERR_NOENT.
	Errors atomic.Uint64
	// BytesRead are those of file bodies.
	BytesRead atomic.Uint64
	// Mounts are successful MNT calls.
	Mounts atomic.Uint64
}

// ProcedureName names the procedure at an index of Counters.Calls.
func ProcedureName(i int) string { return procNames[i] }

// session is what is kept of a client, by its address: it holds for TCP and
// UDP alike, for FreeBSD's loader mounts over the one what its kernel uses
// over the other.
type session struct {
	addr     netip.Addr
	counters Counters
	// views are the file systems that ByID allowed, by the handle's first byte.
	views [4]atomic.Pointer[grant]
	// called is set by the first NFS call after a mount, inited by the first
	// LOOKUP of the init program.
	called, inited atomic.Bool
	// lastMount is when it last mounted, in Unix nanoseconds, and
	// lastMountPath what.
	lastMount     atomic.Int64
	lastMountPath atomic.Pointer[string]
	// mounts are the paths in the list of mounts; Server.mu guards them.
	mounts map[string]struct{}
}

// grant is an answer of Exports.ByID.
type grant struct {
	id         [16]byte
	generation uint64
	fs         FS
	fsid       uint64
	meter      Meter
}

// session finds what is known of a caller. A stranger, who has no right to
// anything so far, shares one session with all others.
func (s *Server) session(p *rpc.Peer) *session {
	if known, ok := p.State.Load().(*session); ok {
		return known
	}
	s.mu.RLock()
	known := s.sessions[p.Remote.Addr()]
	s.mu.RUnlock()
	if known == nil {
		return &s.strangers
	}
	if p.Transport == rpc.TCP {
		p.State.Store(known)
	}
	return known
}

// welcome makes a session for a caller whom Exports has allowed something.
func (s *Server) welcome(addr netip.Addr) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.sessions[addr]
	switch {
	case known != nil:
	case len(s.sessions) >= maxSessions:
		return &s.strangers
	default:
		known = &session{addr: addr, mounts: map[string]struct{}{}}
		s.sessions[addr] = known
	}
	return known
}

// find gives the file system with an id, if the caller may use it.
func (s *Server) find(p *rpc.Peer, known *session, id [16]byte, mayWait bool) (*grant, *session, error) {
	generation := s.exports.Generation()
	slot := &known.views[id[0]%uint8(len(known.views))]
	if g := slot.Load(); g != nil && g.id == id && g.generation == generation {
		return g, known, nil
	}
	fsys, err := s.exports.ByID(id, p.Remote.Addr(), mayWait)
	if err != nil {
		return nil, known, err
	}
	g := &grant{id: id, generation: generation, fs: fsys, fsid: fsys.FSID()}
	if s.meters != nil {
		g.meter = s.meters(p.Remote.Addr(), fsys)
	}
	if known == &s.strangers {
		known = s.welcome(p.Remote.Addr())
	}
	if known != &s.strangers {
		known.views[id[0]%uint8(len(known.views))].Store(g)
	}
	return g, known, nil
}

// ForgetGrants lets go of file systems that clients were allowed to use before
// Generation changed last, and did not ask for since: a node that is off must not
// keep its root open.
func (s *Server) ForgetGrants() {
	generation := s.exports.Generation()
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, known := range s.sessions {
		for i := range known.views {
			if g := known.views[i].Load(); g != nil && g.generation != generation {
				known.views[i].CompareAndSwap(g, nil)
			}
		}
	}
}

// Clients calls fn for every client that was ever allowed something.
func (s *Server) Clients(fn func(addr netip.Addr, c *Counters)) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for addr, known := range s.sessions {
		fn(addr, &known.counters)
	}
}

// Booting forgets that a client had mounted and called: the next time counts
// as the first again. Call it when a node asks for an address.
func (s *Server) Booting(addr netip.Addr) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if known := s.sessions[addr]; known != nil {
		known.lastMount.Store(0)
		known.called.Store(false)
		known.inited.Store(false)
	}
}

// quiet is how long a repeated mount or a repeated error makes no new event.
const quiet = 10 * time.Second

// trouble is what a client had, and when it is told of next.
type trouble struct {
	addr netip.Addr
	kind boot.Kind
}

// maxTroubles is how many troubles are remembered.
const maxTroubles = 4096

// tell sends an event about something wrong, at most one of a kind and client
// in a quiet period: a flood of bad calls makes no flood of events.
func (s *Server) tell(e boot.Event) {
	if s.events == nil {
		return
	}
	e.Time = s.now()
	t := trouble{e.Addr, e.Kind}
	s.mu.Lock()
	last, known := s.troubles[t]
	fresh := !known || e.Time.Sub(last) >= quiet
	if fresh {
		if len(s.troubles) >= maxTroubles {
			clear(s.troubles)
		}
		s.troubles[t] = e.Time
	}
	s.mu.Unlock()
	if fresh {
		s.events.Send(e)
	}
}
