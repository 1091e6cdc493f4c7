// Server serves one tar archive over NFS, the way rhizome serve does with an
// image, for bench/nfs.sh: no DHCP, no store, one export "/nodes/bench" that
// everybody on loopback may mount.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"syscall"
	"time"

	"rhizome/registry/layerfmt"
	"rhizome/serve/nfs"
	"rhizome/serve/reads"
	"rhizome/serve/rootfs"
	"rhizome/serve/rpc"
)

func main() {
	archive := flag.String("tar", "", "the archive to serve")
	addr := flag.String("listen", "127.0.0.1:12049", "where to listen, TCP and UDP")
	cache := flag.Int64("cache", 1<<30, "bytes of decoded frames to keep")
	count := flag.Bool("count", true, "count what is read of each file, as rhizome serve does")
	profile := flag.String("cpuprofile", "", "where to write a CPU profile at the end")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *archive, *addr, *cache, *count, *profile); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, archive, addr string, cache int64, count bool, profile string) error {
	view, err := open(archive, rootfs.NewCache(cache))
	if err != nil {
		return fmt.Errorf("opening %q: %w", archive, err)
	}
	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	return serve(ctx, view, addr, count)
}

// open packs the archive into a layer, which lies in a file that has no name
// any more, and makes a view of it.
func open(archive string, c *rootfs.Cache) (*rootfs.View, error) {
	src, err := os.Open(archive)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	blob, err := os.CreateTemp("", "bench-layer")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(blob.Name()); err != nil {
		return nil, err
	}
	sum, err := layerfmt.Encode(blob, src, layerfmt.Options{Jobs: runtime.NumCPU()})
	if err != nil {
		return nil, err
	}
	size, err := blob.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	index, err := layerfmt.ReadTail(blob, size, sum.Annotations())
	if err != nil {
		return nil, err
	}
	layer, err := rootfs.OpenLayer(fmt.Sprint(sum.Digest), blob, size, index, c)
	if err != nil {
		return nil, err
	}
	return rootfs.NewView("sha256:"+fmt.Sprintf("%064d", 1), []*rootfs.Layer{layer})
}

func serve(ctx context.Context, view *rootfs.View, addr string, count bool) error {
	nl, err := net.Listen("tcp4", addr)
	if err != nil {
		return err
	}
	pc, err := net.ListenPacket("udp4", addr)
	if err != nil {
		return err
	}
	config := nfs.Config{Exports: one{view}}
	if count {
		root := reads.Root{Node: "bench", View: view}
		book := reads.NewBook("bench", time.Now, func(netip.Addr, [16]byte) (reads.Root, bool) { return root, true }, func(reads.Record) {})
		config.Meters = func(client netip.Addr, fsys nfs.FS) nfs.Meter { return book.Meter(client, fsys.ID()) }
	}
	s := rpc.NewServer(nfs.NewServer(config).Programs(), rpc.Limits{}, nil)
	fmt.Println("ready")
	done := make(chan error, 2)
	go func() { done <- s.ServeUDP(ctx, pc) }()
	go func() { done <- s.ServeTCP(ctx, nl) }()
	for range 2 {
		if err := <-done; err != nil {
			return err
		}
	}
	return nil
}

// one is the only export.
type one struct{ view *rootfs.View }

const path = "/nodes/bench"

func (o one) Export(name string, _ netip.Addr) (nfs.FS, error) {
	if name != path {
		return nil, fs.ErrNotExist
	}
	return o.view, nil
}

func (o one) ByID(id [16]byte, _ netip.Addr, _ bool) (nfs.FS, error) {
	if id != o.view.ID() {
		return nil, fs.ErrNotExist
	}
	return o.view, nil
}

func (o one) List(netip.Addr) []nfs.Export { return []nfs.Export{{Path: path}} }
func (o one) Generation() uint64           { return 0 }
