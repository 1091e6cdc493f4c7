package nfs

import (
	"bytes"
	"context"
	"flag"
	"net"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rhizome/serve/rpc"
	"rhizome/serve/rpc/rpctest"
)

// siege is how long the attack lasts: -siege 1m is what the limits were set by.
var siege = flag.Duration("siege", 10*time.Second, "how long the attacks on the server last")

// leastReads is how many times the client reads its file meanwhile, however
// slow the machine is.
const leastReads = 3

// enemy is where attackers come from; honest clients come from 127.0.0.1.
var enemy = net.IPv4(127, 0, 0, 66)

func (w *world) goodCalls() [][]byte {
	top, sh := w.root().walk(), w.root().walk("sbin", "init")
	nfs := func(procedure uint32, h []byte, args ...[]byte) []byte {
		return rpctest.Message(7, Program, 3, procedure, rpctest.Sys(0, 0, 1, 2), join(rpctest.Opaque(h), args))
	}
	return [][]byte{
		nfs(procGetattr, top),
		nfs(procLookup, top, rpctest.Opaque([]byte("sbin"))),
		nfs(procRead, sh, u64(0), rpctest.Words(1<<20)),
		nfs(procReaddirplus, top, u64(0), u64(0), rpctest.Words(1<<20, 1<<20)),
		nfs(procWrite, sh, u64(0), rpctest.Words(4, 2, 4, 0)),
		rpctest.Message(8, MountProgram, 3, mntMnt, rpctest.None(), rpctest.Opaque([]byte("/nodes/a"))),
		rpctest.Message(9, MountProgram, 3, mntExport, rpctest.None(), nil),
		rpctest.Message(10, rpc.PortmapProgram, 2, 3, rpctest.None(), rpctest.Words(Program, 3, 17, 0)),
	}
}

// TestClientReadsOnUnderSiege: while attackers send all that is wrong, a real
// client reads right bytes, and the memory stays under the cap.
func TestClientReadsOnUnderSiege(t *testing.T) {
	cat, err := exec.LookPath("nfs-cat")
	if err != nil {
		t.Skip("skipped: nfs-cat is not installed (libnfs-utils)")
	}
	w := newWorld(t)
	const memory = 64 << 20
	s := w.listenAt(rpc.Limits{Memory: memory, PerClient: 32, Partial: time.Second, Write: time.Second}, 0)
	good := w.goodCalls()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	attackers := rpctest.Siege{TCP: s.tcp.String(), UDP: s.udp.String(), From: enemy, Good: good, Flood: good[2]}
	wait := attackers.Begin(ctx)
	want, peak, reads := text(2_500_000), uint64(0), 0
	for begin := time.Now(); time.Since(begin) < *siege || reads < leastReads; reads++ {
		got, err := exec.Command(cat, s.url("/sbin/init")).Output()
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("the client read %d bytes, %v", len(got), err)
		}
		peak = max(peak, rpctest.MemoryInUse())
	}
	cancel()
	wait()
	st := &s.rpc.Stats
	t.Logf("%d whole reads, %d MiB in use at most; %d calls over TCP, %d over UDP, %d denied, %d dropped; %d connections, %d refused, %d cut",
		reads, peak>>20, st.CallsTCP.Load(), st.CallsUDP.Load(), st.Denied.Load(), st.Dropped.Load(), st.Accepted.Load(), st.Refused.Load(), st.Cut.Load())
	if peak > memory+128<<20 {
		t.Errorf("%d MiB in use, with a cap of %d", peak>>20, memory>>20)
	}
	if st.Panics.Load() != 0 {
		t.Errorf("%d calls made their handler panic", st.Panics.Load())
	}
}

// crowd is how many connects come, from how many addresses, and how many of
// each stay open at once.
const (
	crowd      = 10_000
	crowdHosts = 250
	crowdOpen  = 16
)

// TestTenThousandConnectsLeaveRoomForOthers: they come from many addresses, say
// half a word or nothing, and twice as many stay open as the server takes. A
// client that was there before reads on, and one that comes after them reads.
func TestTenThousandConnectsLeaveRoomForOthers(t *testing.T) {
	w := newWorld(t)
	const room = crowdHosts * crowdOpen / 2
	s := w.listenAt(rpc.Limits{Connections: room}, 0)
	before := s.dial()
	before.reads()
	var hosts sync.WaitGroup
	var came atomic.Int64
	hold := make(chan struct{})
	done := make(chan struct{}, crowdHosts)
	for i := range crowdHosts {
		hosts.Go(func() {
			had := connectOften(&net.TCPAddr{IP: net.IPv4(127, 3, 0, byte(i))}, s.tcp.String(), crowd/crowdHosts)
			came.Add(had.came)
			done <- struct{}{}
			<-hold
			had.close()
		})
	}
	for range crowdHosts {
		<-done
		before.reads()
	}
	st := &s.rpc.Stats
	for st.Accepted.Load()+st.Refused.Load() <= uint64(came.Load()) { // the kernel keeps some until they are accepted
		before.reads()
	}
	t.Logf("%d connects came; %d were refused, %d are open", came.Load(), st.Refused.Load(), st.Connections.Load())
	if came.Load() != crowd || st.Refused.Load() == 0 || st.Connections.Load() > room {
		t.Errorf("of %d connects %d came and %d were refused; %d are open, where there is room for %d", crowd, came.Load(), st.Refused.Load(), st.Connections.Load(), room)
	}
	close(hold)
	hosts.Wait()
	before.reads()
	for st.Connections.Load() > 1 { // the server sees them go when it reads
		before.reads()
	}
	s.dial().reads()
}

// reader is a client that reads a file.
type reader struct {
	*rpctest.Client
	s *socketed
	h []byte
}

func (s *socketed) dial() *reader {
	s.t.Helper()
	c, err := rpctest.Dial("tcp", s.tcp.String())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return &reader{c, s, s.root().walk("bin", "sh")}
}

func (r *reader) reads() {
	r.s.t.Helper()
	reply, err := r.Call(Program, 3, procRead, join(rpctest.Opaque(r.h), [][]byte{u64(0), rpctest.Words(4096)}))
	if err != nil || reply.Status != rpc.Success {
		r.s.t.Fatalf("the client's READ: %+v, %v", reply, err)
	}
}

// guests are connections of one address.
type guests struct {
	came int64
	open []net.Conn
}

func (g *guests) close() {
	for _, c := range g.open {
		c.Close()
	}
}

// connectOften connects n times; the last of the connections stay open, most
// in the middle of a record mark.
func connectOften(from *net.TCPAddr, to string, n int) *guests {
	g := &guests{}
	for i := range n {
		d := net.Dialer{LocalAddr: from, Timeout: 10 * time.Second}
		c, err := d.Dial("tcp", to)
		if err != nil {
			continue
		}
		g.came++
		c.Write([]byte{0x80, 0, 1}[:i%4])
		if g.open = append(g.open, c); len(g.open) > crowdOpen {
			g.open[0].Close()
			g.open = g.open[1:]
		}
	}
	return g
}
