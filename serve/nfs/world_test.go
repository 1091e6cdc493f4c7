package nfs

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rhizome/registry/layerfmt"
	"rhizome/serve/boot"
	"rhizome/serve/rootfs"
	"rhizome/serve/rpc"
	"rhizome/serve/rpc/rpctest"
)

// entries of a layer: a tar header and a body.
type file struct {
	tar.Header
	body []byte
}

func dir(name string, mode int64, id ...int) file {
	return owned(file{Header: tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode}}, id)
}

func reg(name string, mode int64, body []byte, id ...int) file {
	return owned(file{Header: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(body))}, body: body}, id)
}

func link(name, target string) file {
	return file{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}}
}

func owned(f file, id []int) file {
	if len(id) == 2 {
		f.Uid, f.Gid = id[0], id[1]
	}
	return f
}

// mtime is what every file of the tests has.
var mtime = time.Unix(1_700_000_000, 0)

// layerBlob writes entries as a layer.
func layerBlob(t testing.TB, files ...file) ([]byte, layerfmt.Summary) {
	t.Helper()
	var stream, blob bytes.Buffer
	w := tar.NewWriter(&stream)
	for _, f := range files {
		f.ModTime, f.Format = mtime, tar.FormatPAX
		if err := w.WriteHeader(&f.Header); err != nil {
			t.Fatalf("writing %q: %v", f.Name, err)
		}
		w.Write(f.body)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	sum, err := layerfmt.Encode(&blob, &stream, layerfmt.Options{Jobs: 1})
	if err != nil {
		t.Fatal(err)
	}
	return blob.Bytes(), sum
}

// openView merges blobs into a view that goes by the manifest digest.
func openView(t testing.TB, manifest string, cache *rootfs.Cache, blobs ...[]byte) *rootfs.View {
	t.Helper()
	var layers []*rootfs.Layer
	for i, blob := range blobs {
		index, err := layerfmt.ReadTail(bytes.NewReader(blob), int64(len(blob)), nil)
		if err != nil {
			t.Fatal(err)
		}
		l, err := rootfs.OpenLayer(fmt.Sprintf("sha256:%064d", i), bytes.NewReader(blob), int64(len(blob)), index, cache)
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, l)
	}
	v, err := rootfs.NewView(manifest, layers)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// The digests of the images of two nodes.
const (
	digestA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// text is n bytes that tell where they stand: lines of 16 bytes, numbered.
func text(n int) []byte {
	b := bytes.Repeat([]byte("000000000000000\n"), (n+15)/16)
	for line := 0; line < len(b); line += 16 {
		for i, v := line+14, line/16; v > 0; i, v = i-1, v/10 {
			b[i] = byte('0' + v%10)
		}
	}
	return b[:n]
}

// sampleFiles is a small root with a bit of everything.
func sampleFiles() []file {
	return []file{
		dir("bin", 0o755),
		reg("bin/sh", 0o755, text(300_000)),
		reg("bin/su", 0o4755, text(10)),
		reg("bin/exec-only", 0o711, text(5000)),
		dir("dev", 0o755),
		{Header: tar.Header{Typeflag: tar.TypeChar, Name: "dev/null", Mode: 0o666, Devmajor: 1, Devminor: 3}},
		{Header: tar.Header{Typeflag: tar.TypeBlock, Name: "dev/vda", Mode: 0o660, Devmajor: 253, Devminor: 0x12345}},
		{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "dev/pipe", Mode: 0o600}},
		dir("etc", 0o755),
		reg("etc/shadow", 0o640, []byte("root:*:\n"), 0, 42),
		reg("etc/empty", 0o644, nil),
		reg("etc/twin", 0o644, []byte("one body, two names\n")),
		{Header: tar.Header{Typeflag: tar.TypeLink, Name: "etc/twin2", Linkname: "etc/twin"}},
		reg("etc/Grüße", 0o644, []byte("not ASCII\n")),
		dir("home", 0o755),
		dir("home/user", 0o700, 1000, 1000),
		reg("home/user/mine", 0o000, []byte("mine\n"), 1000, 1000),
		dir("sbin", 0o755),
		reg("sbin/init", 0o755, text(2_500_000)),
		link("sbin/halt", "init"),
		dir("tmp", 0o1777),
	}
}

// The addresses of two nodes and of an administrator.
var (
	nodeA = netip.MustParseAddr("10.77.0.11")
	nodeB = netip.MustParseAddr("10.77.0.12")
	admin = netip.MustParseAddr("10.77.0.200")
)

// exports gives each node its own view, and the administrator all.
type exports struct {
	mu         sync.Mutex
	views      map[string]FS         // by path
	owner      map[string]netip.Addr // by path
	generation atomic.Uint64
}

func (e *exports) allowed(path string, client netip.Addr) bool {
	return client == admin || client.IsLoopback() || e.owner[path] == client
}

func (e *exports) Export(path string, client netip.Addr) (FS, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	v := e.views[path]
	if v == nil {
		return nil, fmt.Errorf("mounting %q: there is no such export: %w", path, fs.ErrNotExist)
	}
	if !e.allowed(path, client) {
		return nil, fmt.Errorf("mounting %q: it is another node's: %w", path, fs.ErrPermission)
	}
	return v, nil
}

func (e *exports) ByID(id [16]byte, client netip.Addr, _ bool) (FS, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for path, v := range e.views {
		if v.ID() != id {
			continue
		}
		if !e.allowed(path, client) {
			return nil, fmt.Errorf("a handle of %q: it is another node's: %w", path, fs.ErrPermission)
		}
		return v, nil
	}
	return nil, fmt.Errorf("image %x: %w", id, fs.ErrNotExist)
}

func (e *exports) List(client netip.Addr) []Export {
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []Export
	for path := range e.views {
		if e.allowed(path, client) {
			list = append(list, Export{path, []string{e.owner[path].String()}})
		}
	}
	return list
}

func (e *exports) Generation() uint64 { return e.generation.Load() }

// world is a server of two nodes' roots, without sockets.
type world struct {
	*Server
	t       testing.TB
	exports *exports
	view    *rootfs.View // nodeA's
	blob    []byte
	mu      sync.Mutex
	events  []boot.Event
	clock   atomic.Int64
}

// newWorld serves files as /nodes/a; /nodes/b has the sample.
func newWorld(t testing.TB, files ...file) *world {
	t.Helper()
	if len(files) == 0 {
		files = sampleFiles()
	}
	blob, _ := layerBlob(t, files...)
	cache := rootfs.NewCache(64 << 20)
	w := &world{t: t, blob: blob, view: openView(t, digestA, cache, blob)}
	sample, _ := layerBlob(t, sampleFiles()...)
	w.exports = &exports{
		views: map[string]FS{"/nodes/a": w.view, "/nodes/b": openView(t, digestB, cache, sample)},
		owner: map[string]netip.Addr{"/nodes/a": nodeA, "/nodes/b": nodeB},
	}
	w.Server = NewServer(Config{Exports: w.exports, Events: w.sink, Now: func() time.Time {
		return mtime.Add(time.Duration(w.clock.Load()))
	}})
	return w
}

func (w *world) sink(e boot.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
}

// kinds are the events so far.
func (w *world) kinds() []boot.Kind {
	w.mu.Lock()
	defer w.mu.Unlock()
	var ks []boot.Kind
	for _, e := range w.events {
		ks = append(ks, e.Kind)
	}
	return ks
}

// caller is who calls, without a socket.
type caller struct {
	w    *world
	peer *rpc.Peer
	cred rpc.Cred
}

// as is a caller from an address with a credential, by the node's kernel: from a
// reserved port.
func (w *world) as(addr netip.Addr, uid, gid uint32, groups ...uint32) *caller {
	return w.from(netip.AddrPortFrom(addr, 700), uid, gid, groups...)
}

// claims is a program of a user of nodeA that sends what credential it likes.
func (w *world) claims(uid, gid uint32, groups ...uint32) *caller {
	return w.from(netip.AddrPortFrom(nodeA, 40000), uid, gid, groups...)
}

func (w *world) from(addr netip.AddrPort, uid, gid uint32, groups ...uint32) *caller {
	return &caller{w, rpc.NewPeer(context.Background(), addr, rpc.TCP), rpc.NewSysCred(uid, gid, groups...)}
}

func (w *world) root() *caller { return w.as(nodeA, 0, 0) }

// over is the same caller over another transport.
func (c *caller) over(t rpc.Transport) *caller {
	peer := rpc.NewPeer(context.Background(), c.peer.Remote, t)
	return &caller{c.w, peer, c.cred}
}

// serve has a program serve a call as a worker would.
func (c *caller) serve(p rpc.Program, version, procedure uint32, args []byte) (rpc.Status, []byte) {
	var out rpc.Reply
	call := rpc.Call{Program: p.Number, Version: version, Procedure: procedure, Cred: c.cred, Args: args, Peer: c.peer, MayBlock: true}
	status := p.Handler.Serve(&call, &out)
	return status, out.Bytes()
}

// nfs does an NFS call, whose results must be well formed.
func (c *caller) nfs(procedure uint32, handle []byte, args ...[]byte) results {
	c.w.t.Helper()
	status, body := c.serve(c.w.Programs()[0], 3, procedure, slices.Concat(append([][]byte{rpctest.Opaque(handle)}, args...)...))
	if status != rpc.Success {
		c.w.t.Fatalf("%s: RPC status %d", procNames[procedure], status)
	}
	r, err := parseResults(procedure, body)
	if err != nil {
		c.w.t.Fatal(err)
	}
	return r
}

// mount gives the handle of an export's root.
func (c *caller) mount(path string) (uint32, []byte) {
	c.w.t.Helper()
	status, body := c.serve(c.w.Programs()[1], 3, mntMnt, rpctest.Opaque([]byte(path)))
	if status != rpc.Success {
		c.w.t.Fatalf("MNT %q: RPC status %d", path, status)
	}
	d := rpc.NewDecoder(body)
	if st := d.Uint32(); st != 0 {
		return st, nil
	}
	return 0, d.Opaque(maxHandle)
}

// walk looks a path up, name by name.
func (c *caller) walk(path ...string) []byte {
	c.w.t.Helper()
	_, h := c.mount("/nodes/a")
	for _, name := range path {
		r := c.nfs(procLookup, h, rpctest.Opaque([]byte(name)))
		if r.Status != ok {
			c.w.t.Fatalf("LOOKUP %q of %q: %d", name, path, r.Status)
		}
		h = r.Handle
	}
	return h
}

func u64(v uint64) []byte { return rpctest.Words(uint32(v>>32), uint32(v)) }

// socketed serves a world on loopback sockets until the test ends.
type socketed struct {
	*world
	rpc      *rpc.Server
	tcp, udp netip.AddrPort
}

// listenAt opens sockets on ports of the loopback address; 0 is any.
func (w *world) listenAt(l rpc.Limits, port uint16) *socketed {
	w.t.Helper()
	return w.listenOn(l, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port).String())
}

