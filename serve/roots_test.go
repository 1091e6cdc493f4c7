package serve

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rhizome/registry/imagefmt"
	"rhizome/registry/layerfmt"
	"rhizome/serve/nfs"
	"rhizome/serve/rootfs"
	"rhizome/serve/rpc"
	"rhizome/serve/rpc/rpctest"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// depot is a store in a folder, which counts what is open of it.
type depot struct {
	t        testing.TB
	dir      string
	open     atomic.Int64
	searches atomic.Int64

	mu   sync.Mutex
	docs map[digest.Digest][]byte
}

func newDepot(t testing.TB) *depot {
	return &depot{t: t, dir: t.TempDir(), docs: map[digest.Digest][]byte{}}
}

func (l *depot) put(v any) ocispec.Descriptor {
	data, err := json.Marshal(v)
	if err != nil {
		l.t.Fatal(err)
	}
	d := digest.FromBytes(data)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.docs[d] = data
	return ocispec.Descriptor{Digest: d, Size: int64(len(data)), MediaType: ocispec.MediaTypeImageManifest}
}

// layer makes a layer in a file: a word in a file, and a symlink that says it too.
func (l *depot) layer(word string) (ocispec.Descriptor, digest.Digest) {
	l.t.Helper()
	var stream, blob bytes.Buffer
	w := tar.NewWriter(&stream)
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeReg, Name: "word", Mode: 0o644, Size: int64(len(word))},
		{Typeflag: tar.TypeSymlink, Name: "says-" + word, Linkname: word, Mode: 0o777},
	} {
		h.Format = tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			l.t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			w.Write([]byte(word))
		}
	}
	w.Close()
	sum, err := layerfmt.Encode(&blob, &stream, layerfmt.Options{Jobs: 1})
	if err != nil {
		l.t.Fatal(err)
	}
	d := digest.FromBytes(blob.Bytes())
	if err := os.WriteFile(filepath.Join(l.dir, d.Encoded()), blob.Bytes(), 0o600); err != nil {
		l.t.Fatal(err)
	}
	return ocispec.Descriptor{Digest: d, Size: int64(blob.Len()), Annotations: sum.Annotations()}, sum.DiffID
}

// image makes an image of one node of a cluster.
func (l *depot) image(cluster, node, addr, word string) ocispec.Descriptor {
	l.t.Helper()
	layer, diffID := l.layer(word)
	labels, err := imagefmt.Labels(
		imagefmt.Cluster{Name: cluster, Network: imagefmt.Network{Subnet: netip.MustParsePrefix("10.77.0.0/24"), Server: netip.MustParseAddr("10.77.0.1")}},
		imagefmt.Node{Name: node, MACs: []string{card.String()}, Address: netip.MustParseAddr(addr), Root: "nfs", Boot: imagefmt.Boot{OS: "linux"}})
	if err != nil {
		l.t.Fatal(err)
	}
	config := l.put(ocispec.Image{RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}}, Config: ocispec.ImageConfig{Labels: labels}})
	return l.put(ocispec.Manifest{Config: config, Layers: []ocispec.Descriptor{layer}})
}

func (l *depot) Document(_ context.Context, d ocispec.Descriptor) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if data, ok := l.docs[d.Digest]; ok {
		return data, nil
	}
	return nil, fs.ErrNotExist
}

// book is a layer's file.
type book struct {
	*os.File
	size   int64
	closed func()
}

func (b book) Size() int64  { return b.size }
func (b book) Close() error { b.closed(); return b.File.Close() }

func (l *depot) Layer(_ context.Context, d ocispec.Descriptor, _ digest.Digest) (LayerBlob, ocispec.Descriptor, error) {
	f, err := os.Open(filepath.Join(l.dir, d.Digest.Encoded()))
	if err != nil {
		return nil, d, err
	}
	l.open.Add(1)
	return book{f, d.Size, func() { l.open.Add(-1) }}, d, nil
}

func (l *depot) find(fits func(digest.Digest) bool) (ocispec.Descriptor, error) {
	l.searches.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	for d, data := range l.docs {
		if fits(d) {
			return ocispec.Descriptor{Digest: d, Size: int64(len(data)), MediaType: ocispec.MediaTypeImageManifest}, nil
		}
	}
	return ocispec.Descriptor{}, fs.ErrNotExist
}

// rack is a server of a depot's images, without sockets, and its node n1.
type rack struct {
	*depot
	fleet  *Fleet
	loader *Loader
	nfs    *nfs.Server
	clock  atomic.Int64
	client netip.Addr
}

