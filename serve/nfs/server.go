package nfs

import (
	"errors"
	"io/fs"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"rhizome/serve/boot"
	"rhizome/serve/rootfs"
	"rhizome/serve/rpc"
)

// Server answers MOUNT and NFSv3.
type Server struct {
	exports  Exports
	backends []Mounted
	events   boot.Sink
	meters   func(client netip.Addr, fsys FS) Meter
	now      func() time.Time

	strangers session
	mu        sync.RWMutex
	sessions  map[netip.Addr]*session
	troubles  map[trouble]time.Time
}

// Config is what a Server is made of.
type Config struct {
	Exports Exports
	// Backends serve the writable exports; the first whose prefix fits is taken.
	Backends []Mounted
	// Events hears of mounts, first calls and refusals; nil is silence. The
	// events name the client's address, not its node.
	Events boot.Sink
	// Meters gives what counts a client's use of a file system; nil, or a nil
	// Meter, counts nothing.
	Meters func(client netip.Addr, fsys FS) Meter
	// Now is the clock of the events; nil is the system's.
	Now func() time.Time
}

// NewServer makes a server; Programs goes to rpc.NewServer.
func NewServer(c Config) *Server {
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Server{
		exports: c.Exports, backends: c.Backends, events: c.Events, meters: c.Meters, now: c.Now,
		sessions: map[netip.Addr]*session{}, troubles: map[trouble]time.Time{},
	}
}

// Programs are NFS v3 and MOUNT v1 and v3.
func (s *Server) Programs() []rpc.Program {
	return []rpc.Program{
		{Number: Program, Versions: []uint32{Version}, Handler: s},
		{Number: MountProgram, Versions: []uint32{1, 3}, Handler: mountProgram{s}},
	}
}

// request is one NFS call on a file of a view.
type request struct {
	s     *Server
	known *session
	call  *rpc.Call
	out   *rpc.Reply
	// args are what follows the handle.
	args rpc.Decoder
	who  identity

	fs    FS
	fsid  uint64
	meter Meter
	file  rootfs.File
	attr  rootfs.Attr
}

// Serve answers one NFS call. It is the hot path: on a hit nothing in it
// allocates.
func (s *Server) Serve(c *rpc.Call, out *rpc.Reply) rpc.Status {
	if c.Procedure >= procCount {
		return rpc.ProcUnavail
	}
	if c.Procedure == procNull {
		return rpc.Success
	}
	d := rpc.NewDecoder(c.Args)
	handle := d.Opaque(maxHandle)
	if !d.Ok() {
		return rpc.GarbageArgs
	}
	id, _, err := rootfs.ParseHandle(handle)
	if err != nil {
		return s.foreign(handle, c, out)
	}
	return s.serveView(id, handle, d, c, out)
}

// foreign answers a call whose handle is no view's.
func (s *Server) foreign(handle []byte, c *rpc.Call, out *rpc.Reply) rpc.Status {
	for _, m := range s.backends {
		if m.Backend.Owns(handle) {
			if !c.MayBlock && !c.MayPause {
				return rpc.WouldBlock
			}
			s.session(c.Peer).counters.Calls[c.Procedure].Add(1)
			return m.Backend.Call(c, out)
		}
	}
	fail(c.Procedure, errBadHandle, out)
	return rpc.Success
}

func (s *Server) serveView(id [16]byte, handle []byte, args rpc.Decoder, c *rpc.Call, out *rpc.Reply) rpc.Status {
	g, known, err := s.find(c.Peer, s.session(c.Peer), id, c.MayBlock)
	if err != nil {
		if !c.MayBlock && errors.Is(err, ErrLater) {
			return rpc.WouldBlock
		}
		fail(c.Procedure, s.refuse(known, c, err), out)
		return rpc.Success
	}
	r := request{s: s, known: known, call: c, out: out, args: args, who: identify(c), fs: g.fs, fsid: g.fsid, meter: g.meter}
	if r.file, err = g.fs.FromHandle(handle); err == nil {
		r.attr, err = g.fs.Attr(r.file)
	}
	if err != nil {
		fail(c.Procedure, toStatus(err), out)
		return rpc.Success
	}
	status := r.serve()
	if status == rpc.Success {
		known.counters.Calls[c.Procedure].Add(1)
		if !known.called.Load() && g.fs.Digest() != "" {
			s.firstCall(known, c, g.fs)
		}
	}
	runtime.KeepAlive(g) // and with it the bytes of names that were copied
	return status
}

