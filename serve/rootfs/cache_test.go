package rootfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rhizome/registry/layerfmt"
)

// countedBlob counts reads, and lets a test hold them back.
type countedBlob struct {
	mu    sync.Mutex
	data  []byte
	reads atomic.Int64
	gate  chan struct{}
}

func (b *countedBlob) ReadAt(p []byte, off int64) (int, error) {
	b.reads.Add(1)
	if b.gate != nil {
		<-b.gate
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.NewReader(b.data).ReadAt(p, off)
}

func (b *countedBlob) flip(at int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data[at] ^= 1
}

// noise is a body that does not compress, the same for the same seed.
func noise(n int, seed uint64) string {
	rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	b := make([]byte, n)
	_, _ = rng.Read(b)
	return string(b)
}

// bigLayer has files of a frame each, "f0" and so on, and small ones between.
func bigLayer(t testing.TB, c *Cache, files int) (*Layer, *countedBlob, layerfmt.Summary) {
	t.Helper()
	var entries []ent
	for i := range files {
		entries = append(entries, ent{path: fmt.Sprintf("f%d", i), body: noise(layerfmt.MaxFrame-512, uint64(i))}, ent{path: fmt.Sprintf("s%d", i), body: noise(100*i+1, uint64(i))})
	}
	raw, s := blobOf(t, tarOf(t, entries))
	index, err := layerfmt.ReadTail(bytes.NewReader(raw), int64(len(raw)), s.Annotations())
	if err != nil {
		t.Fatal(err)
	}
	blob := &countedBlob{data: raw}
	l, err := OpenLayer(s.Digest.String(), blob, int64(len(raw)), index, c)
	if err != nil {
		t.Fatal(err)
	}
	return l, blob, s
}

func readAll(v *View, name string) (string, error) {
	r, err := v.Open(name)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(r)
	return string(b), err
}

func TestOneDecodeForAllWhoAskAtOnce(t *testing.T) {
	l, blob, _ := bigLayer(t, NewCache(16<<20), 1)
	blob.gate = make(chan struct{})
	v := viewOf(t, l)
	const readers = 16
	var started, all sync.WaitGroup
	errs := make(chan error, readers)
	for range readers {
		started.Add(1)
		all.Go(func() {
			started.Done()
			if b, err := readAll(v, "f0"); err != nil || b != noise(layerfmt.MaxFrame-512, 0) {
				errs <- fmt.Errorf("%d bytes, %w", len(b), err)
			}
		})
	}
	started.Wait()
	close(blob.gate)
	all.Wait()
	if n := blob.reads.Load(); n != 1 || len(errs) != 0 {
		t.Errorf("%d reads of one frame; %d readers failed", n, len(errs))
	}
}

func TestTheCacheStaysWithinItsSizeAndStaysRight(t *testing.T) {
	c := NewCache(1) // its least: 8 arenas
	l, _, _ := bigLayer(t, c, 40)
	v := viewOf(t, l)
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			for range 150 {
				i := rng.IntN(40)
				if b, err := readAll(v, fmt.Sprintf("f%d", i)); err != nil || b != noise(layerfmt.MaxFrame-512, uint64(i)) {
					t.Errorf("f%d: %d bytes, %v", i, len(b), err)
				}
				if b, err := readAll(v, fmt.Sprintf("s%d", i)); err != nil || b != noise(100*i+1, uint64(i)) {
					t.Errorf("s%d: %d bytes, %v", i, len(b), err)
				}
			}
		})
	}
	all.Wait()
	if s := c.Stats(); s.Bytes > s.Limit || s.Limit != minArenas*arenaStride || s.Evictions == 0 {
		t.Errorf("%+v", s)
	}
}

