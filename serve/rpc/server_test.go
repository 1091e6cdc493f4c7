//go:build linux

package rpc_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"rhizome/serve/rpc"
	"rhizome/serve/rpc/rpctest"
)

// The procedures of the program that these tests serve.
const (
	testProgram = 400000

	echo    = 1 // gives its arguments back
	crash   = 2 // panics
	wait    = 3 // waits for the gate to open, then gives its arguments back
	lend    = 4 // lends as many bytes as its argument says
	garbled = 5 // finds its arguments wrong after it wrote half an answer
	silent  = 6 // gives no answer
	disk    = 7 // needs the disk, and tells whether others were held up
	fetch   = 8 // is lend, with what must be read from the disk first
)

// program is a program with manners good and bad.
type program struct {
	gate    chan struct{}
	waiting atomic.Int64
	lent    []byte
}

func newProgram() *program {
	return &program{gate: make(chan struct{}), lent: bytes.Repeat([]byte("lent"), 1<<20)}
}

func (p *program) Serve(c *rpc.Call, out *rpc.Reply) rpc.Status {
	switch c.Procedure {
	case 0:
	case echo:
		out.Raw(c.Args)
	case crash:
		out.Raw(c.Args)
		panic("a bug")
	case wait:
		if !c.MayBlock {
			return rpc.WouldBlock
		}
		p.waiting.Add(1)
		<-p.gate
		p.waiting.Add(-1)
		out.Raw(c.Args)
	case lend, fetch:
		if c.Procedure == fetch && !c.MayBlock {
			return rpc.WouldBlock
		}
		n := binary.BigEndian.Uint32(c.Args)
		out.Uint32(n)
		out.Lend(p.lent[:n])
		out.Pad(int(n))
	case garbled:
		out.Uint64(1)
		out.Lend(p.lent)
		return rpc.GarbageArgs
	case silent:
		return rpc.NoReply
	case disk:
		if !c.MayBlock && !c.MayPause {
			return rpc.WouldBlock
		}
		out.Bool(c.MayPause)
	default:
		return rpc.ProcUnavail
	}
	return rpc.Success
}

// server is a Server that runs until the test ends.
type server struct {
	*rpc.Server
	*program
	tcp, udp string
	stop     func()
}

func serve(t testing.TB, l rpc.Limits) *server {
	t.Helper()
	nl, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, l, nl)
}

func serveOn(t testing.TB, l rpc.Limits, nl net.Listener) *server {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := newProgram()
	s := rpc.NewServer([]rpc.Program{
		rpc.NewPortmapper().Program(),
		{Number: testProgram, Versions: []uint32{2, 4}, Handler: p},
	}, l, nil)
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := s.ServeTCP(ctx, nl); err != nil {
			t.Errorf("serving TCP: %v", err)
		}
	})
	done.Go(func() {
		if err := s.ServeUDP(ctx, pc); err != nil {
			t.Errorf("serving UDP: %v", err)
		}
	})
	stop := sync.OnceFunc(func() { cancel(); done.Wait() })
	t.Cleanup(stop)
	return &server{s, p, nl.Addr().String(), pc.LocalAddr().String(), stop}
}

