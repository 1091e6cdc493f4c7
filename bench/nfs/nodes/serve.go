package main

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"

	"rhizome/registry/layerfmt"
	"rhizome/serve/nfs"
	"rhizome/serve/rootfs"
	"rhizome/serve/rpc"
)

// baseFiles is how many files the base has.
const baseFiles = 30_000

func nameOf(f int) string   { return fmt.Sprintf("file%05d", f) }
func exportOf(i int) string { return fmt.Sprintf("/nodes/n%d", i) }

// serve makes the layers, says where it listens, and says how large its frame
// cache is when its input ends.
func serve(ctx context.Context) error {
	cache := rootfs.NewCache(256 << 20)
	base, err := layer(cache, baseFiles, func(f int) (string, []byte) {
		r := rand.NewPCG(uint64(f), 1)
		body := make([]byte, 1024*(1+f%8))
		for i := range body {
			body[i] = byte(r.Uint64())
		}
		return nameOf(f), body
	})
	if err != nil {
		return err
	}
	all := exports{byPath: map[string]*rootfs.View{}, byID: map[[16]byte]*rootfs.View{}}
	for i := range nodes {
		own, err := layer(cache, 8, func(f int) (string, []byte) {
			return []string{"hostname", "fstab", "hosts", "machine-id", "mtab", "resolv.conf", "motd", "issue"}[f], fmt.Appendf(nil, "%d of node %d\n", f, i)
		})
		if err != nil {
			return err
		}
		v, err := rootfs.NewView(fmt.Sprintf("sha256:%064d", i), []*rootfs.Layer{base, own})
		if err != nil {
			return err
		}
		all.byPath[exportOf(i)], all.byID[v.ID()] = v, v
	}
	nl, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	runtime.GC() // what packing the layers took is no part of serving them
	fmt.Println(nl.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		fmt.Println(cache.Stats().Bytes)
	}()
	return rpc.NewServer(nfs.NewServer(nfs.Config{Exports: all}).Programs(), rpc.Limits{}, nil).ServeTCP(ctx, nl)
}

// layer packs n files into a layer, which lies in a file that has no name any
// more.
func layer(c *rootfs.Cache, n int, file func(f int) (string, []byte)) (*rootfs.Layer, error) {
	blob, err := os.CreateTemp("", "bench-layer")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(blob.Name()); err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(pack(w, n, file)) }()
	sum, err := layerfmt.Encode(blob, r, layerfmt.Options{Jobs: 1})
	if err != nil {
		return nil, err
	}
	size, err := blob.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	return rootfs.OpenLayerFile(fmt.Sprint(sum.Digest), blob, size, sum.Annotations(), c)
}

func pack(w io.Writer, n int, file func(f int) (string, []byte)) error {
	t := tar.NewWriter(w)
	for f := range n {
		name, body := file(f)
		if err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(body)), Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		if _, err := t.Write(body); err != nil {
			return err
		}
	}
	return t.Close()
}

// exports has a root for each node, open to all of loopback.
type exports struct {
	byPath map[string]*rootfs.View
	byID   map[[16]byte]*rootfs.View
}

func (e exports) Export(name string, _ netip.Addr) (nfs.FS, error) {
	if v := e.byPath[name]; v != nil {
		return v, nil
	}
	return nil, fs.ErrNotExist
}

func (e exports) ByID(id [16]byte, _ netip.Addr, _ bool) (nfs.FS, error) {
	if v := e.byID[id]; v != nil {
		return v, nil
	}
	return nil, fs.ErrNotExist
}

func (exports) List(netip.Addr) []nfs.Export { return nil }
func (exports) Generation() uint64           { return 0 }
