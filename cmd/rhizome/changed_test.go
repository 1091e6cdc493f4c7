package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"rhizome/registry/store"
	"rhizome/serve"
	"rhizome/serve/rootfs"
	"rhizome/serve/rpc"
	"rhizome/serve/rpc/rpctest"
	"rhizome/serve/volume"

	"github.com/rogpeppe/go-internal/testscript"
)

// writes makes a node of an image write a file into its copy-on-write /etc, as a
// serve of the script's store would let it: writes REF NODE NAME
func writes(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: writes REF NODE NAME")
	}
	s, err := store.Open(ts.Getenv("RHIZOME_STORE"), store.Options{})
	ts.Check(err)
	loader := &serve.Loader{Source: storeSource{s}, Cache: rootfs.NewCache(readCache)}
	defer loader.Close()
	index, err := resolve(context.Background(), s, args[0])
	ts.Check(err)
	img, err := loader.Image(context.Background(), index)
	ts.Check(err)
	v := volume.New(volume.Config{Nodes: loneNode{img, args[1]}, Persist: s.PersistDir, Now: time.Now,
		State: func(cluster, node string) (string, error) { return volumeState(s, cluster, node) }})
	defer v.Close()
	ts.Check(create(v, "/cow/"+args[1]+"/etc", args[2]))
}

// loneNode is the one node of an image that writes.
type loneNode struct {
	image *serve.Image
	name  string
}

func (l loneNode) ByAddr(netip.Addr) (n volume.Node, ok bool) {
	for _, m := range l.image.Machines {
		if m.Node.Name == l.name {
			n = volume.Node{Cluster: m.Cluster.Name, Node: m.Node, View: m.View}
			n.CopyOnWrite = []string{"/etc"}
			return n, true
		}
	}
	return n, false
}

func (l loneNode) ByDigest(string) *rootfs.View { return nil }

// create mounts an export as root and makes an empty file in it: CREATE,
// UNCHECKED, of RFC 1813, 3.3.8.
func create(v *volume.Volumes, export, name string) error {
	peer := rpc.NewPeer(context.Background(), netip.MustParseAddrPort("127.0.0.1:700"), rpc.TCP)
	call := &rpc.Call{Procedure: 8, Cred: rpc.NewSysCred(0, 0), Peer: peer, MayBlock: true}
	handle, err := v.Mount(export, call)
	if err != nil {
		return err
	}
	call.Args = append(rpctest.Opaque(handle), rpctest.Opaque([]byte(name))...)
	call.Args = append(call.Args, rpctest.Words(0, 0, 0, 0, 0, 0, 0)...)
	var reply rpc.Reply
	if st := v.Call(call, &reply); st != rpc.Success {
		return fmt.Errorf("CREATE: RPC status %d", st)
	}
	return nil
}

// ageStore makes everything in the store's image layout older than any grace
// period.
func ageStore(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: agestore")
	}
	ts.Check(ts.Exec("sh", "-c", `touch -d "2 days ago" "$RHIZOME_STORE"/oci/blobs/sha256/*`))
}
