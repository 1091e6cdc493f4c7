package nfs

import (
	"bytes"
	"context"
	"net/netip"
	"testing"

	"rhizome/serve/rpc"
	"rhizome/serve/rpc/rpctest"
)

// FuzzCall: whatever the arguments of whatever procedure are, the answer is a
// status of RPC or results that a client can read to the last byte, of at most
// what it asked for; and nothing changes for others.
func FuzzCall(f *testing.F) {
	w := newWorld(f)
	files := [][]byte{w.root().walk(), w.root().walk("etc"), w.root().walk("bin", "sh"), w.root().walk("sbin", "halt"), w.root().walk("dev", "null")}
	w.withBlobs()
	blobs, blob := w.blobHandles()
	files = append(files, blobs, blob)
	_, before := w.root().serve(w.Programs()[0], 3, procGetattr, rpctest.Opaque(files[0]))
	for p := range uint32(procCount) {
		f.Add(p, uint8(p), uint16(0), append(u64(0), append(u64(0), rpctest.Words(1024, 4096)...)...))
		f.Add(p, uint8(1), uint16(1000), append(rpctest.Opaque([]byte("twin")), rpctest.Opaque(files[1])...))
		f.Add(p, uint8(5), uint16(700), rpctest.Opaque(files[2]))
	}
	f.Fuzz(func(t *testing.T, procedure uint32, on uint8, port uint16, args []byte) {
		if int(on) < len(files) {
			args = append(rpctest.Opaque(files[on]), args...)
		}
		peer := rpc.NewPeer(context.Background(), netip.AddrPortFrom(nodeA, port), rpc.Transport(6+on/128*11))
		call := &rpc.Call{Program: Program, Version: 3, Procedure: procedure, Cred: rpc.NewSysCred(uint32(port), 5, 42), Args: args, Peer: peer, MayBlock: true}
		var out rpc.Reply
		switch status := w.Serve(call, &out); {
		case status == rpc.GarbageArgs, status == rpc.ProcUnavail && procedure >= procCount:
			return
		case status != rpc.Success:
			t.Fatalf("RPC status %d", status)
		case procedure == procNull:
			return
		}
		body := out.Bytes()
		if r, err := parseResults(procedure, body); err != nil {
			t.Errorf("%+v: %v", r, err)
		}
		if len(body) > maxTCP+256 {
			t.Errorf("%d bytes", len(body))
		}
		if _, after := w.root().serve(w.Programs()[0], 3, procGetattr, rpctest.Opaque(files[0])); !bytes.Equal(after, before) {
			t.Errorf("the root became %x", after)
		}
	})
}

// FuzzMount: whatever the arguments are, nobody gets a handle of what is not
// its own, and no answer is longer than a datagram.
func FuzzMount(f *testing.F) {
	w := newWorld(f)
	for p := range uint32(7) {
		f.Add(p, uint32(1), rpctest.Opaque([]byte("/nodes/a/bin/../home")))
		f.Add(p, uint32(3), rpctest.Opaque([]byte("/nodes/b")))
	}
	_, others := w.as(nodeB, 0, 0).mount("/nodes/b")
	f.Fuzz(func(t *testing.T, procedure, version uint32, args []byte) {
		status, body := w.root().serve(w.Programs()[1], version, procedure, args)
		if status != rpc.Success && len(body) > 0 {
			t.Errorf("RPC status %d with %d bytes", status, len(body))
		}
		if bytes.Contains(body, others[16:]) || len(body) > 60_000 {
			t.Errorf("a handle of another node's root: %x", body)
		}
	})
}
