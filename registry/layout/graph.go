package layout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of docker's image manifest, version 2, schema 2, which
// registries still hand out.
const (
	MediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// maxDepth is how deep indexes may nest in indexes.
const maxDepth = 8

// IsManifest says whether a media type is one of the four whose content names
// other blobs.
func IsManifest(mediaType string) bool {
	return IsIndex(mediaType) || mediaType == ocispec.MediaTypeImageManifest || mediaType == MediaTypeDockerManifest
}

// IsIndex says whether a media type is a list of manifests.
func IsIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == MediaTypeDockerList
}

// Successors lists what a manifest or index needs: an index its manifests, a
// manifest its config and layers. A subject is not needed by its referrer
// (image-spec, manifest.md: "a weak association").
func Successors(mediaType string, data []byte) ([]ocispec.Descriptor, error) {
	if !IsManifest(mediaType) {
		return nil, nil
	}
	if IsIndex(mediaType) {
		var idx ocispec.Index
		err := json.Unmarshal(data, &idx)
		return idx.Manifests, err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, err
	}
	return append([]ocispec.Descriptor{m.Config}, m.Layers...), nil
}

// Successors lists what a blob of the layout needs.
func (l *Layout) Successors(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if !IsManifest(d.MediaType) {
		return nil, nil
	}
	data, err := l.ReadAll(ctx, d)
	if err != nil {
		return nil, err
	}
	next, err := Successors(d.MediaType, data)
	if err != nil {
		return nil, fmt.Errorf("reading the manifest %s: %w", d.Digest, err)
	}
	return next, CheckDescriptors(d, next)
}

// CheckDescriptors refuses digests and sizes that cannot be.
func CheckDescriptors(parent ocispec.Descriptor, ds []ocispec.Descriptor) error {
	for _, d := range ds {
		if err := d.Digest.Validate(); err != nil {
			return fmt.Errorf("reading the manifest %s: it names a blob %q: %w", parent.Digest, d.Digest, err)
		}
		if d.Size < 0 {
			return fmt.Errorf("reading the manifest %s: it gives the blob %s a size of %d", parent.Digest, d.Digest, d.Size)
		}
	}
	return nil
}

// Walk visits root and all it needs, each blob once, parents before children.
// visit gets what came of reading a manifest's children beside it, and may
// return nil to go on without them, or an error to stop.
func (l *Layout) Walk(ctx context.Context, root ocispec.Descriptor, visit func(d ocispec.Descriptor, err error) error) error {
	w := walker{l: l, seen: map[digest.Digest]bool{}, visit: visit}
	return w.walk(ctx, root, 0)
}

type walker struct {
	l     *Layout
	seen  map[digest.Digest]bool
	visit func(ocispec.Descriptor, error) error
}

func (w *walker) walk(ctx context.Context, d ocispec.Descriptor, depth int) error {
	if w.seen[d.Digest] {
		return nil
	}
	w.seen[d.Digest] = true
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if depth > maxDepth {
		return fmt.Errorf("reading the manifest %s: indexes are nested deeper than %d", d.Digest, maxDepth)
	}
	next, err := w.l.Successors(ctx, d)
	if err := w.visit(d, err); err != nil {
		return err
	}
	for _, child := range next {
		if err := w.walk(ctx, child, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// Complete returns an *IncompleteError unless root and all that it needs are
// here, each with its right size. What it finds counts as new for the
// collection of garbage.
func (l *Layout) Complete(ctx context.Context, root ocispec.Descriptor) error {
	var missing []ocispec.Descriptor
	err := l.Walk(ctx, root, func(d ocispec.Descriptor, readErr error) error {
		if readErr != nil || !l.has(d) {
			missing = append(missing, d)
		}
		return nil
	})
	if err == nil && len(missing) > 0 {
		err = &IncompleteError{Root: root, Missing: missing}
	}
	return err
}

func (l *Layout) has(d ocispec.Descriptor) bool {
	path, err := l.Path(d.Digest)
	if err != nil {
		return false
	}
	info, err := os.Stat(path)
	return err == nil && info.Size() == d.Size && l.touch(path)
}

// Stored is a blob as a file.
type Stored struct {
	Digest digest.Digest
	// Size is in bytes; Used is when it was written or last relied on.
	Size int64
	Used time.Time
}

// Blobs lists every blob, sorted by digest. Files whose names are no digests
// are passed over.
func (l *Layout) Blobs() ([]Stored, error) {
	root := filepath.Join(l.root, ocispec.ImageBlobsDir)
	var all []Stored
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		d := digest.Digest(filepath.Base(filepath.Dir(path)) + ":" + e.Name())
		if info, err := e.Info(); err == nil && d.Validate() == nil { // else removed under our eyes, or no blob
			all = append(all, Stored{Digest: d, Size: info.Size(), Used: info.ModTime()})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing the blobs in %q: %w", root, err)
	}
	slices.SortFunc(all, func(a, b Stored) int { return compare(a.Digest, b.Digest) })
	return all, nil
}

// Find gives a blob whose digest fits, of which a part may be all that is known.
// No blob is opened. ok is false where none fits. fits may be asked about a
// file's name that is no digest.
func (l *Layout) Find(fits func(digest.Digest) bool) (d digest.Digest, ok bool, err error) {
	root := filepath.Join(l.root, ocispec.ImageBlobsDir)
	algorithms, err := os.ReadDir(root)
	for i := 0; i < len(algorithms) && err == nil && !ok; i++ {
		d, ok, err = findIn(root, algorithms[i].Name(), fits)
	}
	if err != nil {
		return "", false, fmt.Errorf("looking through the blobs in %q: %w", root, err)
	}
	return d, ok, nil
}

// findIn looks through the names of one algorithm, in the order that the disk has
// them: sorting takes longer than all else.
func findIn(root, algorithm string, fits func(digest.Digest) bool) (digest.Digest, bool, error) {
	f, err := os.Open(filepath.Join(root, algorithm))
	if err != nil {
		return "", false, err
	}
	defer f.Close()
	for {
		names, err := f.Readdirnames(1024)
		for _, name := range names {
			if d := digest.Digest(algorithm + ":" + name); fits(d) && d.Validate() == nil {
				return d, true, nil
			}
		}
		if errors.Is(err, io.EOF) {
			return "", false, nil
		} else if err != nil {
			return "", false, err
		}
	}
}

func compare(a, b digest.Digest) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
