package store

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"rhizome/registry/durable"
	"rhizome/registry/layerfmt"
	"rhizome/registry/layout"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxUnpacked is the most that a foreign layer may unpack to, in bytes: a
// compressed stream can promise any amount.
const maxUnpacked = 256 << 30

// Derived is a seekable copy of a layer that others made. The original keeps
// its digest and stays what is pushed.
type Derived struct {
	DiffID digest.Digest `json:"diffID"`
	// Source is the layer it was made of.
	Source digest.Digest `json:"source"`
	// Copy describes the file: its digest and size, and its index in the
	// annotations.
	Copy ocispec.Descriptor `json:"copy"`
}

func derivedFile(diffID digest.Digest) string {
	return filepath.Join(dirDerived, diffID.Encoded()+".tar.zst")
}

func derivedNote(diffID digest.Digest) string {
	return filepath.Join(dirDerived, diffID.Encoded()+".json")
}

// Layer is a layer opened for reading at any place: the blob itself, or its
// derived copy.
type Layer struct {
	*layout.Blob
	// Descriptor is that of the bytes behind Blob; its annotations are what
	// layerfmt.ReadTail checks the index against.
	Descriptor ocispec.Descriptor
	// Derived says that Blob is a copy.
	Derived bool
}

// Layer opens a layer. A foreign one without a seekable copy gets it now.
func (s *Store) Layer(ctx context.Context, d ocispec.Descriptor, diffID digest.Digest) (*Layer, error) {
	b, err := s.images.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	ours, err := seekable(b, d)
	if err != nil {
		b.Close()
		return nil, fmt.Errorf("opening the layer %s: %w", d.Digest, err)
	}
	if ours {
		return &Layer{Blob: b, Descriptor: d}, nil
	}
	b.Close()
	copied, err := s.copied(ctx, d, diffID)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(s.path(derivedFile(diffID)))
	if err != nil {
		return nil, fmt.Errorf("opening the seekable copy of the layer %s: %w", d.Digest, err)
	}
	return &Layer{Blob: layout.NewBlob(f, copied.Copy), Descriptor: copied.Copy, Derived: true}, nil
}

// copied is the seekable copy of a foreign layer, which is made where the store
// may be changed.
func (s *Store) copied(ctx context.Context, d ocispec.Descriptor, diffID digest.Digest) (Derived, error) {
	if !s.readOnly {
		return s.Derive(ctx, d, diffID)
	}
	have, ok := s.derived(diffID)
	if !ok {
		return have, &NotFoundError{What: "the seekable copy of the layer " + d.Digest.String(), Hint: "it is made when the image is first opened, by `rhizome ls` for one"}
	}
	return have, nil
}

// seekable says whether a blob is a layer of ours. A tool that dropped the
// annotations does not make it foreign.
func seekable(b *layout.Blob, d ocispec.Descriptor) (bool, error) {
	if d.Annotations[layerfmt.AnnotationIndexDigest] != "" {
		return true, nil // whoever reads the index checks it against them
	}
	_, err := layerfmt.ReadTail(b, b.Size(), nil)
	if errors.Is(err, layerfmt.ErrNoIndex) {
		return false, nil
	}
	return err == nil, err
}

// CheckIndex is for remote.PullOptions: it refuses a layer that claims to be
// ours and has another index than its descriptor promises.
func CheckIndex(_ context.Context, d ocispec.Descriptor, blob io.ReaderAt) error {
	if d.Annotations[layerfmt.AnnotationIndexDigest] == "" {
		return nil
	}
	if _, err := layerfmt.ReadTail(blob, d.Size, d.Annotations); err != nil {
		return &layout.CorruptError{Descriptor: d, Problem: "its tree index is not the one promised: " + err.Error()}
	}
	return nil
}

// Derive makes the seekable copy of a foreign layer unless it is there: the
// bytes of the tar stay, so the DiffID does, and is checked.
func (s *Store) Derive(ctx context.Context, d ocispec.Descriptor, diffID digest.Digest) (Derived, error) {
	if err := diffID.Validate(); err != nil {
		return Derived{}, fmt.Errorf("unpacking the layer %s: its DiffID is %q: %w", d.Digest, diffID, err)
	}
	release, err := durable.Lock(ctx, s.path(dirLocks, "derived-"+diffID.Encoded()+".lock"), durable.Exclusive)
	if err != nil {
		return Derived{}, err
	}
	defer release()
	if have, ok := s.derived(diffID); ok {
		return have, nil
	}
	made, err := s.derive(ctx, d, diffID)
	if err != nil {
		return made, fmt.Errorf("making a seekable copy of the layer %s: %w", d.Digest, err)
	}
	return made, nil
}

// derived finds a copy whose note and file agree.
func (s *Store) derived(diffID digest.Digest) (Derived, bool) {
	var have Derived
	if s.readJSON(derivedNote(diffID), &have) != nil {
		return have, false
	}
	info, err := os.Stat(s.path(derivedFile(diffID)))
	return have, err == nil && info.Size() == have.Copy.Size && have.DiffID == diffID
}