func newRack(t testing.TB) *rack {
	r := &rack{depot: newDepot(t), client: netip.MustParseAddr("10.77.0.11")}
	r.clock.Store(1e18)
	now := func() time.Time { return time.Unix(0, r.clock.Load()) }
	r.loader = &Loader{Source: r.depot, Cache: rootfs.NewCache(0), Map: true}
	t.Cleanup(func() { r.loader.Close() })
	r.fleet = NewFleet(now)
	r.fleet.Shelf = &Shelf{Loader: r.loader, Find: r.find, Gone: func(err error) bool { return errors.Is(err, fs.ErrNotExist) }}
	r.nfs = nfs.NewServer(nfs.Config{Exports: nfsExports{fleet: r.fleet}, Now: now})
	return r
}

func (r *rack) pass(d time.Duration) { r.clock.Add(int64(d)) }

// tend is what the server does now and then.
func (r *rack) tend() {
	r.fleet.CloseIdle()
	r.nfs.ForgetGrants()
}

// boots makes n1 boot an image, and gives the handle of its root and the id.
func (r *rack) boots(d ocispec.Descriptor) (handle []byte, id [16]byte) {
	r.t.Helper()
	m, err := r.loader.Machine(context.Background(), d)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.fleet.Switch([]*Machine{m}); err != nil {
		r.t.Fatal(err)
	}
	return m.View.Handle(m.View.Root()), m.View.ID()
}

const (
	procLookup = 3
	procRead   = 6
)

// ask does one NFS call. status is nfsstat3's.
func (r *rack) ask(client netip.Addr, mayBlock bool, procedure uint32, args ...[]byte) (st rpc.Status, status uint32, body []byte) {
	peer := rpc.NewPeer(context.Background(), netip.AddrPortFrom(client, 700), rpc.TCP)
	call := rpc.Call{Program: nfs.Program, Version: nfs.Version, Procedure: procedure, Cred: rpc.NewSysCred(0, 0),
		Args: bytes.Join(args, nil), Peer: peer, MayBlock: mayBlock}
	var out rpc.Reply
	if st = r.nfs.Serve(&call, &out); st != rpc.Success {
		return st, 0, nil
	}
	body = bytes.Clone(out.Bytes())
	out.Rewind(rpc.Mark{})
	d := rpc.NewDecoder(body)
	return st, d.Uint32(), body
}

// reads looks the file "word" up and reads it, as a worker does that may wait.
func (r *rack) reads(root []byte) (status uint32, word string) {
	_, status, body := r.ask(r.client, true, procLookup, rpctest.Opaque(root), rpctest.Opaque([]byte("word")))
	if status != 0 {
		return status, ""
	}
	d := rpc.NewDecoder(body[4:])
	file := bytes.Clone(d.Opaque(64))
	_, status, body = r.ask(r.client, true, procRead, rpctest.Opaque(file), rpctest.Words(0, 0, 100))
	if status != 0 {
		return status, ""
	}
	d = rpc.NewDecoder(body[4+4+84+4+4:]) // behind attributes, count and eof
	return 0, string(d.Opaque(100))
}

// settles waits until no more than so many layers are open: the garbage collector
// closes them.
func (r *rack) settles(most int64) {
	r.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); r.open.Load() > most || r.loader.Open() > int(most); {
		if time.Now().After(deadline) {
			r.t.Fatalf("%d layers are open, %d known to the loader; there should be %d", r.open.Load(), r.loader.Open(), most)
		}
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
}

