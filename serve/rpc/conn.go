package rpc

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// flushAt is how many bytes of replies make a batch; a client that sends calls
// without end gets its answers in between.
const flushAt = 256 << 10

// conn is one TCP connection. Its goroutine reads calls and answers them where
// it can; calls that wait for disk go to workers, whose replies overtake.
type conn struct {
	l    *listener
	s    *Server
	nc   *direct
	peer *Peer
	who  *client
	end  context.CancelFunc

	in   *recordReader
	call Call
	// out collects replies until there is nothing more to read.
	out     *Reply
	workers sync.WaitGroup
	send    sender
	alone   alone
	// stopping is set when the server drains: no more is read.
	stopping atomic.Bool
	// readAt and partialAt are ticks: when something was last read, and when
	// the record that is still incomplete began (0: there is none).
	readAt, partialAt atomic.Int64
}

func newConn(ctx context.Context, l *listener, nc net.Conn, remote netip.AddrPort, who *client) *conn {
	// A call in flight outlives the order to stop: the drain ends it.
	ctx, end := context.WithCancel(context.WithoutCancel(ctx))
	c := &conn{
		l: l, s: l.s, nc: newDirect(nc), who: who, end: end,
		peer: NewPeer(ctx, remote, TCP),
		in:   newRecordReader(l.s.limits.Record, &l.s.memory),
		out:  newReply(),
	}
	c.call.Peer = c.peer
	c.readAt.Store(l.tick.Load())
	c.send.init(c.nc, &l.s.memory, &l.tick, &l.s.Stats)
	return c
}

// serve runs until the connection ends; then nothing of it is left.
func (c *conn) serve() {
	err := c.read()
	c.flush()
	c.workers.Wait()
	c.nc.Close()
	c.end()
	c.in.close()
	c.out.release()
	if err != nil && !quiet(err) && !c.stopping.Load() {
		c.s.Stats.Cut.Add(1)
		c.s.log.Info("an RPC connection ended", "client", c.peer.Remote, "error", err)
	}
}

// quiet tells whether err is how connections end every day.
func quiet(err error) bool {
	var op *net.OpError
	return errors.Is(err, net.ErrClosed) || errors.As(err, &op) || errors.Is(err, io.EOF)
}

func (c *conn) read() error {
	for {
		record, ok, err := c.in.next()
		if err != nil {
			return err
		}
		if ok {
			c.serveRecord(record)
			continue
		}
		c.flush()
		c.alone.read()
		if c.stopping.Load() {
			return nil
		}
		if err := c.fill(); err != nil {
			return err
		}
	}
}

// serveRecord answers a call now, or starts a worker for it.
func (c *conn) serveRecord(record []byte) {
	if c.partialAt.Load() != 0 {
		c.partialAt.Store(0) // it is here; a piece of the next may be, too, and has its own time
	}
	v := parseCall(record, &c.call)
	if v == dispatch {
		c.s.Stats.CallsTCP.Add(1)
	}
	c.alone.call()
	if c.s.answer(v, &c.call, c.out) && !c.pause(v) {
		c.handOver(record)
	}
	if c.out.size() >= flushAt {
		c.flush()
	}
}

// pause answers a call here though it waits for the disk, if it is the only one
// in flight. It tells whether that was done.
func (c *conn) pause(v verdict) bool {
	if !c.alone.likely() || c.in.partial() || len(c.who.slots) > 0 || !c.tryEnter() {
		return false
	}
	c.call.MayPause = true
	later := c.s.answer(v, &c.call, c.out)
	c.call.MayPause = false
	<-c.s.workers
	<-c.who.slots
	return !later
}

// handOver hands the call in record to a worker. Where the client has too many
// calls waiting, this waits too, and so does what the client sends meanwhile.
func (c *conn) handOver(record []byte) {
	if !c.tryEnter() {
		c.flush()
		c.who.slots <- struct{}{}
		c.s.workers <- struct{}{}
	}
	msg := append(newMessage(), record...)
	c.workers.Go(func() {
		c.work(msg)
		<-c.who.slots
	})
}

func (c *conn) tryEnter() bool {
	select {
	case c.who.slots <- struct{}{}:
	default:
		return false
	}
	select {
	case c.s.workers <- struct{}{}:
		return true
	default:
		<-c.who.slots
		return false
	}
}

// work serves a call and gives the worker's place back, before the reply is sent: a
// client that takes no replies, or is gone, must not keep others from the disk. It
// keeps its own place, and what waits to be sent is bounded.
func (c *conn) work(msg []byte) {
	out := newReply()
	call := Call{Peer: c.peer, MayBlock: true}
	c.s.answer(parseCall(msg, &call), &call, out)
	freeMessage(msg)
	size := int64(out.size())
	if !c.s.waiting.take(size) {
		defer func() { <-c.s.workers }()
		c.send.send(out)
		return
	}
	<-c.s.workers
	c.send.send(out)
	c.s.waiting.give(size)
}

// flush sends what was answered so far.
func (c *conn) flush() {
	if len(c.out.buf) == 0 {
		return
	}
	c.send.send(c.out)
	c.out = newReply()
}

// fill reads more. A large buffer is given back where nothing comes for a
// while.
func (c *conn) fill() error {
	c.notePartial()
	idle := c.in.grown() && !c.in.partial()
	if idle {
		c.nc.SetReadDeadline(time.Now().Add(c.s.limits.Partial))
		if c.stopping.Load() { // it was set between: the deadline of now must win
			c.stopReading()
		}
	}
	before := c.in.end
	err := c.in.fill(c.nc)
	if idle {
		c.nc.SetReadDeadline(time.Time{})
		if errors.Is(err, os.ErrDeadlineExceeded) && !c.stopping.Load() {
			c.in.shrink()
			return nil
		}
	}
	c.readAt.Store(c.l.tick.Load())
	c.s.Stats.BytesIn.Add(uint64(max(c.in.end-before, 0)))
	return err
}

func (c *conn) notePartial() {
	if !c.in.partial() {
		c.partialAt.Store(0)
	} else if c.partialAt.Load() == 0 {
		c.partialAt.Store(max(c.l.tick.Load(), 1))
	}
}

// stopReading makes the connection end once its calls are answered.
func (c *conn) stopReading() {
	c.stopping.Store(true)
	c.nc.SetReadDeadline(time.Unix(1, 0))
}

// sweep closes the connection where it is overdue at tick now.
func (c *conn) sweep(now int64, step time.Duration) {
	why := c.overdue(now, step)
	if why == "" {
		return
	}
	c.s.Stats.Cut.Add(1)
	c.s.log.Info("closing an RPC connection", "client", c.peer.Remote, "why", why)
	c.nc.Close()
}

func (c *conn) overdue(now int64, step time.Duration) string {
	l := c.s.limits
	past := func(since int64, limit time.Duration) bool {
		return since != 0 && time.Duration(now-since)*step > limit
	}
	switch {
	case past(c.send.since.Load(), l.Write):
		return "the client does not take its replies"
	case past(c.partialAt.Load(), l.Partial):
		return "a call does not arrive to its end"
	case time.Duration(now-c.readAt.Load())*step > l.Idle:
		return "idle"
	}
	return ""
}

// messages are copies of calls that wait for a worker.
var messages = sync.Pool{New: func() any { return new([1024]byte) }}

func newMessage() []byte { return messages.Get().(*[1024]byte)[:0] }

// freeMessage takes a copy back, if it fits the pool.
func freeMessage(b []byte) {
	if cap(b) == 1024 {
		messages.Put((*[1024]byte)(b[:1024]))
	}
}
