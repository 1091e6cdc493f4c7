package nfs

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"rhizome/serve/rpc"
	"rhizome/serve/rpc/rpctest"
)

// siege is how long the attack lasts, and leastReads how many times the client
// reads its file meanwhile, however slow the machine is.
const (
	siege      = 10 * time.Second
	leastReads = 3
)

// enemy is where attackers come from; honest clients come from 127.0.0.1.
var enemy = net.IPv4(127, 0, 0, 66)

// attacker knows the server and a few good messages to spoil.
type attacker struct {
	s    *socketed
	good [][]byte
}

func (a *attacker) dial(network string) (net.Conn, error) {
	var local net.Addr = &net.TCPAddr{IP: enemy}
	if network == "udp" {
		local = &net.UDPAddr{IP: enemy}
	}
	d := net.Dialer{LocalAddr: local, Timeout: time.Second}
	return d.Dial(network, a.s.tcp.String())
}

// attacks are what each attacker does over and over, on a connection of its
// own where it gets one.
func (a *attacker) attacks() map[string]func(r *rand.Rand) {
	once := func(network string, write func(c net.Conn, r *rand.Rand)) func(*rand.Rand) {
		return func(r *rand.Rand) {
			c, err := a.dial(network)
			if err != nil {
				return
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(time.Second))
			write(c, r)
		}
	}
	return map[string]func(*rand.Rand){
		"noise over TCP":  once("tcp", func(c net.Conn, r *rand.Rand) { c.Write(noise(r, 1<<16)) }),
		"noise over UDP":  once("udp", func(c net.Conn, r *rand.Rand) { c.Write(noise(r, 2000)) }),
		"spoilt over TCP": once("tcp", func(c net.Conn, r *rand.Rand) { a.spoilt(c, r, rpctest.Record) }),
		"spoilt over UDP": once("udp", func(c net.Conn, r *rand.Rand) { a.spoilt(c, r, slices.Clone) }),
		"huge claims": once("tcp", func(c net.Conn, r *rand.Rand) {
			c.Write(append([]byte{0x80, 0x1f, 0xff, 0xff}, noise(r, 100)...))
			c.Read(make([]byte, 1))
		}),
		"endless fragments": once("tcp", func(c net.Conn, r *rand.Rand) {
			for err := error(nil); err == nil; {
				_, err = c.Write(bytes.Repeat([]byte{0, 0, 0, 1, 'x'}, 1000))
			}
		}),
		"half-open": once("tcp", func(c net.Conn, r *rand.Rand) { c.Read(make([]byte, 1)) }),
		"replies not read": once("tcp", func(c net.Conn, r *rand.Rand) {
			for err := error(nil); err == nil; {
				_, err = c.Write(rpctest.Record(a.good[2]))
			}
		}),
		"connects": once("tcp", func(net.Conn, *rand.Rand) {}),
	}
}

func noise(r *rand.Rand, most int) []byte {
	b := make([]byte, r.IntN(most)+1)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// spoilt sends good calls with a few bytes changed, cut or doubled.
func (a *attacker) spoilt(c net.Conn, r *rand.Rand, frame func([]byte) []byte) {
	for range 100 {
		msg := slices.Clone(a.good[r.IntN(len(a.good))])
		for range 1 + r.IntN(4) {
			msg[r.IntN(len(msg))] = byte(r.Uint32())
		}
		if r.IntN(4) == 0 {
			msg = msg[:r.IntN(len(msg))]
		}
		if _, err := c.Write(frame(msg)); err != nil {
			return
		}
	}
}

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
	a := &attacker{s, w.goodCalls()}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var attackers sync.WaitGroup
	seed := uint64(0)
	for _, attack := range a.attacks() {
		seed++
		r := rand.New(rand.NewPCG(seed, 1))
		attackers.Go(func() {
			for ctx.Err() == nil {
				attack(r)
			}
		})
	}
	want, peak, reads := text(2_500_000), uint64(0), 0
	for begin := time.Now(); time.Since(begin) < siege || reads < leastReads; {
		got, err := exec.Command(cat, s.url("/sbin/init")).Output()
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("the client read %d bytes, %v", len(got), err)
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		peak = max(peak, m.HeapInuse+m.StackInuse)
		reads++
	}
	cancel()
	attackers.Wait()
	t.Logf("%d whole reads, %d MiB in use at most, %d calls denied, %d dropped, %d connections refused, %d cut",
		reads, peak>>20, s.rpc.Stats.Denied.Load(), s.rpc.Stats.Dropped.Load(), s.rpc.Stats.Refused.Load(), s.rpc.Stats.Cut.Load())
	if peak > memory+128<<20 {
		t.Errorf("%d MiB in use, with a cap of %d", peak>>20, memory>>20)
	}
	if s.rpc.Stats.Panics.Load() != 0 {
		t.Errorf("%d calls made their handler panic", s.rpc.Stats.Panics.Load())
	}
}