// A server that follows fifty images has no more open than one that just began;
// and the handle of the first is good as long as the store has that image.
func TestFiftyImagesInARowAreNotOpenAtOnce(t *testing.T) {
	r := newRack(t)
	var first []byte
	var firstImage ocispec.Descriptor
	for i := range 50 {
		image := r.image("rack", "n1", "10.77.0.11", fmt.Sprint("image-", i))
		root, _ := r.boots(image)
		if first == nil {
			first, firstImage = root, image
		}
		if st, word := r.reads(root); st != 0 || word != fmt.Sprint("image-", i) {
			t.Fatalf("image %d: status %d, %q", i, st, word)
		}
		r.pass(idleAfter + time.Second)
		r.tend()
		r.settles(3)
	}
	if st, _, _ := r.ask(r.client, false, procLookup, rpctest.Opaque(first), rpctest.Opaque([]byte("word"))); st != rpc.WouldBlock {
		t.Errorf("who may not wait is told %d, and not to come again where it may", st)
	}
	if st, word := r.reads(first); st != 0 || word != "image-0" {
		t.Errorf("by the handle of the first image: status %d, %q", st, word)
	}
	if st, _, _ := r.ask(r.client, false, procLookup, rpctest.Opaque(first), rpctest.Opaque([]byte("word"))); st != rpc.Success {
		t.Errorf("once it is open nobody has to wait; RPC status %d", st)
	}

	// In use it stays open; idle it is closed; out of the store it is stale.
	for range 5 {
		r.pass(idleAfter / 2)
		r.tend()
		if st, word := r.reads(first); st != 0 || word != "image-0" {
			t.Errorf("in use: status %d, %q", st, word)
		}
	}
	if n := r.searches.Load(); n != 1 {
		t.Errorf("the store was searched %d times for an image in use", n)
	}
	r.pass(idleAfter + time.Second)
	r.tend()
	r.settles(1)
	delete(r.docs, firstImage.Digest)
	if st, _ := r.reads(first); st != 70 {
		t.Errorf("of an image that is not in the store: status %d, want NFS3ERR_STALE", st)
	}
}

// A boot that began holds its image open, however long the node is silent, and
// its former one goes.
func TestWhatABootGoesOnWithStaysOpen(t *testing.T) {
	r := newRack(t)
	root, id := r.boots(r.image("rack", "n1", "10.77.0.11", "held"))
	r.fleet.Take(card, StepFirmware)
	r.boots(r.image("rack", "n1", "10.77.0.11", "next"))
	for range 3 {
		r.pass(24 * time.Hour)
		r.tend()
	}
	if _, err := r.fleet.ByID(id, r.client); err != nil {
		t.Fatalf("the image of the boot that runs is closed: %v", err)
	}
	if st, word := r.reads(root); st != 0 || word != "held" {
		t.Errorf("status %d, %q", st, word)
	}
	r.fleet.Take(card, StepFirmware) // it boots again, and takes the next image
	r.pass(idleAfter + time.Second)
	r.tend()
	r.settles(1)
}

// What a node's handle opens is the node's own image of this cluster, and nobody
// else has it opened or gets to see it.
func TestAHandleOpensOnlyWhatItsClientMayRead(t *testing.T) {
	r := newRack(t)
	node := func(d ocispec.Descriptor) []byte {
		m, err := r.loader.Machine(context.Background(), d)
		if err != nil {
			t.Fatal(err)
		}
		return m.View.Handle(m.View.Root())
	}
	own := node(r.image("rack", "n1", "10.77.0.99", "own")) // n1 had another address then
	others := node(r.image("rack", "n2", "10.77.0.12", "others"))
	foreign := node(r.image("elsewhere", "n1", "10.77.0.11", "foreign"))
	taken := node(r.image("rack", "gone", "10.77.0.11", "taken"))
	r.boots(r.image("rack", "n1", "10.77.0.11", "now"))
	r.settles(1)
	for name, c := range map[string]struct {
		handle []byte
		client string
		want   uint32
	}{
		"a stranger":        {own, "10.77.0.13", 70},
		"another node's":    {others, "10.77.0.11", 13},
		"another cluster's": {foreign, "10.77.0.11", 70},
		"of a node that is no more, whose address is n1's now": {taken, "10.77.0.11", 70},
		"its own, from its former address":                     {own, "10.77.0.99", 70},
	} {
		r.pass(2 * missingFor)
		if _, st, _ := r.ask(netip.MustParseAddr(c.client), true, procLookup, rpctest.Opaque(c.handle), rpctest.Opaque([]byte("word"))); st != c.want {
			t.Errorf("%s: status %d, want %d", name, st, c.want)
		}
		if n := r.open.Load(); n != 1 {
			t.Errorf("%s: %d layers are open", name, n)
		}
	}
	r.pass(askAgain)
	if st, word := r.reads(own); st != 0 || word != "own" {
		t.Errorf("its own: status %d, %q", st, word)
	}
}