func dial(t testing.TB, network, addr string) *rpctest.Client {
	t.Helper()
	c, err := rpctest.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (s *server) dial(t testing.TB, network string) *rpctest.Client {
	t.Helper()
	if network == "udp" {
		return dial(t, network, s.udp)
	}
	return dial(t, network, s.tcp)
}

func mustCall(t testing.TB, c *rpctest.Client, procedure uint32, args []byte) rpctest.Reply {
	t.Helper()
	r, err := c.Call(testProgram, 2, procedure, args)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// until waits for something that other goroutines bring about.
func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func TestEveryCallGetsTheAnswerTheRFCNames(t *testing.T) {
	s := serve(t, rpc.Limits{})
	cases := map[string]struct {
		program, version, procedure uint32
		want                        rpc.Status
		body                        string
	}{
		"served":               {testProgram, 4, echo, rpc.Success, "args"},
		"NFSACL":               {100227, 3, 0, rpc.ProgUnavail, ""},
		"a version too low":    {testProgram, 1, echo, rpc.ProgMismatch, "\x00\x00\x00\x02\x00\x00\x00\x04"},
		"a version between":    {testProgram, 3, 0, rpc.ProgMismatch, "\x00\x00\x00\x02\x00\x00\x00\x04"},
		"a version too high":   {testProgram, 1 << 31, 0, rpc.ProgMismatch, "\x00\x00\x00\x02\x00\x00\x00\x04"},
		"no such procedure":    {testProgram, 2, 99, rpc.ProcUnavail, ""},
		"half an answer":       {testProgram, 2, garbled, rpc.GarbageArgs, ""},
		"a panic":              {testProgram, 2, crash, rpc.SystemErr, ""},
		"rpcbind v3":           {100000, 3, 0, rpc.ProgMismatch, "\x00\x00\x00\x02\x00\x00\x00\x02"},
		"rpcbind v4":           {100000, 4, 3, rpc.ProgMismatch, "\x00\x00\x00\x02\x00\x00\x00\x02"},
		"CALLIT":               {100000, 2, 5, rpc.ProcUnavail, ""},
		"GETPORT cut short":    {100000, 2, 3, rpc.GarbageArgs, ""},
		"SET by a stranger":    {100000, 2, 1, rpc.Success, "\x00\x00\x00\x00"},
		"NULL of the program":  {testProgram, 2, 0, rpc.Success, ""},
		"served after a panic": {testProgram, 2, echo, rpc.Success, "args"},
	}
	for _, network := range []string{"tcp", "udp"} {
		c := s.dial(t, network)
		for name, tc := range cases {
			t.Run(network+": "+name, func(t *testing.T) {
				args := []byte("args")
				r, err := c.Call(tc.program, tc.version, tc.procedure, args)
				if err != nil || r.Denied || r.Status != tc.want || string(r.Body) != tc.body {
					t.Errorf("got %+v, %v; want status %d and %q", r, err, tc.want, tc.body)
				}
			})
		}
	}
	if s.Stats.Panics.Load() != 2 {
		t.Errorf("%d panics counted", s.Stats.Panics.Load())
	}
}

func TestWrongCredentialsAndVersionsAreDenied(t *testing.T) {
	s := serve(t, rpc.Limits{})
	for _, network := range []string{"tcp", "udp"} {
		c := s.dial(t, network)
		c.Cred = rpctest.Words(6, 0)
		if r := mustCall(t, c, echo, nil); !r.Denied || r.Status != 1 || !bytes.Equal(r.Body, rpctest.Words(1)) {
			t.Errorf("%s: RPCSEC_GSS got %+v, not AUTH_ERROR with AUTH_BADCRED", network, r)
		}
		old := rpctest.Words(5, 0, 3, testProgram, 2, echo)
		if network == "tcp" {
			old = rpctest.Record(old)
		}
		c.Write(old)
		r, err := c.Receive()
		if err != nil || !r.Denied || r.Status != 0 || !bytes.Equal(r.Body, rpctest.Words(2, 2)) {
			t.Errorf("%s: RPC version 3 got %+v, %v, not RPC_MISMATCH from 2 to 2", network, r, err)
		}
	}
}

func TestManyCallsInOneWriteAreAllAnsweredInOrder(t *testing.T) {
	s := serve(t, rpc.Limits{})
	c := s.dial(t, "tcp")
	const calls = 2000
	var wire []byte
	for i := range uint32(calls) {
		wire = append(wire, rpctest.Record(rpctest.Message(i, testProgram, 2, echo, c.Cred, rpctest.Words(i)))...)
	}
	go c.Write(wire)
	for i := range uint32(calls) {
		r, err := c.Receive()
		if err != nil || r.XID != i || !bytes.Equal(r.Body, rpctest.Words(i)) {
			t.Fatalf("reply %d: %+v, %v", i, r, err)
		}
	}
}

func TestLentBytesArriveBetweenTheOthers(t *testing.T) {
	s := serve(t, rpc.Limits{})
	for _, network := range []string{"tcp", "udp"} {
		c := s.dial(t, network)
		for _, n := range []uint32{0, 1, 5, 4096, 32768, 1 << 20} {
			if network == "udp" && n > 32768 {
				continue
			}
			first, _ := c.Send(testProgram, 2, lend, rpctest.Words(n))
			c.Send(testProgram, 2, echo, []byte("next"))
			for range 2 {
				r, err := c.Receive()
				want := append(rpctest.Opaque(s.lent[:n]), []byte{}...)
				if r.XID != first {
					want = []byte("next")
				}
				if err != nil || !bytes.Equal(r.Body, want) {
					t.Fatalf("%s: %d lent bytes arrived as %d, %v", network, n, len(r.Body), err)
				}
			}
		}
	}
}

func TestCallsThatWaitDoNotHoldUpOthers(t *testing.T) {
	s := serve(t, rpc.Limits{InFlight: 16})
	for _, network := range []string{"tcp", "udp"} {
		c := s.dial(t, network)
		for range 16 {
			c.Send(testProgram, 2, wait, []byte("late"))
		}
		until(t, "16 calls wait at once", func() bool { return s.waiting.Load() == 16 })
		if r := mustCall(t, c, echo, []byte("soon")); string(r.Body) != "soon" {
			t.Fatalf("%s: got %q", network, r.Body)
		}
		for range 16 {
			s.gate <- struct{}{}
		}
		for range 16 {
			if r, err := c.Receive(); err != nil || string(r.Body) != "late" {
				t.Fatalf("%s: got %q, %v", network, r.Body, err)
			}
		}
	}
}

// TestOnlyACallAloneIsServedWhereItWasRead: calls that need the disk go to
// workers, until they have come one at a time for a while; with others beside
// it, a call goes to a worker again.
func TestOnlyACallAloneIsServedWhereItWasRead(t *testing.T) {
	s := serve(t, rpc.Limits{})
	c := s.dial(t, "tcp")
	inPlace := func() (n uint32) {
		for range 20 {
			n += binary.BigEndian.Uint32(mustCall(t, c, disk, nil).Body)
		}
		return n
	}
	if n := inPlace(); n == 0 || n > 12 {
		t.Errorf("of 20 calls, one at a time, %d were served where they were read; the first eight may not be", n)
	}
	msg := rpctest.Record(rpctest.Message(1, testProgram, 2, disk, rpctest.None(), nil))
	c.Write(bytes.Repeat(msg, 3))
	for range 3 {
		if r, err := c.Receive(); err != nil || binary.BigEndian.Uint32(r.Body) != 0 {
			t.Errorf("a call of three together held up the others: %+v, %v", r, err)
		}
	}
	if n := inPlace(); n == 0 || n > 12 {
		t.Errorf("after that, %d of 20", n)
	}
}

func TestClientBeyondItsCallsInFlightIsReadNoFurther(t *testing.T) {
	s := serve(t, rpc.Limits{InFlight: 4})
	c, other := s.dial(t, "tcp"), s.dial(t, "tcp")
	for range 10 {
		c.Send(testProgram, 2, wait, nil)
	}
	until(t, "four calls wait", func() bool { return s.waiting.Load() == 4 })
	if r := mustCall(t, other, echo, []byte("free")); string(r.Body) != "free" {
		t.Errorf("another connection got %q", r.Body)
	}
	close(s.gate)
	for range 10 {
		if _, err := c.Receive(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestConnectionsBeyondTheLimitAreClosed(t *testing.T) {
	s := serve(t, rpc.Limits{PerClient: 3})
	var held []*rpctest.Client
	for range 3 {
		c := s.dial(t, "tcp")
		mustCall(t, c, echo, nil)
		held = append(held, c)
	}
	extra := s.dial(t, "tcp")
	if _, err := extra.Receive(); err == nil {
		t.Error("a fourth connection was served")
	}
	held[0].Close()
	until(t, "the closed connection is gone", func() bool { return s.Stats.Connections.Load() == 2 })
	mustCall(t, s.dial(t, "tcp"), echo, nil)
}

// TestClientsThatHoldOnAreCut: who sends half a call, who reads no replies and
// who says nothing loses the connection; who works keeps it.
func TestClientsThatHoldOnAreCut(t *testing.T) {
	s := serve(t, rpc.Limits{Idle: 2 * time.Second, Partial: time.Second, Write: time.Second})
	bad := map[string]func(c *rpctest.Client){
		"half a call": func(c *rpctest.Client) { c.Write([]byte{0x80, 0, 1, 0, 1, 2, 3}) },
		"fragments without end": func(c *rpctest.Client) {
			for err := error(nil); err == nil; time.Sleep(10 * time.Millisecond) {
				_, err = c.Write([]byte{0, 0, 0, 1, 'x'})
			}
		},
		"replies not read": func(c *rpctest.Client) {
			c.Conn.(*net.TCPConn).SetReadBuffer(1 << 10)
			for range 64 {
				c.Send(testProgram, 2, lend, rpctest.Words(1<<20))
			}
		},
		"silence": func(*rpctest.Client) {},
	}
	var done sync.WaitGroup
	for name, misbehave := range bad {
		c := s.dial(t, "tcp")
		done.Go(func() {
			go misbehave(c)
			until(t, "the client with "+name+" is cut", func() bool { return closedByPeer(c) })
		})
	}
	done.Wait()
	mustCall(t, s.dial(t, "tcp"), echo, nil)
}

// TestAClientThatNeverPausesIsNotCut: of a client that writes without a pause the
// server has always a piece of the next call. Each arrives in time all the same.
func TestAClientThatNeverPausesIsNotCut(t *testing.T) {
	s := serve(t, rpc.Limits{Partial: 2 * time.Second})
	c := s.dial(t, "tcp")
	call := rpctest.Record(rpctest.Message(1, testProgram, 2, echo, rpctest.None(), bytes.Repeat([]byte("x"), 1000)))
	half := len(call) / 2
	if _, err := c.Write(call[:half]); err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); time.Since(began) < 5*time.Second; {
		if _, err := c.Write(append(bytes.Clone(call[half:]), call[:half]...)); err != nil {
			t.Fatalf("cut after %v: %v", time.Since(began), err)
		}
		if _, err := c.Receive(); err != nil {
			t.Fatalf("cut after %v: %v", time.Since(began), err)
		}
	}
}

// TestClientsThatTakeNoRepliesHoldUpNobodyElse: their connections are cut in a while;
// until then, as when a rack lost its power, the others get at the disk.
func TestClientsThatTakeNoRepliesHoldUpNobodyElse(t *testing.T) {
	s := serve(t, rpc.Limits{Workers: 2, Write: time.Hour})
	for range 4 {
		gone := s.dial(t, "tcp")
		gone.Conn.(*net.TCPConn).SetReadBuffer(1 << 10)
		for range 16 {
			gone.Send(testProgram, 2, fetch, rpctest.Words(1<<20))
		}
	}
	c := s.dial(t, "tcp")
	for range 20 {
		mustCall(t, c, disk, nil)
	}
}

// closedByPeer looks, without reading, whether the connection was reset or
// shut.
func closedByPeer(c *rpctest.Client) bool {
	raw, err := c.Conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return true
	}
	closed := true
	raw.Control(func(fd uintptr) {
		state, err := tcpState(int(fd))
		closed = err != nil || state != tcpEstablished
	})
	return closed
}

func TestRecordTooLongEndsItsConnectionOnly(t *testing.T) {
	s := serve(t, rpc.Limits{Record: 1 << 16})
	c, good := s.dial(t, "tcp"), s.dial(t, "tcp")
	c.Write([]byte{0x80, 1, 0, 1})
	if _, err := c.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("the connection ended with %v", err)
	}
	mustCall(t, good, echo, nil)
}

// flaky is a listener whose process has no descriptors left for a while.
type flaky struct {
	net.Listener
	left atomic.Int64
}

func (f *flaky) Accept() (net.Conn, error) {
	if f.left.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return f.Listener.Accept()
}

func TestAcceptingGoesOnAfterEMFILE(t *testing.T) {
	nl, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &flaky{Listener: nl}
	f.left.Store(3)
	s := serveOn(t, rpc.Limits{}, f)
	mustCall(t, s.dial(t, "tcp"), echo, nil)
}

func TestStoppingLetsCallsInFlightEnd(t *testing.T) {
	s := serve(t, rpc.Limits{Drain: time.Minute})
	c := s.dial(t, "tcp")
	c.Send(testProgram, 2, wait, []byte("last"))
	until(t, "the call is in flight", func() bool { return s.waiting.Load() == 1 })
	stopped := make(chan struct{})
	go func() { s.stop(); close(stopped) }()
	until(t, "no connection is accepted", func() bool {
		nc, err := net.Dial("tcp", s.tcp)
		if err == nil {
			nc.Close()
		}
		return err != nil
	})
	close(s.gate)
	if r, err := c.Receive(); err != nil || string(r.Body) != "last" {
		t.Errorf("the call in flight got %q, %v", r.Body, err)
	}
	<-stopped
}

func TestStoppingCutsCallsThatNeverEnd(t *testing.T) {
	s := serve(t, rpc.Limits{Drain: 10 * time.Millisecond})
	c := s.dial(t, "tcp")
	c.Send(testProgram, 2, wait, nil)
	until(t, "the call is in flight", func() bool { return s.waiting.Load() == 1 })
	go s.stop()
	if _, err := c.Receive(); err == nil {
		t.Error("a call that nobody ended was answered")
	}
	close(s.gate)
}

func TestSilentCallsAndStrayMessagesGetNothing(t *testing.T) {
	s := serve(t, rpc.Limits{})
	for _, network := range []string{"tcp", "udp"} {
		c := s.dial(t, network)
		c.Send(testProgram, 2, silent, nil)
		stray := []byte(strings.Repeat("not a call ", 3))
		if network == "tcp" {
			stray = rpctest.Record(stray)
		}
		c.Write(stray)
		if r := mustCall(t, c, echo, []byte("x")); string(r.Body) != "x" {
			t.Errorf("%s: got %+v first", network, r)
		}
	}
	if got := s.Stats.Dropped.Load(); got != 2 {
		t.Errorf("%d messages dropped, not 2", got)
	}
}

// TestReplyComesFromTheAddressThatWasAsked: a socket that listens on all
// addresses answers from the one the datagram came to, or the client would
// drop the answer.
func TestReplyComesFromTheAddressThatWasAsked(t *testing.T) {
	s := rpc.NewServer([]rpc.Program{{Number: testProgram, Versions: []uint32{2}, Handler: newProgram()}}, rpc.Limits{}, nil)
	for _, network := range []string{"udp4", "udp"} {
		pc, err := net.ListenPacket(network, ":0")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		var done sync.WaitGroup
		done.Go(func() { s.ServeUDP(ctx, pc) })
		_, port, _ := net.SplitHostPort(pc.LocalAddr().String())
		for _, addr := range []string{"127.0.0.1", "127.0.0.2", "127.1.2.3"} {
			c := dial(t, "udp", net.JoinHostPort(addr, port))
			if r := mustCall(t, c, echo, []byte(addr)); string(r.Body) != addr {
				t.Errorf("%s: %s answered %q", network, addr, r.Body)
			}
		}
		cancel()
		done.Wait()
	}
}
