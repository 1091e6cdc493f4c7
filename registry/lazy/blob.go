package lazy

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"sync"

	"rhizome/registry/durable"
	"rhizome/registry/layout"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Piece is how much is fetched at once, in bytes: as much as the largest frame
// of a layer.
const Piece = 1 << 20

// Blob is a blob that is here in parts. It is safe for many goroutines.
type Blob struct {
	set  *Set
	desc ocispec.Descriptor
	*growth

	mu   sync.Mutex
	have []bool
	// lost counts how often pieces were dropped again.
	lost    int
	flights map[int]*flight
	whole   bool
	done    chan struct{}
}

// flight is a fetch that others wait for.
type flight struct {
	done chan struct{}
	err  error
}

func newBlob(s *Set, d ocispec.Descriptor) (*Blob, error) {
	pieces := (d.Size + Piece - 1) / Piece
	g, err := grow(s.o.Dir, d, pieces)
	if err != nil {
		return nil, err
	}
	return &Blob{set: s, desc: d, growth: g, have: make([]bool, pieces), flights: map[int]*flight{}, done: make(chan struct{})}, nil
}

// Size is the blob's size in bytes.
func (b *Blob) Size() int64 { return b.desc.Size }

// Close does nothing: the Set closes its blobs.
func (b *Blob) Close() error { return nil }

// ReadAt reads a part of the blob, and fetches what is missing of it first. The
// bytes are unverified until the blob is whole.
func (b *Blob) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("reading the blob %s at %d", b.desc.Digest, off)
	}
	if off >= b.desc.Size {
		return 0, io.EOF
	}
	ctx, cancel := context.WithTimeout(b.set.ctx, b.set.o.Timeout)
	defer cancel()
	n := min(int64(len(p)), b.desc.Size-off)
	for i := off / Piece; i*Piece < off+n; i++ {
		if err := b.need(ctx, int(i)); err != nil {
			return 0, err
		}
	}
	m, err := b.read.ReadAt(p[:n], off)
	if err == nil && m < len(p) {
		err = io.EOF
	}
	return m, err
}

// need makes sure that a piece is here. Of all who want it one fetches it.
func (b *Blob) need(ctx context.Context, i int) error {
	b.mu.Lock()
	if b.have[i] {
		b.mu.Unlock()
		return nil
	}
	if f := b.flights[i]; f != nil {
		b.mu.Unlock()
		<-f.done
		return f.err
	}
	f := &flight{done: make(chan struct{})}
	b.flights[i] = f
	b.mu.Unlock()

	f.err = b.fetch(ctx, i)

	b.mu.Lock()
	delete(b.flights, i)
	b.have[i] = f.err == nil
	b.mu.Unlock()
	close(f.done)
	return f.err
}

func (b *Blob) fetch(ctx context.Context, i int) error {
	off := int64(i) * Piece
	n := min(Piece, b.desc.Size-off)
	if b.found(i, off, n) {
		return nil
	}
	data, err := b.set.fetch(ctx, b.desc, off, n)
	if err != nil {
		return err
	}
	if _, err := b.write.WriteAt(data, off); err != nil {
		return fmt.Errorf("keeping a piece of the blob %s: %w", b.desc.Digest, durable.Hint(err))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ledger.note(i, sha256.Sum256(data))
	return nil
}

// found says whether an earlier process fetched a piece and all of it is there.
// It is asked once.
func (b *Blob) found(i int, off, n int64) bool {
	b.mu.Lock()
	want, ok := b.claims[i]
	delete(b.claims, i)
	b.mu.Unlock()
	if !ok {
		return false
	}
	data := make([]byte, n)
	_, err := b.read.ReadAt(data, off)
	return err == nil && sha256.Sum256(data) == want
}

// Again drops what a reader found damaged, and reads it anew. ok is false where
// the blob is whole: what is damaged then is the store's.
func (b *Blob) Again(off, n int64) (data []byte, ok bool, err error) {
	b.mu.Lock()
	if b.whole {
		b.mu.Unlock()
		return nil, false, nil
	}
	for i := off / Piece; i*Piece < off+n && int(i) < len(b.have); i++ {
		b.have[i] = false
	}
	b.lost++
	b.mu.Unlock()
	data = make([]byte, n)
	_, err = b.ReadAt(data, off)
	return data, true, err
}

// fill fetches all that is missing.
func (b *Blob) fill(ctx context.Context) error {
	for i := range b.have {
		if err := b.need(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// finish verifies a blob that has all its pieces and hands it to the store.
// again is true where pieces are missing after all, or all were wrong.
func (b *Blob) finish(ctx context.Context) (again bool, err error) {
	b.mu.Lock()
	lost := b.lost
	b.mu.Unlock()
	verifier := b.desc.Digest.Verifier()
	if _, err := io.Copy(verifier, &stoppable{ctx, io.NewSectionReader(b.read, 0, b.desc.Size)}); err != nil {
		return false, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.whole {
		return false, nil
	}
	if b.lost != lost {
		return true, nil
	}
	if !verifier.Verified() {
		clear(b.have)
		b.ledger.forget()
		b.lost++
		return true, &layout.CorruptError{Descriptor: b.desc, Problem: "what came has another digest"}
	}
	b.whole = true
	if err := b.set.o.Adopt(b.write, b.desc); err != nil {
		return false, err
	}
	b.growth.grown()
	close(b.done)
	return false, nil
}

// Done is closed when the blob is the store's: whole, and verified.
func (b *Blob) Done() <-chan struct{} { return b.done }

// drop closes the files.
func (b *Blob) drop() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.growth.close(b.whole)
}

// stoppable ends a long read when its caller gives up.
type stoppable struct {
	ctx context.Context
	r   io.Reader
}

func (s *stoppable) Read(p []byte) (int, error) {
	if s.ctx.Err() != nil {
		return 0, context.Cause(s.ctx)
	}
	return s.r.Read(p)
}
