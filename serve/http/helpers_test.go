package httpd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"rhizome/registry/imagefmt"
	"rhizome/serve/boot"
	"rhizome/serve/bootspec"
)

type memory map[string][]byte

func (t memory) Open(p string) (bootspec.File, error) {
	b, ok := t[p]
	if !ok {
		return bootspec.File{}, fs.ErrNotExist
	}
	return bootspec.File{ReaderAt: bytes.NewReader(b), Size: int64(len(b)), Digest: sum(b), ModTime: time.Unix(1793491200, 0)}, nil
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(s[:])
}

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

// running is a server with two nodes, 127.0.0.1 and 127.0.0.2.
type running struct {
	*Server
	url     string
	tree    memory
	bundle  []byte
	layer   []byte
	foreign []byte
	blobs   string

	mu     sync.Mutex
	events []boot.Event
	more   chan struct{}
}

func start(t *testing.T, change ...func(*running)) *running {
	t.Helper()
	r := &running{
		tree:   memory{"/boot/vmlinuz": noise(3 << 20), "/boot/initrd.img": noise(1000), "/boot/loader.efi": noise(10), "/etc/shadow": []byte("secret")},
		bundle: noise(5 << 20), layer: noise(2 << 20), foreign: noise(77), blobs: t.TempDir(), more: make(chan struct{}, 1),
	}
	for _, b := range [][]byte{r.bundle, r.layer, r.foreign} {
		if err := os.WriteFile(filepath.Join(r.blobs, sum(b)), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.Server = &Server{Machines: r.machine, OpenBlob: r.open, Events: r.note}
	for _, c := range change {
		c(r)
	}
	r.listen(t)
	return r
}

func (r *running) machine(a netip.Addr) (bootspec.Machine, bool) {
	name := map[string]string{"127.0.0.1": "n1", "127.0.0.2": "n2"}[a.String()]
	m := bootspec.Machine{
		Cluster: imagefmt.Cluster{Name: "c", Network: imagefmt.Network{Server: netip.MustParseAddr("127.0.0.1")}},
		Node: imagefmt.Node{Name: name, Address: a, MACs: []string{"52:54:00:00:00:01"}, Boot: imagefmt.Boot{
			Kernel: "/boot/vmlinuz", Initrd: "/boot/initrd.img", UEFI: "/boot/loader.efi", Cmdline: "name={name}",
		}},
		Digest: "sha256:d", Tree: r.tree, Blobs: []bootspec.Blob{{Digest: sum(r.bundle), AnyUser: true}, {Digest: sum(r.layer)}},
	}
	return m, name != ""
}

func (r *running) open(_ context.Context, digest string) (BlobFile, error) {
	return os.Open(filepath.Join(r.blobs, digest))
}

func (r *running) listen(t *testing.T) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.url = "http://" + ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serving ended with %v", err)
		}
	})
}

func (r *running) note(e boot.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
	select {
	case r.more <- struct{}{}:
	default:
	}
}

// await waits for the first event of a kind.
func (r *running) await(t *testing.T, kind boot.Kind) boot.Event {
	t.Helper()
	for {
		r.mu.Lock()
		for _, e := range r.events {
			if e.Kind == kind {
				r.mu.Unlock()
				return e
			}
		}
		r.mu.Unlock()
		select {
		case <-r.more:
		case <-time.After(20 * time.Second):
			t.Fatalf("no event %s; seen: %+v", kind, r.events)
		}
	}
}

func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("skipped: %s is not installed", program)
	}
}

// curl runs curl and returns what it wrote, and its status code.
func curl(t *testing.T, args ...string) (body []byte, status string) {
	t.Helper()
	need(t, "curl")
	out := filepath.Join(t.TempDir(), "out")
	code, err := exec.CommandContext(t.Context(), "curl", append([]string{"-sS", "-o", out, "-w", "%{http_code}"}, args...)...).Output()
	if err != nil {
		t.Logf("curl %v: %v", args, err)
	}
	body, _ = os.ReadFile(out)
	return body, string(code)
}
