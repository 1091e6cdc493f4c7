package volume

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"rhizome/registry/imagefmt"
	"rhizome/registry/layerfmt"
	"rhizome/serve/boot"
	"rhizome/serve/nfs"
	"rhizome/serve/rootfs"
	"rhizome/serve/rpc"

	"io/fs"
)

// file is an entry of a test's image.
type file struct {
	tar.Header
	body string
}

func imgDir(name string, mode int64) file {
	return file{Header: tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode}}
}

func imgFile(name string, mode int64, body string) file {
	return file{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(body))}, body}
}

func imgLink(name, target string) file {
	return file{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}}
}

func imgHardLink(name, target string) file {
	return file{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644}}
}

// serverProcess is what stands for the test in a process that is only a server.
type serverProcess struct{ testing.TB }

func (serverProcess) Helper() {}

func (serverProcess) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

func (serverProcess) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// makeView packs files into a layer and opens it, as a build and a server do.
func makeView(t testing.TB, version int, files ...file) *rootfs.View {
	t.Helper()
	var stream, blob bytes.Buffer
	w := tar.NewWriter(&stream)
	for _, f := range files {
		f.ModTime, f.Format = time.Unix(1_700_000_000, 0), tar.FormatPAX
		if err := w.WriteHeader(&f.Header); err != nil {
			t.Fatalf("writing %q: %v", f.Name, err)
		}
		w.Write([]byte(f.body))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := layerfmt.Encode(&blob, &stream, layerfmt.Options{Jobs: 1}); err != nil {
		t.Fatal(err)
	}
	index, err := layerfmt.ReadTail(bytes.NewReader(blob.Bytes()), int64(blob.Len()), nil)
	if err != nil {
		t.Fatal(err)
	}
	digest := fmt.Sprintf("sha256:%064x", version)
	l, err := rootfs.OpenLayer(digest, bytes.NewReader(blob.Bytes()), int64(blob.Len()), index, rootfs.NewCache(8<<20))
	if err != nil {
		t.Fatal(err)
	}
	v, err := rootfs.NewView(digest, []*rootfs.Layer{l})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// nodes are the machines of a test, by address.
type nodes struct {
	mu    sync.Mutex
	nodes map[netip.Addr]Node
	views map[string]*rootfs.View
}

func (n *nodes) ByAddr(a netip.Addr) (Node, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	node, ok := n.nodes[a]
	return node, ok
}

func (n *nodes) ByDigest(digest string) *rootfs.View {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.views[digest]
}

// boots makes a node boot another image.
func (n *nodes) boots(addr string, v *rootfs.View) {
	n.mu.Lock()
	defer n.mu.Unlock()
	a := netip.MustParseAddr(addr)
	node := n.nodes[a]
	node.View = v
	n.nodes[a] = node
	n.views[v.Digest()] = v
}

// edit changes what a node's recipe says.
func (n *nodes) edit(addr string, how func(*Node)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	a := netip.MustParseAddr(addr)
	node := n.nodes[a]
	how(&node)
	n.nodes[a] = node
}

// exports has nothing to read only.
type exports struct{}

func (exports) Export(string, netip.Addr) (nfs.FS, error)       { return nil, fs.ErrNotExist }
func (exports) ByID([16]byte, netip.Addr, bool) (nfs.FS, error) { return nil, fs.ErrNotExist }
func (exports) List(netip.Addr) []nfs.Export                    { return nil }
func (exports) Generation() uint64                              { return 0 }

// The nodes' addresses, on the loopback network.
const (
	addr1 = "127.0.0.1"
	addr2 = "127.0.0.2"
)

// world is a store's folder and the servers that serve it, one after another.
type world struct {
	t     testing.TB
	dir   string
	nodes *nodes

	volumes *Volumes
	front   *rpc.Server
	// addr is where the server listens for TCP, udpAddr for UDP.
	addr, udpAddr string

	stop func()

	mu     sync.Mutex
	events []boot.Event
	// skew is how far the servers' clock is ahead.
	skew time.Duration
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.skew)
}

// later moves the clock of the servers.
func (w *world) later(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.skew += d
}

// etc is what the nodes' image has.
var etc = []file{
	imgDir("etc", 0o755), imgFile("etc/passwd", 0o644, "root:0:0\n"), imgFile("etc/shadow", 0o600, "root:x\n"),
	imgFile("etc/motd", 0o644, "welcome to version 1\n"), imgLink("etc/mtab", "/proc/mounts"),
	imgDir("etc/rc.d", 0o755), imgFile("etc/rc.d/one", 0o755, "#!/bin/sh\n"), imgFile("etc/rc.d/two", 0o755, "#!/bin/sh\ntwo\n"),
	imgFile("etc/linked", 0o644, "twice"), imgHardLink("etc/linked.too", "etc/linked"),
	imgDir("outside", 0o755), imgFile("outside/secret", 0o644, "not in the export"),
}

// fastDir is a folder on a file system that is quick to sync: tests of what is
// done are no tests of the disk.
func fastDir(t testing.TB) string {
	if st, err := os.Stat("/dev/shm"); err == nil && st.IsDir() {
		dir, err := os.MkdirTemp("/dev/shm", "rzt-volume-")
		if err == nil {
			t.Cleanup(func() { os.RemoveAll(dir) })
			return dir
		}
	}
	return t.TempDir()
}

// newWorld makes a store with two nodes and starts a server.
func newWorld(t testing.TB, edit func(*Node)) *world {
	t.Helper()
	w := worldAt(t, fastDir(t))
	if edit != nil {
		for a, n := range w.nodes.nodes {
			edit(&n)
			w.nodes.nodes[a] = n
		}
	}
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

// worldAt is a world on a folder, without a server yet.
func worldAt(t testing.TB, dir string) *world {
	w := &world{t: t, dir: dir, nodes: &nodes{nodes: map[netip.Addr]Node{}, views: map[string]*rootfs.View{}}}
	v := makeView(t, 1, etc...)
	for i, a := range []string{addr1, addr2} {
		n := Node{Cluster: "c", View: v, Node: imagefmt.Node{Name: fmt.Sprintf("n%d", i+1), Address: netip.MustParseAddr(a),
			Persist: "/persist", CopyOnWrite: []string{"/etc"}}}
		w.nodes.nodes[n.Address] = n
	}
	w.nodes.views[v.Digest()] = v
	return w
}

func (w *world) folder(kind, cluster, node string) (string, error) {
	dir := filepath.Join(w.dir, kind, cluster, node)
	return dir, os.MkdirAll(dir, 0o755)
}

func (w *world) config() Config {
	return Config{
		Nodes:   w.nodes,
		Persist: func(c, n string) (string, error) { return w.folder("persist", c, n) },
		State:   func(c, n string) (string, error) { return w.folder("cow", c, n) },
		Now:     w.clock,
		Events: func(e boot.Event) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, e)
		},
	}
}

// start starts a server on the store, on a port of its own.
func (w *world) start() {
	w.t.Helper()
	volumes := New(w.config())
	w.volumes = volumes
	server := nfs.NewServer(nfs.Config{Exports: exports{}, Backends: volumes.Backends()})
	w.front = rpc.NewServer(server.Programs(), rpc.Limits{Drain: time.Second}, nil)
	nl, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	w.addr = nl.Addr().String()
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	w.udpAddr = pc.LocalAddr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- w.front.ServeTCP(ctx, nl) }()
	go func() { done <- w.front.ServeUDP(ctx, pc) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-done, <-done, volumes.Close()); err != nil {
			w.t.Errorf("stopping the server: %v", err)
		}
	})
}

// restart stops the server and starts another on the same store.
func (w *world) restart() {
	w.t.Helper()
	w.stop()
	w.start()
}

// heard tells of events of a kind.
func (w *world) heard(k boot.Kind) []boot.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []boot.Event
	for _, e := range w.events {
		if e.Kind == k {
			all = append(all, e)
		}
	}
	return all
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("skipped: file handles and reserved ports need root")
	}
}
