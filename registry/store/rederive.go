package store

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"rhizome/registry/durable"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// CopyRange reads n bytes from off on of the seekable copy whose digest is d,
// and makes the copy again first where it is damaged: for a reader that found
// a damaged piece. ok is false where d is no copy's digest. The bytes are
// unverified; the reader has the piece's own digest.
func (s *Store) CopyRange(ctx context.Context, d digest.Digest, off, n int64) (data []byte, ok bool, err error) {
	have, ok := s.copyOf(d)
	if !ok {
		return nil, false, nil
	}
	release, err := durable.Lock(ctx, s.path(dirLocks, "derived-"+have.DiffID.Encoded()+".lock"), durable.Exclusive)
	if err != nil {
		return nil, true, err
	}
	defer release()
	if s.checkCopy(have) != nil {
		made, err := s.derive(ctx, ocispec.Descriptor{Digest: have.Source}, have.DiffID)
		if err != nil {
			return nil, true, fmt.Errorf("making the seekable copy of the layer %s again: %w", have.Source, err)
		}
		if made.Copy.Digest != d {
			return nil, true, fmt.Errorf("the seekable copy of the layer %s, made again, has another digest: restart serve to use it", have.Source)
		}
	}
	data, err = readRange(s.path(derivedFile(have.DiffID)), off, n)
	return data, true, err
}

func readRange(path string, off, n int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data := make([]byte, n)
	if _, err := io.ReadFull(io.NewSectionReader(f, off, n), data); err != nil {
		return nil, fmt.Errorf("reading %q: %w", path, err)
	}
	return data, nil
}

// copyOf finds a seekable copy by its own digest.
func (s *Store) copyOf(d digest.Digest) (Derived, bool) {
	notes, err := s.Names(dirDerived, ".json")
	if err != nil {
		return Derived{}, false
	}
	for _, note := range notes {
		diffID := digest.NewDigestFromEncoded(digest.SHA256, strings.TrimSuffix(note, ".json"))
		if have, ok := s.derived(diffID); ok && have.Copy.Digest == d {
			return have, true
		}
	}
	return Derived{}, false
}

// HasCopy says whether a digest is that of a seekable copy.
func (s *Store) HasCopy(d digest.Digest) bool {
	_, ok := s.copyOf(d)
	return ok
}
