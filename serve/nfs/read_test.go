package nfs

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"rhizome/serve/boot"
	"rhizome/serve/rootfs"
	"rhizome/serve/rpc"
	"rhizome/serve/rpc/rpctest"
)

func TestReadGivesWhatTheFileHoldsThere(t *testing.T) {
	w := newWorld(t)
	body := text(2_500_000)
	h := w.root().walk("sbin", "init")
	size := uint64(len(body))
	cases := map[string]struct {
		offset    uint64
		count     uint32
		transport rpc.Transport
		from, to  uint64
		eof       bool
	}{
		"the beginning":            {0, 1024, rpc.TCP, 0, 1024, false},
		"across frames":            {1<<20 - 5, 10, rpc.TCP, 1<<20 - 5, 1<<20 + 5, false},
		"odd, with padding":        {77, 333, rpc.TCP, 77, 410, false},
		"the end exactly":          {size - 100, 100, rpc.TCP, size - 100, size, true},
		"one byte before the end":  {size - 100, 99, rpc.TCP, size - 100, size - 1, false},
		"beyond the end":           {size - 10, 4096, rpc.TCP, size - 10, size, true},
		"at the end":               {size, 10, rpc.TCP, size, size, true},
		"far behind the end":       {1 << 40, 10, rpc.TCP, 0, 0, true},
		"an offset below zero":     {math.MaxUint64, 10, rpc.TCP, 0, 0, true},
		"the lowest below zero":    {1 << 63, math.MaxUint32, rpc.TCP, 0, 0, true},
		"nothing":                  {5, 0, rpc.TCP, 0, 0, false},
		"more than rtmax":          {0, math.MaxUint32, rpc.TCP, 0, 1 << 20, false},
		"more than a datagram has": {5, 1 << 20, rpc.UDP, 5, 5 + 32<<10, false},
		"as FreeBSD's loader does": {8192, 1024, rpc.UDP, 8192, 9216, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := w.root().over(c.transport).nfs(procRead, h, u64(c.offset), rpctest.Words(c.count))
			if r.Status != ok || r.EOF != c.eof || r.Obj == nil || !bytes.Equal(r.Data, body[c.from:c.to]) {
				t.Errorf("status %d, %d bytes, eof %v", r.Status, len(r.Data), r.EOF)
			}
		})
	}
}

func TestOnlyFilesAreRead(t *testing.T) {
	w := newWorld(t)
	for path, want := range map[string]status{"bin": errIsDir, "dev/null": errInval, "dev/pipe": errInval, "sbin/halt": errInval} {
		r := w.root().nfs(procRead, w.root().walk(strings.Split(path, "/")...), u64(0), rpctest.Words(10))
		if r.Status != want || r.Obj == nil {
			t.Errorf("%s: %+v", path, r)
		}
	}
	if r := w.root().nfs(procRead, w.root().walk("etc", "empty"), u64(0), rpctest.Words(10)); r.Status != ok || !r.EOF {
		t.Errorf("an empty file: %+v", r)
	}
}

// TestReadOfWhatIsNotInMemoryWaitsElsewhere: the connection's own goroutine is
// not held up by the disk.
func TestReadOfWhatIsNotInMemoryWaitsElsewhere(t *testing.T) {
	w := newWorld(t)
	args := append(rpctest.Opaque(w.root().walk("bin", "sh")), append(u64(0), rpctest.Words(100)...)...)
	call := rpc.Call{Program: Program, Version: 3, Procedure: procRead, Cred: rpc.NewSysCred(0, 0), Args: args, Peer: w.root().peer}
	var out rpc.Reply
	if status := w.Serve(&call, &out); status != rpc.WouldBlock {
		t.Fatalf("the first READ: RPC status %d", status)
	}
	call.MayBlock = true
	if status := w.Serve(&call, &out); status != rpc.Success {
		t.Fatalf("the READ of a worker: RPC status %d", status)
	}
	call.MayBlock = false
	if status := w.Serve(&call, &out); status != rpc.Success {
		t.Errorf("the READ of what is in memory: RPC status %d", status)
	}
}

// TestDamagedBodyIsAnErrorAndAnEvent: nothing of a frame that fails its digest
// is served, others are, and somebody hears of it.
func TestDamagedBodyIsAnErrorAndAnEvent(t *testing.T) {
	noise := make([]byte, 2<<20)
	for i, x := range noise {
		noise[i] = x + byte(i*i>>7) ^ byte(i>>3)
	}
	blob, _ := layerBlob(t, dir("lib", 0o755), reg("lib/bad", 0o644, noise), reg("good", 0o644, text(3<<20)))
	copy(blob[len(blob)/20:], "bit rot")
	w := newWorld(t)
	w.exports.views["/nodes/a"] = openView(t, digestA, rootfs.NewCache(16<<20), blob)
	w.exports.generation.Add(1)
	bad := w.root().nfs(procRead, w.root().walk("lib", "bad"), u64(0), rpctest.Words(1<<20))
	if bad.Status != errIO || bad.Obj == nil {
		t.Errorf("the damaged file: status %d", bad.Status)
	}
	good := w.root().nfs(procRead, w.root().walk("good"), u64(2<<20), rpctest.Words(1<<20))
	if good.Status != ok || !bytes.Equal(good.Data, text(3 << 20)[2<<20:]) {
		t.Errorf("the file beside it: status %d, %d bytes", good.Status, len(good.Data))
	}
	for _, e := range w.events {
		if e.Kind == boot.NFSError && e.Addr == nodeA && strings.Contains(e.Error, "damaged") && strings.Contains(e.File, "lib/bad") {
			return
		}
	}
	t.Errorf("no event names the file: %+v", w.events)
}

// TestHotCallsAllocateNothing is the promise that makes a call cheap.
func TestHotCallsAllocateNothing(t *testing.T) {
	w := newWorld(t)
	bin, sh := w.root().walk("bin"), w.root().walk("bin", "sh")
	w.root().nfs(procRead, sh, u64(0), rpctest.Words(100_000))
	calls := map[string]struct {
		procedure uint32
		args      []byte
	}{
		"GETATTR": {procGetattr, rpctest.Opaque(sh)},
		"LOOKUP":  {procLookup, append(rpctest.Opaque(bin), rpctest.Opaque([]byte("sh"))...)},
		"ACCESS":  {procAccess, append(rpctest.Opaque(sh), rpctest.Words(0x3f)...)},
		"READ":    {procRead, append(rpctest.Opaque(sh), append(u64(1000), rpctest.Words(32768)...)...)},
	}
	for name, c := range calls {
		peer := w.root().peer
		call := &rpc.Call{Program: Program, Version: 3, Procedure: c.procedure, Cred: rpc.NewSysCred(0, 0), Args: c.args, Peer: peer}
		var out rpc.Reply
		start := out.Mark()
		n := testing.AllocsPerRun(1000, func() {
			out.Rewind(start)
			if status := w.Serve(call, &out); status != rpc.Success {
				t.Fatalf("%s: RPC status %d", name, status)
			}
		})
		out.Rewind(start)
		if n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}
