// Persist measures writes on a writable export: "persist serve DIR ADDRESS"
// serves DIR as /persist/bench, "persist load ..." writes to that or to another
// NFSv3 server, for bench/persist.sh.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"rhizome/registry/imagefmt"
	"rhizome/serve/nfs"
	"rhizome/serve/rootfs"
	"rhizome/serve/rpc"
	"rhizome/serve/volume"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case len(os.Args) == 4 && os.Args[1] == "serve":
		err = serve(ctx, os.Args[2], os.Args[3])
	case len(os.Args) > 1 && os.Args[1] == "load":
		err = loadCommand(os.Args[2:])
	default:
		err = errors.New("usage: persist serve DIR ADDRESS | persist load FLAGS")
	}
	if err != nil {
		log.Fatal(err)
	}
}

func loadCommand(args []string) error {
	var l load
	f := flag.NewFlagSet("load", flag.ExitOnError)
	f.StringVar(&l.nfs, "nfs", "127.0.0.1:2049", "address of NFS")
	f.StringVar(&l.mount, "mount", "127.0.0.1:2049", "address of MOUNT")
	f.StringVar(&l.export, "export", "/persist/bench", "what to mount")
	f.IntVar(&l.size, "size", 4096, "bytes of a WRITE")
	f.IntVar(&l.depth, "depth", 16, "calls in flight")
	f.IntVar(&l.batch, "batch", 0, "unstable writes before each COMMIT; 0 writes stable")
	f.IntVar(&l.pid, "pid", 0, "the server, to read its CPU time")
	f.DurationVar(&l.lasts, "time", 3e9, "how long")
	if err := f.Parse(args); err != nil {
		return err
	}
	return l.run()
}

// bench is the one node there is.
type bench struct{ dir string }

func (bench) ByAddr(a netip.Addr) (volume.Node, bool) {
	return volume.Node{Cluster: "bench", Node: imagefmt.Node{Name: "bench", Address: a, Persist: "/persist"}}, true
}

func (bench) ByDigest(string) *rootfs.View                    { return nil }
func (bench) Export(string, netip.Addr) (nfs.FS, error)       { return nil, fs.ErrNotExist }
func (bench) ByID([16]byte, netip.Addr, bool) (nfs.FS, error) { return nil, fs.ErrNotExist }
func (bench) List(netip.Addr) []nfs.Export                    { return nil }
func (bench) Generation() uint64                              { return 0 }
func (b bench) folder(kind string) (string, error) {
	dir := filepath.Join(b.dir, kind)
	return dir, os.MkdirAll(dir, 0o755)
}

func serve(ctx context.Context, dir, addr string) error {
	b := bench{dir}
	volumes := volume.New(volume.Config{Nodes: b,
		Persist: func(string, string) (string, error) { return b.folder("persist") },
		State:   func(string, string) (string, error) { return b.folder("state") }})
	defer volumes.Close()
	front := rpc.NewServer(nfs.NewServer(nfs.Config{Exports: b, Backends: volumes.Backends()}).Programs(), rpc.Limits{}, nil)
	nl, err := net.Listen("tcp4", addr)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	return front.ServeTCP(ctx, nl)
}