func (r *request) serve() rpc.Status {
	switch r.call.Procedure {
	case procGetattr:
		return r.getattr()
	case procLookup:
		return r.lookup()
	case procAccess:
		return r.access()
	case procReadlink:
		return r.readlink()
	case procRead:
		return r.read()
	case procReaddir:
		return r.readdir()
	case procReaddirplus:
		return r.readdirplus()
	case procFsstat:
		return r.fsstat()
	case procFsinfo:
		return r.fsinfo()
	case procPathconf:
		return r.pathconf()
	}
	return r.refuseChange()
}

// failure is what FailureShape gives.
var failure = [procCount]struct{ postOps, wccs int }{
	procSetattr: {0, 1}, procLookup: {1, 0}, procAccess: {1, 0}, procReadlink: {1, 0}, procRead: {1, 0},
	procWrite: {0, 1}, procCreate: {0, 1}, procMkdir: {0, 1}, procSymlink: {0, 1}, procMknod: {0, 1},
	procRemove: {0, 1}, procRmdir: {0, 1}, procRename: {0, 2}, procLink: {1, 1}, procReaddir: {1, 0},
	procReaddirplus: {1, 0}, procFsstat: {1, 0}, procFsinfo: {1, 0}, procPathconf: {1, 0}, procCommit: {0, 1},
}

// FailureShape is what follows the status in a procedure's results when it
// fails (RFC 1813, 3.3): how many post_op_attr, then how many wcc_data.
func FailureShape(procedure uint32) (postOps, wccs int) {
	f := failure[procedure]
	return f.postOps, f.wccs
}

// Refuse appends the results of a procedure that failed on a file about which
// nothing can be said: the status (nfsstat3), and no attributes.
func Refuse(procedure, status uint32, out *rpc.Reply) {
	postOps, wccs := FailureShape(procedure)
	out.Uint32(status)
	out.Zeros(4*postOps + 8*wccs)
}

func fail(procedure uint32, st status, out *rpc.Reply) { Refuse(procedure, uint32(st), out) }

// fail answers with the file's attributes beside the status.
func (r *request) fail(st status) rpc.Status {
	if st != errNoEnt {
		r.known.counters.Errors.Add(1)
	}
	f := failure[r.call.Procedure]
	r.out.Uint32(uint32(st))
	for range f.postOps {
		appendPostOp(r.out, &r.attr, r.fsid)
	}
	for range f.wccs {
		appendWcc(r.out, &r.attr, r.fsid)
	}
	return rpc.Success
}

// refuseChange answers everything that would change the file system. What the
// second directory of RENAME and the directory of LINK are is not looked at:
// their wcc_data stay empty.
func (r *request) refuseChange() rpc.Status {
	r.known.counters.Errors.Add(1)
	r.out.Uint32(uint32(errROFS))
	switch r.call.Procedure {
	case procLink:
		appendPostOp(r.out, &r.attr, r.fsid)
		r.out.Uint64(0)
	case procRename:
		appendWcc(r.out, &r.attr, r.fsid)
		r.out.Uint64(0)
	default:
		appendWcc(r.out, &r.attr, r.fsid)
	}
	return rpc.Success
}

// refuse turns a refusal of Exports into a status, and tells of it. An image
// that is not here may have been there before: its handles are stale.
func (s *Server) refuse(known *session, c *rpc.Call, err error) status {
	known.counters.Errors.Add(1)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, rootfs.ErrStale) {
		s.tell(boot.Event{Kind: boot.NFSRefused, Addr: c.Peer.Remote.Addr(),
			Error: "the file handle is of an image that is not served here: " + err.Error()})
		return errStale
	}
	if errors.Is(err, ErrLater) {
		return errJukebox
	}
	s.tell(boot.Event{Kind: boot.NFSRefused, Addr: c.Peer.Remote.Addr(), Error: err.Error()})
	if errors.Is(err, fs.ErrPermission) {
		return errAcces
	}
	return errIO
}

func (s *Server) firstCall(known *session, c *rpc.Call, fsys FS) {
	if known.called.CompareAndSwap(false, true) {
		s.events.Send(boot.Event{Time: s.now(), Kind: boot.NFSFirstCall, Addr: c.Peer.Remote.Addr(),
			Digest: fsys.Digest(), Detail: "over " + c.Peer.Transport.String()})
	}
}