func (w *world) listenOn(l rpc.Limits, addr string) *socketed {
	w.t.Helper()
	nl, err := net.Listen("tcp", addr)
	if err != nil {
		w.t.Fatal(err)
	}
	pc, err := net.ListenPacket("udp", addr)
	if err != nil {
		w.t.Fatal(err)
	}
	s := &socketed{world: w, rpc: rpc.NewServer(append(w.Programs(), portmapper().Program()), l, nil),
		tcp: nl.Addr().(*net.TCPAddr).AddrPort(), udp: pc.LocalAddr().(*net.UDPAddr).AddrPort()}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { s.rpc.ServeTCP(ctx, nl) })
	done.Go(func() { s.rpc.ServeUDP(ctx, pc) })
	w.t.Cleanup(func() { cancel(); done.Wait() })
	return s
}

// url is how libnfs's tools name a path of nodeA's export; version 3 is their
// default.
func (s *socketed) url(path string) string {
	return fmt.Sprintf("nfs://127.0.0.1/nodes/a%s?nfsport=%d&mountport=%d", path, s.tcp.Port(), s.tcp.Port())
}

// portmapper says what serve's says.
func portmapper() *rpc.Portmapper {
	var ms []rpc.Mapping
	for _, t := range []rpc.Transport{rpc.TCP, rpc.UDP} {
		ms = append(ms, rpc.Mapping{Program: Program, Version: 3, Transport: t, Port: Port},
			rpc.Mapping{Program: MountProgram, Version: 3, Transport: t, Port: MountPort})
	}
	return rpc.NewPortmapper(ms...)
}
