// Command layers is the part of bench/layers.sh that is rhizome's: it makes a
// layer of a tar, opens it, and reads it through a view, and prints what that
// cost this process.
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"rhizome/pipeline/layer"
	"rhizome/pipeline/tree"
	"rhizome/registry/layerfmt"
	"rhizome/serve/rootfs"
)

const usage = `usage: layers make TAR BLOB    a tar of a root becomes a layer
       layers open BLOB        from the pulled blob to the first file that is read
       layers read BLOB        every file once, through a view with a cold cache
       layers nodes BLOB N     heap for each of N nodes on the layer`

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "layers:", err)
		os.Exit(1)
	}
}

func run(_ context.Context, args []string) error {
	switch {
	case len(args) == 3 && args[0] == "make":
		return report(func() error { return makeLayer(args[1], args[2]) })
	case len(args) == 2 && args[0] == "open":
		return report(func() error { _, err := open(args[1]); return err })
	case len(args) == 2 && args[0] == "read":
		return report(func() error { return read(args[1]) })
	case len(args) == 3 && args[0] == "nodes":
		return nodes(args[1], args[2])
	}
	return fmt.Errorf("%s", usage)
}

// report prints "wall cpu" in seconds and the largest resident size in MB.
func report(work func() error) error {
	begin := time.Now()
	before := cpu()
	if err := work(); err != nil {
		return err
	}
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return err
	}
	fmt.Printf("%.4f %.4f %d\n", time.Since(begin).Seconds(), (cpu() - before).Seconds(), u.Maxrss/1024)
	return nil
}

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func makeLayer(tarFile, blob string) error {
	t, err := tree.FromTar(tarFile)
	if err != nil {
		return err
	}
	out, err := os.Create(blob)
	if err != nil {
		return err
	}
	if _, err := layer.Write(out, t, time.Unix(1793491200, 0), 0); err != nil {
		return err
	}
	return out.Close()
}

func open(blob string) (*rootfs.View, error) {
	f, err := os.Open(blob)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	l, err := rootfs.OpenLayerFile(blob, f, info.Size(), nil, rootfs.NewCache(64<<20))
	if err != nil {
		return nil, err
	}
	v, err := rootfs.NewView(blob, []*rootfs.Layer{l})
	if err != nil {
		return nil, err
	}
	_, err = v.Resolve("/etc/os-release")
	return v, err
}

func read(blob string) error {
	v, err := open(blob)
	if err != nil {
		return err
	}
	buf := make([]byte, 128<<10)
	return v.Walk("/", func(_ string, f rootfs.File, a rootfs.Attr) error {
		if a.Kind != rootfs.Regular {
			return nil
		}
		for off := int64(0); off < int64(a.Size); off += int64(len(buf)) {
			n := min(int64(len(buf)), int64(a.Size)-off)
			if _, err := v.ReadAt(f, buf[:n], off); err != nil {
				return err
			}
		}
		return nil
	})
}

func nodes(blob, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	base, err := open(blob)
	if err != nil {
		return err
	}
	blobs := make([][]byte, n)
	for i := range blobs {
		if blobs[i], err = nodeBlob(i); err != nil {
			return err
		}
	}
	cache := rootfs.NewCache(0)
	before := heap()
	begin := time.Now()
	views := make([]*rootfs.View, n)
	for i, b := range blobs {
		if views[i], err = nodeView(base, cache, b, i); err != nil {
			return err
		}
	}
	took := time.Since(begin)
	fmt.Printf("%.1f %.1f\n", float64(heap()-before)/float64(n)/1024, took.Seconds()*1e6/float64(n))
	runtime.KeepAlive(views)
	runtime.KeepAlive(blobs)
	runtime.KeepAlive(cache)
	return nil
}

func nodeView(base *rootfs.View, cache *rootfs.Cache, blob []byte, i int) (*rootfs.View, error) {
	r := bytes.NewReader(blob)
	index, err := layerfmt.ReadTail(r, r.Size(), nil)
	if err != nil {
		return nil, err
	}
	l, err := rootfs.OpenLayer(fmt.Sprint(i), r, r.Size(), index, cache)
	if err != nil {
		return nil, err
	}
	return rootfs.NewView(fmt.Sprint(i), append(base.Layers()[:1:1], l))
}

// nodeBlob is a node's own layer: identity, network, a few files of /etc.
func nodeBlob(i int) ([]byte, error) {
	t := tree.New()
	for _, p := range strings.Fields("etc/hostname etc/hosts etc/machine-id etc/fstab etc/systemd/network/10-boot.network etc/ssh/sshd_config.d/node.conf var/lib/node/id") {
		if err := t.Add(tree.Entry{Path: p, Kind: tree.File, Mode: 0o644, Body: tree.Text(fmt.Sprintf("node %d\n", i))}); err != nil {
			return nil, err
		}
	}
	var b bytes.Buffer
	_, err := layer.Write(&b, t, time.Unix(1793491200, 0), 1)
	return b.Bytes(), err
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