// A node that asks for images that are nowhere has the store searched every five
// seconds, and once a minute for the same.
func TestANodeCannotKeepTheServerSearching(t *testing.T) {
	r := newRack(t)
	root, _ := r.boots(r.image("rack", "n1", "10.77.0.11", "now"))
	nowhere := func(n byte) []byte {
		h := bytes.Clone(root)
		h[31] ^= n
		return h
	}
	ask := func(n byte) uint32 {
		st, _ := r.reads(nowhere(n))
		return st
	}
	if st := ask(1); st != 70 || r.searches.Load() != 1 {
		t.Errorf("status %d after %d searches", st, r.searches.Load())
	}
	for n := range byte(100) {
		if st := ask(n + 2); st != 10008 {
			t.Fatalf("at once again: status %d, want NFS3ERR_JUKEBOX", st)
		}
	}
	r.pass(askAgain)
	if st := ask(1); st != 70 || r.searches.Load() != 1 {
		t.Errorf("the same again: status %d after %d searches", st, r.searches.Load())
	}
	if st := ask(2); st != 70 || r.searches.Load() != 2 {
		t.Errorf("another, later: status %d after %d searches", st, r.searches.Load())
	}
}

// More images may be in use than machines, though not without bound: those that
// were not used for longest go first, and come back when they are asked for.
func TestTheLeastUsedIsClosedWhereTooManyAreOpen(t *testing.T) {
	r := newRack(t)
	var roots [][]byte
	for i := range spareRoots + 5 {
		root, _ := r.boots(r.image("rack", "n1", "10.77.0.11", fmt.Sprint("image-", i)))
		roots = append(roots, root)
		r.pass(time.Second)
	}
	r.tend()
	r.settles(spareRoots + 2)
	for _, i := range []int{0, spareRoots + 4, 1, spareRoots + 2} {
		if st, word := r.reads(roots[i]); st != 0 || word != fmt.Sprint("image-", i) {
			t.Errorf("image %d: status %d, %q", i, st, word)
		}
		r.pass(time.Second)
	}
	r.settles(spareRoots + 2)
}

// Roots are closed while nodes read them: who reads gets what is there, or is told
// to come again, and nothing unmapped is touched. Unmapped memory is a crash of
// the whole test, so that it is let go as often as can be.
func TestRootsAreClosedUnderLoad(t *testing.T) {
	r := newRack(t)
	const images = 8
	roots, descriptors := make([][]byte, images), make([]ocispec.Descriptor, images)
	for i := range images {
		descriptors[i] = r.image("rack", "n1", "10.77.0.11", strings.Repeat(fmt.Sprint(i), 40))
		roots[i], _ = r.boots(descriptors[i])
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for g := range 4 {
		wg.Go(func() {
			for n := g; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				r.walk(n%images, roots[n%images])
			}
		})
	}
	for n := range 150 {
		r.pass(idleAfter + time.Second)
		r.boots(descriptors[n%images])
		r.tend()
		runtime.GC()
	}
	close(stop)
	wg.Wait()
	if r.searches.Load() == 0 {
		t.Error("nothing was closed that was in use")
	}
	r.pass(idleAfter + time.Second)
	r.tend()
	r.settles(1)
}

// walk reads, lists and follows the symlink of an image, and wants that one's.
func (r *rack) walk(image int, root []byte) {
	word := strings.Repeat(fmt.Sprint(image), 40)
	if st, got := r.reads(root); st == 0 && got != word || st != 0 && st != 10008 {
		r.t.Errorf("image %d: status %d, %q", image, st, got)
	}
	_, st, body := r.ask(r.client, true, 16, rpctest.Opaque(root), make([]byte, 16), rpctest.Words(4096)) // READDIR
	if st == 0 && !bytes.Contains(body, []byte("says-"+word)) {
		r.t.Errorf("image %d lists %q", image, body)
	}
	_, st, body = r.ask(r.client, true, procLookup, rpctest.Opaque(root), rpctest.Opaque([]byte("says-"+word)))
	if st != 0 {
		return
	}
	d := rpc.NewDecoder(body[4:])
	link := bytes.Clone(d.Opaque(64))
	if _, st, body = r.ask(r.client, true, 5, rpctest.Opaque(link)); st == 0 && !bytes.Contains(body, []byte(word)) { // READLINK
		r.t.Errorf("image %d: its symlink says %q", image, body)
	}
}

// Every node of a large cluster keeps a connection for its root, and has room for
// others.
func TestEachNodeOfALargeClusterMayConnect(t *testing.T) {
	for _, nodes := range []int{1, 2, 1000, 10_000} {
		if n := connections(nodes); n < 2*nodes || n < 8192 {
			t.Errorf("%d nodes may have %d connections", nodes, n)
		}
	}
}