// derive writes the copy, then the note that makes it count.
func (s *Store) derive(ctx context.Context, d ocispec.Descriptor, diffID digest.Digest) (Derived, error) {
	blob, err := s.images.Fetch(ctx, d)
	if err != nil {
		return Derived{}, err
	}
	defer blob.Close()
	tar, err := unpack(blob)
	if err != nil {
		return Derived{}, err
	}
	var sum layerfmt.Summary
	err = durable.Write(s.fs, s.path(dirTemp), s.path(derivedFile(diffID)), 0o644, func(w io.Writer) error {
		if sum, err = layerfmt.Encode(w, &stoppable{ctx, io.LimitReader(tar, maxUnpacked)}, layerfmt.Options{}); err != nil {
			return err
		}
		// What follows the tar's end belongs to the digest, too.
		if _, err := io.Copy(io.Discard, blob); err != nil {
			return err
		}
		if sum.DiffID != diffID {
			return &layout.CorruptError{Descriptor: d, Problem: fmt.Sprintf("it unpacks to %s and the image's config promises %s", sum.DiffID, diffID)}
		}
		return nil
	})
	if err != nil {
		return Derived{}, err
	}
	made := Derived{DiffID: diffID, Source: d.Digest, Copy: ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageLayerZstd, Digest: sum.Digest, Size: sum.Size, Annotations: sum.Annotations()}}
	return made, s.writeJSON(derivedNote(diffID), made)
}

// unpack finds out how a layer is compressed by its first bytes, whatever its
// media type says.
func unpack(r io.Reader) (io.Reader, error) {
	b := bufio.NewReaderSize(r, 256<<10)
	head, err := b.Peek(4)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}): // RFC 1952, 2.3.1
		return gzip.NewReader(b)
	case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}), len(head) == 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:], []byte{0x2a, 0x4d, 0x18}): // RFC 8878, 3.1.1 and 3.1.2
		// 128 MiB is the window that `zstd --long` may ask for.
		return zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
	}
	return b, nil
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

// LayerRef is one layer of an image as its manifest and config name it.
type LayerRef struct {
	Descriptor ocispec.Descriptor
	DiffID     digest.Digest
}

// Layers lists the layers of one image manifest, the lowest first.
func (s *Store) Layers(ctx context.Context, manifest ocispec.Descriptor) ([]LayerRef, error) {
	m, config, err := s.ManifestConfig(ctx, manifest)
	if err != nil {
		return nil, err
	}
	return pairLayers(manifest, m, config)
}

func pairLayers(manifest ocispec.Descriptor, m ocispec.Manifest, config ocispec.Image) ([]LayerRef, error) {
	if len(m.Layers) != len(config.RootFS.DiffIDs) {
		return nil, &layout.CorruptError{Descriptor: manifest, Problem: fmt.Sprintf("it has %d layers and its config %d DiffIDs", len(m.Layers), len(config.RootFS.DiffIDs))}
	}
	var layers []LayerRef
	for i, d := range m.Layers {
		diffID := config.RootFS.DiffIDs[i]
		if err := diffID.Validate(); err != nil {
			return nil, &layout.CorruptError{Descriptor: manifest, Problem: fmt.Sprintf("its config gives the layer %s the DiffID %q: %v", d.Digest, diffID, err)}
		}
		layers = append(layers, LayerRef{d, diffID})
	}
	return layers, nil
}

// ManifestConfig reads an image manifest and its config.
func (s *Store) ManifestConfig(ctx context.Context, manifest ocispec.Descriptor) (m ocispec.Manifest, config ocispec.Image, err error) {
	if layout.IsIndex(manifest.MediaType) {
		return m, config, fmt.Errorf("reading the manifest %s: it is an index of several images; name one of its nodes", manifest.Digest)
	}
	if err := s.readBlobJSON(ctx, manifest, &m); err != nil {
		return m, config, err
	}
	return m, config, s.readBlobJSON(ctx, m.Config, &config)
}

func (s *Store) readBlobJSON(ctx context.Context, d ocispec.Descriptor, v any) error {
	data, err := s.images.ReadAll(ctx, d)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("reading the %s %s: %w", d.MediaType, d.Digest, err)
	}
	return nil
}

// DeriveAll makes the seekable copies that an image needs. What is no image of
// a root file system (signatures and other artifacts) needs none.
func (s *Store) DeriveAll(ctx context.Context, root ocispec.Descriptor) error {
	done := map[digest.Digest]bool{}
	return s.images.Walk(ctx, root, func(d ocispec.Descriptor, err error) error {
		if err != nil || !layout.IsManifest(d.MediaType) || layout.IsIndex(d.MediaType) {
			return err
		}
		m, config, err := s.ManifestConfig(ctx, d)
		if err != nil || !isImageConfig(m.Config.MediaType) {
			return err
		}
		layers, err := pairLayers(d, m, config)
		if err != nil {
			return err
		}
		return s.deriveEach(ctx, layers, done)
	})
}

func isImageConfig(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageConfig || mediaType == "application/vnd.docker.container.image.v1+json"
}

func (s *Store) deriveEach(ctx context.Context, layers []LayerRef, done map[digest.Digest]bool) error {
	for _, l := range layers {
		if done[l.Descriptor.Digest] {
			continue
		}
		done[l.Descriptor.Digest] = true
		opened, err := s.Layer(ctx, l.Descriptor, l.DiffID)
		if err != nil {
			return err
		}
		opened.Close()
	}
	return nil
}

// removeDerived removes a copy: its note first, so that it never counts
// without its file.
func (s *Store) removeDerived(diffID digest.Digest) error {
	for _, name := range []string{derivedNote(diffID), derivedFile(diffID)} {
		if err := s.fs.Remove(s.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing a seekable copy: %w", durable.Hint(err))
		}
	}
	return nil
}
