package nfs

import (
	"bytes"
	"context"
	"flag"
	"net"
	"os/exec"
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
