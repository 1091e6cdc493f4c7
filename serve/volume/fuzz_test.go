package volume

import (
	"bytes"
	"context"
	"net/netip"
	"strings"
	"testing"

	"rhizome/serve/rootfs"
	"rhizome/serve/rpc"
)

// FuzzCall sends any arguments to any procedure, behind a good handle or
// behind none. The law: the server answers or refuses, does not panic, and a
// reply is never longer than what the protocol lets a client ask for.
func FuzzCall(f *testing.F) {
	w := worldAt(f, f.TempDir())
	for a, n := range w.nodes.nodes { // records alone: no file of the host gets a name
		n.Persist = ""
		w.nodes.nodes[a] = n
	}
	v := New(w.config())
	f.Cleanup(func() { v.Close() })
	peer := rpc.NewPeer(context.Background(), netip.MustParseAddrPort(addr1+":700"), rpc.TCP)
	root, err := v.Mount("/cow/n1/etc", &rpc.Call{Peer: peer})
	if err != nil {
		f.Fatal(err)
	}
	for proc := uint32(1); proc < procCount; proc++ {
		f.Add(proc, true, str("name"))
		f.Add(proc, true, append(str("name"), sattr{}.xdr()...))
		f.Add(proc, true, bytes.Join([][]byte{str("a"), fh(root), str("b")}, nil))
		f.Add(proc, true, bytes.Join([][]byte{fh(root), str("b")}, nil))
		f.Add(proc, true, bytes.Join([][]byte{u64(0), u64(0), u32(8192, 8192)}, nil))
		f.Add(proc, true, bytes.Join([][]byte{u64(1 << 40), u32(4, 2), str("data")}, nil))
		f.Add(proc, false, []byte{0, 0, 0, 24})
	}
	f.Fuzz(func(t *testing.T, proc uint32, handled bool, args []byte) {
		if handled {
			args = append(fh(root), args...)
		}
		c := &rpc.Call{XID: uint32(len(args)), Procedure: proc % (procCount + 1), Cred: rpc.NewSysCred(0, 0), Args: args, Peer: peer, MayBlock: true}
		var out rpc.Reply
		status := v.Call(c, &out)
		if status > rpc.SystemErr {
			t.Fatalf("status %d", status)
		}
		if out.Len() > maxTCP+1024 {
			t.Fatalf("a reply of %d bytes", out.Len())
		}
		if _, err := v.Mount("/cow/n1/etc", &rpc.Call{Peer: peer}); err != nil {
			t.Fatalf("after the call the export is gone: %v", err)
		}
	})
}

// FuzzHandle holds the decoder of handles to its law: what it takes is written
// back identically, and only what the key made is genuine.
func FuzzHandle(f *testing.F) {
	key := bytes.Repeat([]byte{7}, 32)
	f.Add(appendHandle(nil, rootfs.HandlePersist, exportID{1}, key, []byte("an id")), []byte("id"))
	f.Add(appendHandle(nil, rootfs.HandleCopyOnWrite, exportID{2}, key, make([]byte, maxID)), []byte{})
	f.Add([]byte{2, 1, 0, 0}, []byte(nil))
	f.Fuzz(func(t *testing.T, h, id []byte) {
		if k, e, object, ok := parseHandle(h); ok {
			again := appendHandle(nil, k, e, key, object)
			if genuine(h, key) != bytes.Equal(again, h) {
				t.Fatalf("%x is genuine or not, unlike %x", h, again)
			}
		}
		if len(id) > maxID {
			return
		}
		made := appendHandle(nil, rootfs.HandlePersist, exportID{3}, key, id)
		if _, e, object, ok := parseHandle(made); !ok || e != (exportID{3}) || !bytes.Equal(object, id) || !genuine(made, key) || len(made) > maxHandle {
			t.Fatalf("%x does not come back from %x", id, made)
		}
	})
}

// FuzzJournal holds the journal's reader to its law: whatever the file has in
// it, what was read can be written and read again.
func FuzzJournal(f *testing.F) {
	line, _ := encodeLine([]change{{Next: 7}, {ID: 3, Put: &record{Kind: kindRegular, Own: ownBody}}, {Dir: rootID, Name: []byte("a\xff"), Entry: &entry{ID: 3}}})
	f.Add(string(line))
	f.Add(string(line) + string(line[:len(line)/2]))
	f.Add("00000000 []\n")
	f.Fuzz(func(t *testing.T, text string) {
		r := newRecords()
		size, err := replayJournal(strings.NewReader(text), r)
		if err != nil || size > int64(len(text)) {
			t.Fatalf("%d of %d bytes, %v", size, len(text), err)
		}
		line, err := encodeLine(r.snapshot())
		if err != nil {
			t.Fatal(err)
		}
		again := newRecords()
		if _, err := replayJournal(bytes.NewReader(line), again); err != nil {
			t.Fatal(err)
		}
		if len(again.objects) != len(r.objects) || again.next != r.next || len(again.names) > len(r.names) {
			t.Fatalf("%d objects became %d", len(r.objects), len(again.objects))
		}
		r.changes()
	})
}
