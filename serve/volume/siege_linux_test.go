package volume

import (
	"context"
	"flag"
	"fmt"
	"net"
	"testing"
	"time"

	"rhizome/serve/rpc/rpctest"
)

// siege is how long the attack lasts: -siege 1m is the whole of it.
var siege = flag.Duration("siege", 5*time.Second, "how long the attacks on the server last")

// spoiltCalls are calls on a directory of a node's own, of all procedures that
// name or change something.
func spoiltCalls(root, f handle) [][]byte {
	mode := sattr{mode: ptr(uint32(0o777))}.xdr()
	call := func(proc uint32, args ...[]byte) []byte {
		var all []byte
		for _, a := range args {
			all = append(all, a...)
		}
		return rpctest.Message(7, 100003, 3, proc, rpctest.Sys(0, 0, 1, 2), all)
	}
	return [][]byte{
		call(procWrite, fh(f), u64(0), u32(8, fileSync), str("spoilt!!")),
		call(procRead, fh(f), u64(0), u32(1<<20)),
		call(procSetattr, fh(f), sattr{size: ptr(uint64(4096))}.xdr(), u32(0)),
		call(procCreate, fh(root), str("made"), u32(unchecked), mode),
		call(procMkdir, fh(root), str("folder"), mode),
		call(procSymlink, fh(root), str("link"), mode, str("/etc/passwd")),
		call(procMknod, fh(root), str("fifo"), u32(uint32(kindFifo)), mode),
		call(procLink, fh(f), fh(root), str("twin")),
		call(procRename, fh(root), str("made"), fh(root), str("moved")),
		call(procRemove, fh(root), str("moved")),
		call(procRmdir, fh(root), str("folder")),
		call(procReaddirplus, fh(root), u64(0), u64(0), u32(1<<16, 1<<20)),
		call(procCommit, fh(f), u64(0), u32(0)),
		rpctest.Message(8, 100005, 3, 1, rpctest.None(), str("/persist/n2")),
	}
}

// TestANodeUnderSiegeCostsItsNeighbourNothing: one node's address sends calls
// on its own exports, spoilt in all ways, and much that is no call; the other
// node meanwhile reads what it wrote, and at the end has what it made and
// nothing else.
func TestANodeUnderSiegeCostsItsNeighbourNothing(t *testing.T) {
	onEach(t, func(t *testing.T, w *world, c *client, dir handle) {
		enemy := w.dial(addr2)
		root := enemy.mustMount("/persist/n2")
		enemy.must("opening its root to all", enemy.setattr(root, sattr{mode: ptr(uint32(0o777))}), statusOK)
		f := enemy.put(root, "f", "to be spoilt")
		enemy.must("opening its file to all", enemy.setattr(f, sattr{mode: ptr(uint32(0o666))}), statusOK)
		good := spoiltCalls(root, f)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		attack := rpctest.Siege{TCP: w.addr, UDP: w.udpAddr, From: net.ParseIP(addr2), Good: good, Flood: good[1]}
		wait := attack.Begin(ctx)
		made, peak := 0, uint64(0)
		for begin := time.Now(); time.Since(begin) < *siege || made < 20; made++ {
			body := fmt.Sprint("file ", made)
			if got := c.content(c.put(dir, body, body)); got != body {
				t.Fatalf("%q holds %q", body, got)
			}
			peak = max(peak, rpctest.MemoryInUse())
		}
		cancel()
		wait()
		if have := c.list(dir); len(have) != made {
			t.Errorf("%d files were made, and there are %d", made, len(have))
		}
		for i := range made {
			if got := c.content(c.walk(dir, fmt.Sprint("file ", i))); got != fmt.Sprint("file ", i) {
				t.Errorf("file %d holds %q in the end", i, got)
			}
		}
		if _, st := enemy.getattr(root); st != statusOK {
			t.Errorf("the other node's own root: %v", st)
		}
		t.Logf("%d files made, %d MiB in use at most, %d calls over TCP, %d over UDP", made, peak>>20, w.front.Stats.CallsTCP.Load(), w.front.Stats.CallsUDP.Load())
		if n := w.front.Stats.Panics.Load(); n != 0 {
			t.Errorf("%d calls made their handler panic", n)
		}
		if peak > 400<<20 {
			t.Errorf("%d MiB in use", peak>>20)
		}
	})
}
