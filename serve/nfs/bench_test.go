package nfs

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"rhizome/serve/rootfs"
	"rhizome/serve/rpc"
	"rhizome/serve/rpc/rpctest"
)

// BenchmarkCall is what one call costs between the socket's two sides, on a root
// whose index is mapped, as serve has it. Nothing allocates.
func BenchmarkCall(b *testing.B) {
	w := newWorld(b)
	w.exports.views["/nodes/a"] = mappedView(b, w.blob)
	c := w.as(nodeA, 0, 0)
	sbin, init := rpctest.Opaque(c.walk("sbin")), rpctest.Opaque(c.walk("sbin", "init"))
	for _, call := range []struct {
		name string
		proc uint32
		args []byte
	}{
		{"GETATTR", procGetattr, init},
		{"LOOKUP", procLookup, slices.Concat(sbin, rpctest.Opaque([]byte("init")))},
		{"READ-32K", procRead, slices.Concat(init, u64(0), rpctest.Words(32<<10))},
	} {
		b.Run(call.name, func(b *testing.B) { c.repeat(b, call.proc, call.args) })
	}
}

func (c *caller) repeat(b *testing.B, proc uint32, args []byte) {
	var out rpc.Reply
	mark := out.Mark()
	call := rpc.Call{Program: Program, Version: Version, Procedure: proc, Cred: c.cred, Args: args, Peer: c.peer, MayBlock: true}
	b.ReportAllocs()
	for b.Loop() {
		if st := c.w.Serve(&call, &out); st != rpc.Success {
			b.Fatal(st)
		}
		out.Rewind(mark)
	}
}

// mappedView is a root of one layer that lies in a file.
func mappedView(t testing.TB, blob []byte) *rootfs.View {
	t.Helper()
	name := filepath.Join(t.TempDir(), "layer")
	if err := os.WriteFile(name, blob, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	l, err := rootfs.OpenLayerFile("sha256:mapped", f, int64(len(blob)), nil, rootfs.NewCache(8<<20))
	if err != nil {
		t.Fatal(err)
	}
	v, err := rootfs.NewView(digestA, []*rootfs.Layer{l})
	if err != nil {
		t.Fatal(err)
	}
	return v
}
