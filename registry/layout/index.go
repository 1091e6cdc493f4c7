package layout

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"rhizome/registry/durable"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Tagged is a name in the layout's index.
type Tagged struct {
	// Name is NAME:TAG, kept as the annotation org.opencontainers.image.ref.name.
	Name       string
	Descriptor ocispec.Descriptor
}

// ReadIndex reads index.json. It is replaced by rename, so a reader needs no
// lock; who writes it back does.
func (l *Layout) ReadIndex() (ocispec.Index, error) {
	var idx ocispec.Index
	if l.none {
		return idx, nil
	}
	f, err := os.Open(l.indexPath())
	if err != nil {
		return idx, fmt.Errorf("reading the store's list of images: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxIndex+1))
	if err != nil {
		return idx, fmt.Errorf("reading the store's list of images: %w", err)
	}
	if len(data) > maxIndex {
		return idx, fmt.Errorf("reading the store's list of images %q: it is larger than %d bytes", l.indexPath(), maxIndex)
	}
	if err := json.Unmarshal(data, &idx); err != nil {
		return idx, fmt.Errorf("reading the store's list of images %q: %w", l.indexPath(), err)
	}
	return idx, nil
}

// WriteIndex replaces index.json. The caller holds the lock since before it
// read the index.
func (l *Layout) WriteIndex(idx ocispec.Index) error {
	if idx.Manifests == nil {
		idx.Manifests = []ocispec.Descriptor{} // the specification wants an array
	}
	data, err := json.Marshal(idx)
	if err != nil {
		return fmt.Errorf("writing the store's list of images: %w", err)
	}
	return durable.WriteBytes(l.fs, l.temp, l.indexPath(), 0o644, data)
}

// update changes the index under the lock.
func (l *Layout) update(ctx context.Context, change func(*ocispec.Index) error) error {
	release, err := l.Lock(ctx)
	if err != nil {
		return err
	}
	defer release()
	idx, err := l.ReadIndex()
	if err != nil {
		return err
	}
	if err := change(&idx); err != nil {
		return err
	}
	return l.WriteIndex(idx)
}

// Tag gives an image a name, in one atomic switch. An image of which a part is
// missing is refused with an *IncompleteError.
func (l *Layout) Tag(ctx context.Context, d ocispec.Descriptor, name string) error {
	if err := l.Complete(ctx, d); err != nil {
		return fmt.Errorf("tagging %q: %w", name, err)
	}
	return l.update(ctx, func(idx *ocispec.Index) error {
		SetTag(idx, d, name)
		return nil
	})
}

// Untag takes a name away; the image stays until it is collected.
func (l *Layout) Untag(ctx context.Context, name string) error {
	return l.update(ctx, func(idx *ocispec.Index) error {
		if !DropTag(idx, name) {
			return &NotFoundError{What: fmt.Sprintf("the tag %q", name), Root: l.root}
		}
		return nil
	})
}

// SetTag makes name point at d in an index in memory.
func SetTag(idx *ocispec.Index, d ocispec.Descriptor, name string) {
	DropTag(idx, name)
	idx.Manifests = append(idx.Manifests, ocispec.Descriptor{
		MediaType: d.MediaType, Digest: d.Digest, Size: d.Size,
		Annotations: map[string]string{ocispec.AnnotationRefName: name},
	})
	slices.SortStableFunc(idx.Manifests, func(a, b ocispec.Descriptor) int {
		return strings.Compare(a.Annotations[ocispec.AnnotationRefName], b.Annotations[ocispec.AnnotationRefName])
	})
}

// DropTag removes name from an index in memory and says whether it was there.
func DropTag(idx *ocispec.Index, name string) bool {
	before := len(idx.Manifests)
	idx.Manifests = slices.DeleteFunc(idx.Manifests, func(d ocispec.Descriptor) bool {
		return d.Annotations[ocispec.AnnotationRefName] == name
	})
	return len(idx.Manifests) < before
}

// FindTag looks a name up in an index in memory.
func FindTag(idx ocispec.Index, name string) (ocispec.Descriptor, bool) {
	for _, d := range idx.Manifests {
		if d.Annotations[ocispec.AnnotationRefName] == name {
			return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}, true
		}
	}
	return ocispec.Descriptor{}, false
}

// Tags lists the names, sorted.
func (l *Layout) Tags(context.Context) ([]Tagged, error) {
	idx, err := l.ReadIndex()
	if err != nil {
		return nil, err
	}
	var tags []Tagged
	for _, d := range idx.Manifests {
		if name := d.Annotations[ocispec.AnnotationRefName]; name != "" {
			tags = append(tags, Tagged{Name: name, Descriptor: d})
		}
	}
	slices.SortFunc(tags, func(a, b Tagged) int { return strings.Compare(a.Name, b.Name) })
	return tags, nil
}

// Resolve finds an image by NAME:TAG or by digest.
func (l *Layout) Resolve(ctx context.Context, name string) (ocispec.Descriptor, error) {
	if d, err := digest.Parse(name); err == nil {
		return l.Describe(ctx, d)
	}
	idx, err := l.ReadIndex()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d, ok := FindTag(idx, name)
	if !ok {
		return d, &NotFoundError{What: fmt.Sprintf("the tag %q", name), Root: l.root}
	}
	return d, nil
}

// Describe makes the descriptor of a manifest or index of which only the
// digest is known, by reading it.
func (l *Layout) Describe(ctx context.Context, d digest.Digest) (ocispec.Descriptor, error) {
	b, err := l.Open(ctx, ocispec.Descriptor{Digest: d})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	b.Close()
	desc := ocispec.Descriptor{Digest: d, Size: b.Size()}
	data, err := l.ReadAll(ctx, desc)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc.MediaType = SniffMediaType(data)
	if desc.MediaType == "" {
		return ocispec.Descriptor{}, fmt.Errorf("the blob %s is neither a manifest nor an index; name an image's digest", d)
	}
	return desc, nil
}

// SniffMediaType says which kind of manifest data is; "" for none. The field
// mediaType is optional in OCI documents (image-spec, manifest.md), so what
// lists manifests is an index and what has a config is a manifest.
func SniffMediaType(data []byte) string {
	if !bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")) {
		return ""
	}
	var m struct {
		MediaType string             `json:"mediaType"`
		Manifests json.RawMessage    `json:"manifests"`
		Config    ocispec.Descriptor `json:"config"`
	}
	switch err := json.Unmarshal(data, &m); {
	case err != nil:
		return ""
	case IsManifest(m.MediaType):
		return m.MediaType
	case m.Manifests != nil:
		return ocispec.MediaTypeImageIndex
	case m.Config.Digest != "":
		return ocispec.MediaTypeImageManifest
	}
	return ""
}
