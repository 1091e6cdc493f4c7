package lazy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rhizome/registry/durable"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// far is a registry that holds one blob, and does what a test wants.
type far struct {
	data  []byte
	calls atomic.Int64
	// down and lying say what is wrong with it now.
	down, lying atomic.Bool
	gate        chan struct{} // when set, every answer waits for it
}

var errDown = errors.New("the registry is down")

func (f *far) fetch(ctx context.Context, _ ocispec.Descriptor, off, n int64) ([]byte, error) {
	f.calls.Add(1)
	if f.gate != nil {
		select {
		case <-f.gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if f.down.Load() {
		return nil, errDown
	}
	out := bytes.Clone(f.data[off : off+n])
	if f.lying.Load() {
		out[0] ^= 1
	}
	return out, nil
}

// setOf makes a set with one blob of n bytes, which goes to a file "blob".
func setOf(t *testing.T, n int, o Options) (*Set, *far, ocispec.Descriptor, string) {
	t.Helper()
	f := &far{data: make([]byte, n)}
	random := rand.NewChaCha8([32]byte{1})
	if _, err := random.Read(f.data); err != nil {
		t.Fatal(err)
	}
	o.Dir = t.TempDir()
	s, path := setIn(t, f, o)
	return s, f, describe(f.data), path
}

func describe(data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
}

// setIn makes a set of what is far away, in a folder that may hold what an
// earlier set left.
func setIn(t *testing.T, f *far, o Options) (*Set, string) {
	t.Helper()
	path := filepath.Join(o.Dir, "blob")
	o.Fetch = f.fetch
	o.Adopt = func(file durable.File, _ ocispec.Descriptor) error {
		return durable.Commit(durable.OS{}, file, path, 0o644)
	}
	s := NewSet(context.Background(), o)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		_, err := os.Stat(path)
		if left, _ := filepath.Glob(filepath.Join(o.Dir, "lazy-*")); err == nil && len(left) > 0 {
			t.Errorf("left behind a whole blob: %v", left)
		}
	})
	if err := s.Add(describe(f.data)); err != nil {
		t.Fatal(err)
	}
	return s, path
}

func TestAReadFetchesOnlyWhatItNeeds(t *testing.T) {
	s, f, d, _ := setOf(t, 5*Piece+7, Options{})
	b := s.Blob(d.Digest)
	for _, at := range []struct{ off, n, calls int64 }{
		{5 * Piece, 7, 1}, {5*Piece + 1, 3, 1}, {Piece - 1, 2, 3}, {0, 2 * Piece, 3}, {2 * Piece, Piece + 1, 5},
	} {
		p := make([]byte, at.n)
		if n, err := b.ReadAt(p, at.off); int64(n) != at.n || err != nil || !bytes.Equal(p, f.data[at.off:at.off+at.n]) {
			t.Errorf("%d bytes at %d: %d, %v", at.n, at.off, n, err)
		}
		if f.calls.Load() != at.calls {
			t.Errorf("%d bytes at %d: %d requests, want %d", at.n, at.off, f.calls.Load(), at.calls)
		}
	}
	if n, err := b.ReadAt(make([]byte, 10), 5*Piece+3); n != 4 || !errors.Is(err, io.EOF) {
		t.Errorf("over the end: %d, %v", n, err)
	}
	if n, err := b.ReadAt(make([]byte, 1), d.Size); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("behind the end: %d, %v", n, err)
	}
}

func TestManyReadersOfAPieceMakeOneRequest(t *testing.T) {
	s, f, d, _ := setOf(t, Piece, Options{})
	f.gate = make(chan struct{})
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			p := make([]byte, 100)
			if _, err := s.Blob(d.Digest).ReadAt(p, 50); err != nil || !bytes.Equal(p, f.data[50:150]) {
				t.Error("wrong bytes", err)
			}
		})
	}
	close(f.gate)
	all.Wait()
	if f.calls.Load() != 1 {
		t.Errorf("%d requests", f.calls.Load())
	}
}

