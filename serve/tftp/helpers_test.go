package tftp

import (
	"bytes"
	"context"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"rhizome/registry/imagefmt"
	"rhizome/serve/boot"
	"rhizome/serve/bootspec"
)

func mustAddr(s string) netip.Addr { return netip.MustParseAddr(s) }

type memory map[string][]byte

func (t memory) Open(p string) (bootspec.File, error) {
	b, ok := t[p]
	if !ok {
		return bootspec.File{}, fs.ErrNotExist
	}
	return bootspec.File{ReaderAt: bytes.NewReader(b), Size: int64(len(b))}, nil
}

// noise is content that no shortcut can guess, the same every time.
func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

// running is a server under test and what it reported.
type running struct {
	*Server
	addr netip.AddrPort
	tree memory

	mu     sync.Mutex
	events []boot.Event
	more   chan struct{}
}

// start serves files to every address of 127.0.0.0/8 but 127.9.9.9.
func start(t *testing.T, files memory, change ...func(*Server)) *running {
	t.Helper()
	r := &running{tree: files, more: make(chan struct{}, 1)}
	node := imagefmt.Node{Name: "n1", MACs: []string{"52:54:00:00:00:01"}}
	for p := range files {
		node.Boot.Files = append(node.Boot.Files, p)
	}
	r.Server = &Server{
		Machines: func(a netip.Addr) (bootspec.Machine, bool) {
			return bootspec.Machine{Node: node, Digest: "sha256:d", Tree: r.tree}, a != mustAddr("127.9.9.9")
		},
		Events: r.note,
	}
	for _, c := range change {
		c(r.Server)
	}
	r.serve(t)
	return r
}

func (r *running) serve(t *testing.T) {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	r.addr = conn.LocalAddr().(*net.UDPAddr).AddrPort()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Serve(ctx, conn) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serving ended with %v", err)
		}
		conn.Close()
		if n := r.Counters.Active.Load(); n != 0 {
			t.Errorf("%d transfers outlived the server", n)
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

// await waits for the nth event of a kind.
func (r *running) await(t *testing.T, kind boot.Kind, nth int) boot.Event {
	t.Helper()
	for {
		if e, ok := r.find(kind, nth); ok {
			return e
		}
		select {
		case <-r.more:
		case <-t.Context().Done():
			t.Fatalf("no event %s; seen: %+v", kind, r.events)
		}
	}
}

func (r *running) find(kind boot.Kind, nth int) (boot.Event, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.Kind == kind {
			if nth--; nth == 0 {
				return e, true
			}
		}
	}
	return boot.Event{}, false
}

// until waits for something that other goroutines bring about.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}
