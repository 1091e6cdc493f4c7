package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// maxDatagram is the largest UDP payload in bytes.
const maxDatagram = 65507

// udpBatch is how many datagrams are read and written with one call to the
// system.
const udpBatch = 16

// oobSize has room for the control message that says which of our addresses a
// datagram came to (IP_PKTINFO on Linux, IP_RECVDSTADDR on FreeBSD, IPV6_PKTINFO).
const oobSize = 64

// packetConn reads and writes datagrams in batches: ipv4.PacketConn and
// ipv6.PacketConn do.
type packetConn interface {
	ReadBatch(ms []ipv4.Message, flags int) (int, error)
	WriteBatch(ms []ipv4.Message, flags int) (int, error)
}

// ServeUDP answers datagrams that come to pc, which it closes, until ctx ends;
// it returns nil then. A reply leaves from the address that its call came to,
// through the interface it came by. The calls served over UDP must be
// idempotent: there is no cache of duplicate requests.
func (s *Server) ServeUDP(ctx context.Context, pc net.PacketConn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { pc.Close() })
	defer stop()
	u := newUDP(ctx, s, pc)
	err := u.serve()
	pc.Close()
	u.workers.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("reading RPC datagrams on %s: %w", pc.LocalAddr(), err)
}

// udp is one UDP socket.
type udp struct {
	s       *Server
	ctx     context.Context
	pc      packetConn
	in, out []ipv4.Message
	call    Call
	replies [udpBatch]*Reply
	workers sync.WaitGroup
}

func newUDP(ctx context.Context, s *Server, pc net.PacketConn) *udp {
	u := &udp{s: s, ctx: ctx, pc: directly(pc, batching(pc)), in: make([]ipv4.Message, udpBatch), out: make([]ipv4.Message, 0, udpBatch)}
	for i := range u.in {
		u.in[i].Buffers = [][]byte{make([]byte, maxDatagram)}
		u.in[i].OOB = make([]byte, oobSize)
	}
	return u
}

// batching wraps pc; where pc is bound to no address in particular, it asks
// for the address that each datagram came to.
func batching(pc net.PacketConn) packetConn {
	local := addrPort(pc.LocalAddr()).Addr()
	if addr, ok := pc.LocalAddr().(*net.UDPAddr); ok && addr.IP.To4() == nil {
		p := ipv6.NewPacketConn(pc)
		if local.IsUnspecified() {
			p.SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true)
		}
		return p
	}
	p := ipv4.NewPacketConn(pc)
	if local.IsUnspecified() {
		p.SetControlMessage(ipv4.FlagDst, true)
	}
	return p
}

// serve runs until the socket is closed. Other errors, such as no memory for a
// datagram (ENOBUFS), pass.
func (u *udp) serve() error {
	for {
		n, err := u.pc.ReadBatch(u.in, 0)
		if err != nil {
			if u.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return err
			}
			u.s.log.Warn("reading RPC datagrams failed; trying again", "error", err)
			time.Sleep(5 * time.Millisecond)
			continue
		}
		for i := range u.in[:n] {
			u.datagram(&u.in[i])
		}
		u.flush()
	}
}

// datagram answers one datagram, or starts a worker for it.
func (u *udp) datagram(m *ipv4.Message) {
	msg := m.Buffers[0][:m.N]
	u.s.Stats.BytesIn.Add(uint64(m.N))
	u.call.Peer = &Peer{Remote: addrPort(m.Addr), Transport: UDP, ctx: u.ctx}
	v := parseCall(msg, &u.call)
	if v == dispatch {
		u.s.Stats.CallsUDP.Add(1)
	}
	out := newReply()
	if u.s.answer(v, &u.call, out) {
		u.handOver(msg, m, u.call.Peer)
	}
	if len(out.buf) == 0 {
		out.release()
		return
	}
	u.replies[len(u.out)] = out
	u.out = u.out[:len(u.out)+1]
	address(&u.out[len(u.out)-1], m, out)
}

// address makes reply the answer to the datagram m. The control message goes
// back as it came: where it names the address the call came to, it is now the
// address the reply comes from.
func address(reply, m *ipv4.Message, out *Reply) {
	reply.Buffers = out.appendTo(reply.Buffers[:0], recordMark)
	reply.OOB = m.OOB[:m.NN]
	reply.Addr = m.Addr
}

// flush sends the replies. One that cannot be sent is the network's loss like
// any other: the client asks again.
func (u *udp) flush() {
	u.send(u.out)
	for i := range u.out {
		u.replies[i].release()
		u.replies[i] = nil
		clear(u.out[i].Buffers)
	}
	u.out = u.out[:0]
}

func (u *udp) send(ms []ipv4.Message) {
	for len(ms) > 0 {
		n, err := u.pc.WriteBatch(ms, 0)
		if err != nil {
			n = 1
		}
		for i := range ms[:n] {
			u.s.Stats.BytesOut.Add(uint64(ms[i].N))
		}
		ms = ms[n:]
	}
}

// handOver starts a worker for the call in msg. Where there are too many
// already, the call is dropped, and comes again.
func (u *udp) handOver(msg []byte, m *ipv4.Message, peer *Peer) {
	who := u.s.enter(peer.Remote.Addr(), u.s.limits.InFlight+u.s.limits.PerClient)
	if who == nil {
		u.s.Stats.Dropped.Add(1)
		return
	}
	select {
	case u.s.workers <- struct{}{}:
	default:
		u.s.Stats.Dropped.Add(1)
		u.s.leave(peer.Remote.Addr(), who)
		return
	}
	copied := ipv4.Message{Addr: m.Addr, OOB: slices.Clone(m.OOB[:m.NN]), NN: m.NN}
	msg = append(newMessage(), msg...)
	u.workers.Go(func() {
		u.work(msg, &copied, peer)
		<-u.s.workers
		u.s.leave(peer.Remote.Addr(), who)
	})
}

func (u *udp) work(msg []byte, m *ipv4.Message, peer *Peer) {
	out := newReply()
	call := Call{Peer: peer, MayBlock: true}
	u.s.answer(parseCall(msg, &call), &call, out)
	freeMessage(msg)
	if len(out.buf) > 0 {
		var reply ipv4.Message
		address(&reply, m, out)
		u.send([]ipv4.Message{reply})
	}
	out.release()
}
