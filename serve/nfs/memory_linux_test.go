package nfs

import (
	"net"
	"runtime"
	"testing"

	"rhizome/serve/rpc"
	"rhizome/serve/rpc/rpctest"
)

// TestThousandNodesTakeLittleMemory: each holds a connection on which it has
// mounted, listed and read.
func TestThousandNodesTakeLittleMemory(t *testing.T) {
	const nodes, most = 1000, 50 << 10
	w := newWorld(t)
	s := w.listenAt(rpc.Limits{}, 0)
	sh := w.root().walk("bin", "sh")
	before := inUse()
	for i := range nodes {
		from := &net.TCPAddr{IP: net.IPv4(127, 1, byte(i>>8), byte(i))}
		d := net.Dialer{LocalAddr: from}
		nc, err := d.Dial("tcp", s.tcp.String())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		c := rpctest.NewClient(nc)
		for _, call := range []struct {
			program, procedure uint32
			args               []byte
		}{
			{MountProgram, mntMnt, rpctest.Opaque([]byte("/nodes/a"))},
			{Program, procGetattr, rpctest.Opaque(sh)},
			{Program, procRead, append(rpctest.Opaque(sh), append(u64(0), rpctest.Words(4096)...)...)},
		} {
			if r, err := c.Call(call.program, 3, call.procedure, call.args); err != nil || r.Status != rpc.Success {
				t.Fatalf("node %d: %+v, %v", i, r, err)
			}
		}
	}
	each := (inUse() - before) / nodes
	t.Logf("%d bytes a node, this test's side of the connections among them", each)
	if each > most {
		t.Errorf("a node takes %d bytes, more than %d", each, most)
	}
}

func inUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
