package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"rhizome/registry/layout"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Problem says what is wrong with a blob.
type Problem string

// What verify finds.
const (
	Missing Problem = "missing"
	Damaged Problem = "damaged"
	// BadIndex: the bytes are right, but the tree index is not the one that
	// the manifest promises, or the config does not fit the manifest: the image
	// was made wrong.
	BadIndex Problem = "bad index"
	// BadCopy: a seekable copy is damaged; it can be made again.
	BadCopy Problem = "bad copy"
	// Unreadable: the disk gave an error.
	Unreadable Problem = "unreadable"
)

// Finding is one thing that is wrong with an image.
type Finding struct {
	Problem    Problem            `json:"problem"`
	Descriptor ocispec.Descriptor `json:"descriptor"`
	// DiffID is set for BadCopy.
	DiffID digest.Digest `json:"diffID,omitempty"`
	// Text is a sentence.
	Text string `json:"text"`
}

// Verify reads every byte of an image, and of the seekable copies that belong
// to it, and reports what is wrong. progress, when not nil, is told the bytes
// read so far. The error is one of reading at all, not one of what was found.
func (s *Store) Verify(ctx context.Context, root ocispec.Descriptor, progress func(done int64)) ([]Finding, error) {
	v := verification{s: s, progress: progress, copies: map[digest.Digest]bool{}}
	err := s.images.Walk(ctx, root, func(d ocispec.Descriptor, _ error) error {
		v.blob(ctx, d)
		return ctx.Err()
	})
	return v.findings, err
}

type verification struct {
	s        *Store
	progress func(int64)
	done     int64
	copies   map[digest.Digest]bool
	findings []Finding
}

func (v *verification) blob(ctx context.Context, d ocispec.Descriptor) {
	if err := v.s.images.Verify(ctx, d); err != nil {
		v.found(problemOf(err), d, "", err)
		return
	}
	v.read(d.Size)
	b, err := v.s.images.Open(ctx, d)
	if err != nil {
		v.found(problemOf(err), d, "", err)
		return
	}
	defer b.Close()
	if err := CheckIndex(ctx, d, b); err != nil {
		v.found(BadIndex, d, "", err)
	}
	if layout.IsManifest(d.MediaType) && !layout.IsIndex(d.MediaType) {
		v.derivedOf(ctx, d)
	}
}

func (v *verification) read(n int64) {
	v.done += n
	if v.progress != nil {
		v.progress(v.done)
	}
}

func (v *verification) found(p Problem, d ocispec.Descriptor, diffID digest.Digest, err error) {
	v.findings = append(v.findings, Finding{Problem: p, Descriptor: d, DiffID: diffID, Text: err.Error()})
}

func problemOf(err error) Problem {
	var missing *layout.NotFoundError
	var corrupt *layout.CorruptError
	switch {
	case errors.As(err, &missing):
		return Missing
	case errors.As(err, &corrupt):
		return Damaged
	}
	return Unreadable
}

// derivedOf checks that a manifest and its config fit each other, and the seekable
// copies of the layers, where there are any. That a manifest's own parts are
// missing is found elsewhere.
func (v *verification) derivedOf(ctx context.Context, manifest ocispec.Descriptor) {
	m, config, err := v.s.ManifestConfig(ctx, manifest)
	if err != nil || !isImageConfig(m.Config.MediaType) {
		return
	}
	layers, err := pairLayers(manifest, m, config)
	if err != nil {
		v.found(BadIndex, manifest, "", err)
		return
	}
	for _, l := range layers {
		have, ok := v.s.derived(l.DiffID)
		if !ok || v.copies[l.DiffID] {
			continue
		}
		v.copies[l.DiffID] = true
		if err := v.s.checkCopy(have); err != nil {
			v.found(BadCopy, l.Descriptor, l.DiffID, err)
		}
		v.read(have.Copy.Size)
	}
}

func (s *Store) checkCopy(have Derived) error {
	f, err := os.Open(s.path(derivedFile(have.DiffID)))
	if err != nil {
		return err
	}
	defer f.Close()
	h := have.Copy.Digest.Verifier()
	if _, err := io.Copy(h, f); err != nil {
		return fmt.Errorf("reading the seekable copy of %s: %w", have.Source, err)
	}
	if !h.Verified() {
		return fmt.Errorf("the seekable copy of %s is damaged (file %q)", have.Source, f.Name())
	}
	return nil
}

// Fetcher brings a blob again, unverified.
type Fetcher func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error)

// Repair mends what Verify found: blobs are fetched again and verified on the
// way in, copies are made again. It returns what it could not mend.
func (s *Store) Repair(ctx context.Context, findings []Finding, fetch Fetcher) ([]Finding, error) {
	var left []Finding
	for _, f := range findings {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err := s.repair(ctx, f, fetch); err != nil {
			f.Text += "; not mended: " + err.Error()
			left = append(left, f)
		}
	}
	return left, nil
}

func (s *Store) repair(ctx context.Context, f Finding, fetch Fetcher) error {
	switch f.Problem {
	case BadIndex:
		return errors.New("the image was made wrong: build it again")
	case BadCopy:
		if err := s.removeDerived(f.DiffID); err != nil {
			return err
		}
		_, err := s.Derive(ctx, f.Descriptor, f.DiffID)
		return err
	}
	if fetch == nil {
		return errors.New("no registry is known to have it")
	}
	rc, err := fetch(ctx, f.Descriptor)
	if err != nil {
		return err
	}
	defer rc.Close()
	return s.images.Push(ctx, f.Descriptor, rc)
}