// TestAReadGoesAheadOfTheQueue: the background is stuck in the first piece, and
// a reader of the last one is served.
func TestAReadGoesAheadOfTheQueue(t *testing.T) {
	first := make(chan struct{})
	o := Options{}
	s, f, d, path := setOf(t, 8*Piece, o)
	s.o.Fetch = func(ctx context.Context, d ocispec.Descriptor, off, n int64) ([]byte, error) {
		if off == 0 {
			<-first
		}
		return f.fetch(ctx, d, off, n)
	}
	filled := make(chan error)
	go func() { filled <- s.Fill(context.Background(), []ocispec.Descriptor{d}) }()
	p := make([]byte, Piece)
	if _, err := s.Blob(d.Digest).ReadAt(p, 7*Piece); err != nil || !bytes.Equal(p, f.data[7*Piece:]) {
		t.Fatal("wrong bytes", err)
	}
	close(first)
	if err := <-filled; err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, f.data) {
		t.Errorf("the blob: %d bytes, %v", len(got), err)
	}
	if f.calls.Load() != 8 {
		t.Errorf("%d requests for 8 pieces", f.calls.Load())
	}
	// What was opened goes on being read.
	if _, err := s.Blob(d.Digest).ReadAt(p, Piece); err != nil || !bytes.Equal(p, f.data[Piece:2*Piece]) {
		t.Error("wrong bytes of the whole blob", err)
	}
}

func TestARegistryThatDiesGivesErrorsAndGoesOnWhenItIsBack(t *testing.T) {
	waits := 0
	var f *far
	o := Options{Sleep: func(context.Context, time.Duration) error {
		if waits++; waits == 3 {
			f.down.Store(false)
		}
		return nil
	}}
	s, made, d, path := setOf(t, 3*Piece, o)
	f = made
	f.down.Store(true)
	if _, err := s.Blob(d.Digest).ReadAt(make([]byte, 10), 0); !errors.Is(err, errDown) {
		t.Fatalf("the read: %v", err)
	}
	if err := s.Fill(context.Background(), []ocispec.Descriptor{d}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, f.data) || waits != 3 {
		t.Errorf("the blob: %d bytes, %v, after %d waits", len(got), err, waits)
	}
}

func TestALyingRegistryNeverMakesABlob(t *testing.T) {
	var f *far
	o := Options{Sleep: func(context.Context, time.Duration) error { f.lying.Store(false); return nil }}
	s, made, d, path := setOf(t, 2*Piece, o)
	f = made
	f.lying.Store(true)
	b := s.Blob(d.Digest)
	p := make([]byte, 4)
	if _, err := b.ReadAt(p, 0); err != nil || bytes.Equal(p, f.data[:4]) {
		t.Fatal("the test's registry does not lie", err)
	}
	// A reader finds the frame damaged and asks again.
	f.lying.Store(false)
	if got, ok, err := b.Again(0, 4); !ok || err != nil || !bytes.Equal(got, f.data[:4]) {
		t.Errorf("again: %v %v", ok, err)
	}
	f.lying.Store(true)
	if err := s.Fill(context.Background(), []ocispec.Descriptor{d}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, f.data) {
		t.Errorf("the blob: %d bytes, %v", len(got), err)
	}
	if _, ok, _ := b.Again(0, 4); ok {
		t.Error("a whole blob is the store's to mend")
	}
}

// The size of a blob is what somebody's manifest says; what it makes us keep is
// bounded.
func TestABlobOfAnySizeIsRefusedOrHasRoom(t *testing.T) {
	for _, size := range []int64{-1, 1<<40 + 1, 1 << 62, math.MaxInt64} {
		s, _, d, _ := setOf(t, 10, Options{})
		d.Size, d.Digest = size, digest.FromString("other")
		if err := s.Add(d); err == nil {
			t.Errorf("a blob of %d bytes was taken", size)
		}
	}
}