func TestSmallFramesShareAnArena(t *testing.T) {
	c := NewCache(1)
	var layers []*Layer
	for i := range 100 {
		layers = append(layers, layerOf(t, c, ent{path: fmt.Sprintf("f%d", i), body: strings.Repeat("x", 20000)}))
	}
	v := viewOf(t, layers...)
	for range 2 {
		for i := range 100 {
			if _, err := readAll(v, fmt.Sprintf("f%d", i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if s := c.Stats(); s.Loads != 100 || s.Evictions != 0 {
		t.Errorf("100 frames of 21 KB in 8 MiB: %+v", s)
	}
}

func TestWhatIsLentStaysWhileOthersReadOn(t *testing.T) {
	c := NewCache(1)
	l, _, _ := bigLayer(t, c, 24)
	v := viewOf(t, l)
	var held []Loan
	for i := range 12 { // more than the cache has room for
		f, _ := v.Resolve(fmt.Sprintf("f%d", i))
		var err error
		if held, err = v.Borrow(f, 0, layerfmt.MaxFrame, held); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 24 {
		if b, err := readAll(v, fmt.Sprintf("f%d", i)); err != nil || b != noise(layerfmt.MaxFrame-512, uint64(i)) {
			t.Fatalf("f%d with every arena held: %v", i, err)
		}
	}
	for i, loan := range held {
		if string(loan.Data) != noise(layerfmt.MaxFrame-512, uint64(i)) {
			t.Errorf("loan %d changed", i)
		}
	}
	if c.Stats().Overflows == 0 {
		t.Error("nothing went to the heap, so the test held too little")
	}
	ReleaseAll(held)
	before := c.Stats().Overflows
	for i := range 24 {
		if _, err := readAll(v, fmt.Sprintf("f%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if after := c.Stats().Overflows; after != before {
		t.Errorf("%d loads went to the heap though all was released", after-before)
	}
}

func TestLendCachedNeverWaits(t *testing.T) {
	c := NewCache(16 << 20)
	l, blob, _ := bigLayer(t, c, 2)
	v := viewOf(t, l)
	f, _ := v.Resolve("f1")
	if got, size, ok := v.LendCached(f, 0, 100, nil); ok || len(got) != 0 || size != layerfmt.MaxFrame-512 || blob.reads.Load() != 0 {
		t.Errorf("a frame that is not there was lent: %v, %d", ok, size)
	}
	if _, err := readAll(v, "f1"); err != nil {
		t.Fatal(err)
	}
	room := make([]Loan, 0, 4)
	allocs := testing.AllocsPerRun(100, func() {
		got, size, ok := v.LendCached(f, 100, 1000, room)
		if !ok || size != layerfmt.MaxFrame-512 || len(got) != 1 || len(got[0].Data) != 1000 {
			t.Fatalf("%v %d %d", ok, size, len(got))
		}
		ReleaseAll(got)
	})
	if allocs != 0 {
		t.Errorf("%v allocations for a READ from memory", allocs)
	}
	if got, _, ok := v.LendCached(f, layerfmt.MaxFrame, 10, nil); !ok || len(got) != 0 {
		t.Errorf("behind the end: %v, %d loans", ok, len(got))
	}
}

// Without a repair, the file gives an error that names it.
func TestADamagedFrameIsNeverServed(t *testing.T) {
	now := time.Unix(0, 0)
	c := NewCache(16 << 20)
	var heard []*DamagedError
	c.SetHooks(Hooks{Damaged: func(e *DamagedError, mended bool) { heard = append(heard, e) }, Now: func() time.Time { return now }})
	l, blob, _ := bigLayer(t, c, 3)
	v := viewOf(t, l)
	f, _ := v.Resolve("f1")
	off, _, _ := l.x.Body(layerfmt.Inode(f.Inode))
	frame := l.x.Frame(l.x.FrameFor(off))
	blob.flip(frame.Offset + 4000)
	b, err := readAll(v, "f1")
	var d *DamagedError
	if !errors.Is(err, ErrDamaged) || !errors.As(err, &d) || len(b) != 0 {
		t.Fatalf("%d bytes of a damaged frame, %v", len(b), err)
	}
	if d.File != "f1" || d.Layer != l.Digest() || d.Offset != frame.Offset || len(heard) != 1 {
		t.Errorf("%+v, heard %d times", d, len(heard))
	}
	if b, err := readAll(v, "f2"); err != nil || b != noise(layerfmt.MaxFrame-512, 2) {
		t.Errorf("a frame that is whole: %v", err)
	}
	// It is not read again for every impatient client, but is in time.
	reads := blob.reads.Load()
	if _, err := readAll(v, "f1"); !errors.Is(err, ErrDamaged) || blob.reads.Load() != reads {
		t.Errorf("%v after %d more reads", err, blob.reads.Load()-reads)
	}
	blob.flip(frame.Offset + 4000)
	now = now.Add(damageRetry)
	if b, err := readAll(v, "f1"); err != nil || b != noise(layerfmt.MaxFrame-512, 1) {
		t.Errorf("mended on disk by somebody else: %v", err)
	}
}

func TestADamagedFrameIsMendedFromElsewhere(t *testing.T) {
	c := NewCache(16 << 20)
	l, blob, s := bigLayer(t, c, 2)
	good := bytes.Clone(blob.data)
	var wrote, mended int
	bad, now := true, time.Unix(0, 0)
	c.SetHooks(Hooks{
		Repair: func(layer string, off, n int64) ([]byte, error) {
			if layer != s.Digest.String() {
				t.Errorf("asked for layer %s", layer)
			}
			if bad {
				bad = false
				return make([]byte, n), nil // a registry that sends another blob
			}
			return bytes.Clone(good[off : off+n]), nil
		},
		WriteBack: func(_ string, off int64, b []byte) error {
			wrote++
			blob.mu.Lock()
			defer blob.mu.Unlock()
			copy(blob.data[off:], b)
			return nil
		},
		Damaged: func(_ *DamagedError, ok bool) {
			if ok {
				mended++
			}
		},
		Now: func() time.Time { return now },
	})
	v := viewOf(t, l)
	blob.flip(100)
	if _, err := readAll(v, "f0"); !errors.Is(err, ErrDamaged) || wrote != 0 {
		t.Errorf("another blob's bytes were taken: %v", err)
	}
	now = now.Add(damageRetry)
	if b, err := readAll(v, "f0"); err != nil || b != noise(layerfmt.MaxFrame-512, 0) {
		t.Errorf("%v", err)
	}
	if wrote != 1 || mended != 1 || !bytes.Equal(blob.data, good) {
		t.Errorf("written back %d times, heard of %d mended frames", wrote, mended)
	}
}

func TestABlobThatEndsEarlyIsDamage(t *testing.T) {
	c := NewCache(16 << 20)
	l, blob, _ := bigLayer(t, c, 2)
	blob.data = blob.data[:1000]
	if _, err := readAll(viewOf(t, l), "f1"); !errors.Is(err, ErrDamaged) {
		t.Errorf("%v", err)
	}
}

func TestCloseGivesTheRoomBack(t *testing.T) {
	c := NewCache(1)
	for range 30 {
		l, _, _ := bigLayer(t, c, 2)
		v := viewOf(t, l)
		if _, err := readAll(v, "f0"); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if s := c.Stats(); s.Evictions != 0 || s.Bytes > 3*arenaStride {
		t.Errorf("%+v", s)
	}
}
