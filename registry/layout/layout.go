// Package layout keeps an OCI image layout (image-spec, image-layout.md) that
// two processes may use at once and that a crash cannot tear: the store's
// embedded registry, readable by any OCI tool.
//
// It has the methods of oras's content.Storage and content.TagResolver, so
// oras.Copy works straight against it. It replaces oras's own oci.Store, which
// rewrites index.json in place, loses tags when two processes write them and
// never verifies what it reads.
package layout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"rhizome/registry/durable"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Limits of what is taken into memory.
const (
	// MaxManifest is the largest manifest that is written, in bytes: registries
	// refuse more (distribution-spec, "Pushing Manifests").
	MaxManifest = 4 << 20
	// MaxManifestRead is the largest manifest that is read; others may have
	// written more than we would.
	MaxManifestRead = 16 << 20
	// maxIndex bounds index.json, some 200,000 tags.
	maxIndex = 64 << 20
)

// Options are what a Layout needs beside its folder. The zero value works.
type Options struct {
	// FS changes the disk; nil is the real one.
	FS durable.FS
	// Temp is a folder on the same file system for blobs that are being
	// written; empty is ROOT/ingest.
	Temp string
	// Lock is the lock file; empty is ROOT/.lock.
	Lock string
	// ReadOnly leaves the times of blobs alone: what is looked at does not count
	// as relied on. A layout that is not there has nothing in it then.
	ReadOnly bool
}

// Layout is an OCI image layout in a folder. Its methods are safe for many
// goroutines and many processes.
type Layout struct {
	root, temp, lock string
	fs               durable.FS
	readOnly         bool
	// none says that there is no layout, and none was made.
	none bool
}

// Open opens the layout at root, and makes it when there is none.
func Open(root string, o Options) (*Layout, error) {
	l := &Layout{root: root, temp: o.Temp, lock: o.Lock, fs: o.FS, readOnly: o.ReadOnly}
	if l.fs == nil {
		l.fs = durable.OS{}
	}
	if l.temp == "" {
		l.temp = filepath.Join(root, "ingest")
	}
	if l.lock == "" {
		l.lock = filepath.Join(root, ".lock")
	}
	return l, l.prepare()
}

// prepare makes what is missing, the marker file last: a folder without it is
// no layout yet.
func (l *Layout) prepare() error {
	marker := filepath.Join(l.root, ocispec.ImageLayoutFile)
	if data, err := os.ReadFile(marker); err == nil {
		return checkVersion(marker, data)
	} else if l.readOnly {
		l.none = errors.Is(err, fs.ErrNotExist)
		return ignoreMissing(err)
	}
	for _, dir := range []string{l.blobDir(digest.SHA256), l.temp} {
		if err := l.fs.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("making the image layout's folder %q: %w", dir, durable.Hint(err))
		}
	}
	release, err := l.Lock(context.Background())
	if err != nil {
		return err
	}
	defer release()
	if err := l.firstIndex(); err != nil {
		return err
	}
	data, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err != nil {
		return err
	}
	return durable.WriteBytes(l.fs, l.temp, marker, 0o644, data)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return durable.Hint(err)
}

func (l *Layout) firstIndex() error {
	if _, err := os.Stat(l.indexPath()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return l.WriteIndex(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex})
}

func checkVersion(marker string, data []byte) error {
	var v ocispec.ImageLayout
	if err := json.Unmarshal(data, &v); err != nil {
		return fmt.Errorf("reading the image layout's version from %q: %w", marker, err)
	}
	if v.Version != ocispec.ImageLayoutVersion {
		return fmt.Errorf("reading %q: the image layout has version %q, this program reads %q", marker, v.Version, ocispec.ImageLayoutVersion)
	}
	return nil
}

// Absent says that no layout was there to be looked at.
func (l *Layout) Absent() bool { return l.none }

// Root is the layout's folder.
func (l *Layout) Root() string { return l.root }

// Lock takes the lock that every change of the index holds.
func (l *Layout) Lock(ctx context.Context) (release func(), err error) {
	return durable.Lock(ctx, l.lock, durable.Exclusive)
}

func (l *Layout) indexPath() string { return filepath.Join(l.root, ocispec.ImageIndexFile) }

func (l *Layout) blobDir(a digest.Algorithm) string {
	return filepath.Join(l.root, ocispec.ImageBlobsDir, a.String())
}

// Path is where a blob lies, or would lie.
func (l *Layout) Path(d digest.Digest) (string, error) {
	if err := d.Validate(); err != nil {
		return "", fmt.Errorf("reading the digest %q: %w", d, err)
	}
	return filepath.Join(l.blobDir(d.Algorithm()), d.Encoded()), nil
}
