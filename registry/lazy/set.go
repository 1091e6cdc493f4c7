// Package lazy reads blobs that are still in a registry. What a reader wants is
// fetched at once, by range; the rest follows in the background, and a blob
// that is whole and has the right digest becomes the store's.
//
// Nothing here says that a piece is right before the blob is whole: readers
// check the index by the digest in the layer's descriptor, and frames by those
// in the index.
package lazy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"rhizome/registry/durable"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// atOnce bounds the pieces that are fetched at one time, and so the memory:
// each takes Piece bytes until it is in its file.
const atOnce = 16

// maxBlob is the largest blob that is read in parts, in bytes: what is known of
// its pieces is in memory, and its size is what a manifest of others says.
const maxBlob = 1 << 40

// Options are what a Set needs.
type Options struct {
	// Dir is where blobs grow, on the store's file system. What did not become
	// whole stays there and is gone on with by the next Set that wants it.
	Dir string
	// Fetch gets n bytes of a blob from off on.
	Fetch func(ctx context.Context, d ocispec.Descriptor, off, n int64) ([]byte, error)
	// Adopt closes a file that holds a whole, verified blob, and makes it the
	// store's.
	Adopt func(f durable.File, d ocispec.Descriptor) error
	// Timeout is how long a reader waits for a piece; 0 is 30 seconds.
	Timeout time.Duration
	// Sleep waits before the background tries again; nil is a timer.
	Sleep func(ctx context.Context, d time.Duration) error
	// Progress is told of every blob that is whole: bytes and blobs done and
	// all there are. Nil is silence.
	Progress func(done, total int64, blobs, of int)
	Log      *slog.Logger
}

// Set is the blobs of one image that are not all here.
type Set struct {
	ctx   context.Context
	stop  context.CancelFunc
	o     Options
	slots chan struct{}

	mu    sync.Mutex
	blobs map[digest.Digest]*Blob
}

// NewSet makes a set; ctx bounds all that it does.
func NewSet(ctx context.Context, o Options) *Set {
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	if o.Sleep == nil {
		o.Sleep = sleep
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Set{o: o, slots: make(chan struct{}, atOnce), blobs: map[digest.Digest]*Blob{}}
	s.ctx, s.stop = context.WithCancel(ctx)
	return s
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// Add takes a blob that is missing into the set.
func (s *Set) Add(d ocispec.Descriptor) error {
	if d.Size < 0 || d.Size > maxBlob {
		return fmt.Errorf("the blob %s has a size of %d bytes; at most %d are read in parts", d.Digest, d.Size, int64(maxBlob))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blobs[d.Digest] != nil {
		return nil
	}
	b, err := newBlob(s, d)
	if err == nil {
		s.blobs[d.Digest] = b
	}
	return err
}

// Blob finds a blob of the set, or nil.
func (s *Set) Blob(d digest.Digest) *Blob {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.blobs[d]
}

func (s *Set) fetch(ctx context.Context, d ocispec.Descriptor, off, n int64) ([]byte, error) {
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-s.slots }()
	data, err := s.o.Fetch(ctx, d, off, n)
	if err == nil && int64(len(data)) != n {
		err = fmt.Errorf("fetching %d bytes at %d of the blob %s: %d came", n, off, d.Digest, len(data))
	}
	return data, err
}

// Fill fetches what is missing of all blobs in an order, one piece after the
// other, so that readers go first. While the registry is away it waits. It
// returns when all is here, or ctx ends, or the store takes no more.
func (s *Set) Fill(ctx context.Context, order []ocispec.Descriptor) error {
	var done, total int64
	for _, d := range order {
		total += d.Size
	}
	for n, d := range order {
		b := s.Blob(d.Digest)
		if b == nil {
			continue
		}
		if err := s.complete(ctx, b); err != nil {
			return err
		}
		done += d.Size
		if s.o.Progress != nil {
			s.o.Progress(done, total, n+1, len(order))
		}
	}
	return nil
}

// complete fetches one blob, however long that takes.
func (s *Set) complete(ctx context.Context, b *Blob) error {
	for attempt := 0; ; attempt++ {
		again := true
		err := b.fill(ctx)
		if err == nil {
			again, err = b.finish(ctx)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !again {
			return err
		}
		if err == nil {
			continue
		}
		wait := time.Second << min(attempt, 5)
		s.o.Log.Warn("the image is not all here yet; trying again", "blob", b.desc.Digest, "wait", wait, "error", err)
		if err := s.o.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// Settle ends all fetching, for a set whose blobs are all whole. They can be read
// as before.
func (s *Set) Settle() { s.stop() }

// Close ends all reading. What is not whole stays for the next Set.
func (s *Set) Close() error {
	s.stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	for _, b := range s.blobs {
		err = errors.Join(err, b.drop())
	}
	return err
}
