package rpc

import (
	"context"
	"net/netip"
	"sync/atomic"
)

// Transport is what a call came over.
type Transport uint8

// The transports, with their numbers in the portmapper (IPPROTO_TCP, _UDP).
const (
	TCP Transport = 6
	UDP Transport = 17
)

func (t Transport) String() string {
	if t == UDP {
		return "udp"
	}
	return "tcp"
}

// Peer is who calls. One Peer lasts as long as a TCP connection; a datagram
// has a Peer of its own.
type Peer struct {
	Remote    netip.AddrPort
	Transport Transport
	// State is a place where the NFS and MOUNT programs keep what they know of
	// a TCP connection, so that it need not be looked up for each call. For a
	// datagram it starts out empty. Others who serve on the same sockets leave
	// it alone: an atomic.Value takes values of one type only.
	State atomic.Value

	ctx context.Context
}

// NewPeer makes a Peer for a call that did not come out of a socket of ours,
// such as a test's.
func NewPeer(ctx context.Context, remote netip.AddrPort, t Transport) *Peer {
	return &Peer{Remote: remote, Transport: t, ctx: ctx}
}

// Context ends when the connection does, or the server.
func (p *Peer) Context() context.Context {
	if p.ctx == nil {
		return context.Background()
	}
	return p.ctx
}

// Reserved tells whether the call came from a port that only root may use on
// a Unix machine.
func (p *Peer) Reserved() bool { return p.Remote.Port() < 1024 }

// Call is one call message (RFC 5531, 9). It and its slices are good until
// the handler returns.
type Call struct {
	XID, Program, Version, Procedure uint32

	Cred Cred
	// Args are the procedure's arguments, not yet looked at.
	Args []byte
	Peer *Peer
	// MayBlock says that the handler runs in a goroutine of its own and may
	// wait for disk or network. Where it is false, it answers WouldBlock
	// instead of waiting.
	MayBlock bool
	// MayPause says that the handler may wait for this machine's own disk,
	// though not for the network: no other call is held up by that.
	MayPause bool
}

// Status is how a call that was understood went (accept_stat of RFC 5531, 9).
type Status uint32

// The values of Status. The last two never go over the wire.
const (
	Success      Status = 0
	ProgUnavail  Status = 1
	ProgMismatch Status = 2
	ProcUnavail  Status = 3
	GarbageArgs  Status = 4
	SystemErr    Status = 5

	// WouldBlock asks to be called again with MayBlock set.
	WouldBlock Status = 1 << 30
	// NoReply means that the caller gets no answer at all.
	NoReply Status = 1<<30 + 1
)

// Handler serves the calls of one program. It is called by many goroutines at
// once. It appends the procedure's results to out and returns Success; with
// any other status what it appended is taken back.
type Handler interface {
	Serve(c *Call, out *Reply) Status
}

// Program is a handler and what it answers for.
type Program struct {
	Number uint32
	// Versions are in ascending order.
	Versions []uint32
	Handler  Handler
}

// Message types, reply_stat, reject_stat and auth_stat (RFC 5531, 9).
const (
	msgCall  = 0
	msgReply = 1

	replyAccepted = 0
	replyDenied   = 1

	rpcMismatch = 0
	authError   = 1

	authBadCred = 1
)

// rpcVersion is the only version of ONC RPC there is.
const rpcVersion = 2

// verdict is what the front does with a message.
type verdict uint8

const (
	// drop: not a call, or not even that; nobody could make sense of an answer.
	drop verdict = iota
	dispatch
	denyVersion
	denyCred
)

// parseCall reads the header of a call message into c (RFC 5531, 9). c.Peer
// and c.MayBlock are left as they are.
func parseCall(msg []byte, c *Call) verdict {
	d := NewDecoder(msg)
	c.XID = d.Uint32()
	kind, version := d.Uint32(), d.Uint32()
	if !d.Ok() || kind != msgCall {
		return drop
	}
	if version != rpcVersion {
		return denyVersion
	}
	c.Program, c.Version, c.Procedure = d.Uint32(), d.Uint32(), d.Uint32()
	credOk := c.Cred.decode(&d)
	d.Uint32()        // the verifier's flavor: AUTH_SYS has none worth a look
	d.Opaque(maxAuth) // and its body
	if !credOk {
		return denyCred
	}
	if !d.Ok() {
		return drop
	}
	c.Args = d.Rest()
	return dispatch
}
