package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"runtime"

	"rhizome/pipeline"
	"rhizome/registry/ref"
	"rhizome/registry/store"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// openStore opens the store that the flags or the environment name.
func (a *app) openStore() (*store.Store, error) {
	return store.Open(a.storeFolder(), store.Options{Who: who(), Log: a.term.logger()})
}

// storeFolder is where the store lies, as the flags or the environment say.
func (a *app) storeFolder() string {
	dir := a.storeDir
	if dir == "" {
		dir = a.getenv("RHIZOME_STORE")
	}
	if dir == "" {
		dir = store.DefaultDir(a.getenv, os.Getuid(), runtime.GOOS)
	}
	return dir
}

// who is written into logs of tags and pins.
func who() string {
	name, host := "unknown", "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		host = h
	}
	return name + "@" + host
}

// cacheDir makes the folder where downloads are kept between builds, of all
// stores.
func (a *app) cacheDir() (string, error) {
	dir, err := a.cacheFolder()
	if err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o755)
}

func (a *app) cacheFolder() (string, error) {
	dir := a.getenv("XDG_CACHE_HOME")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("finding a folder for downloads: %w; set XDG_CACHE_HOME", err)
		}
		dir = filepath.Join(home, ".cache")
	}
	return filepath.Join(dir, "rhizome"), nil
}

// builderStore shows the store to the pipeline.
type builderStore struct{ *store.Store }

func (b builderStore) Cached(ctx context.Context, key digest.Digest) (r pipeline.Result, ok bool, err error) {
	data, ok, err := b.CacheGet(ctx, key)
	if err != nil || !ok {
		return r, false, err
	}
	r, ok = readResult(data)
	return r, ok, nil
}

// readResult reads a cached result. One of another shape, which another
// version wrote, counts as none.
func readResult(data []byte) (pipeline.Result, bool) {
	var r pipeline.Result
	err := json.Unmarshal(data, &r)
	return r, err == nil
}

func (b builderStore) Record(ctx context.Context, key digest.Digest, r pipeline.Result) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	var layers []ocispec.Descriptor
	for _, l := range r.Layers {
		layers = append(layers, l.Descriptor)
	}
	return b.CachePut(ctx, key, r.Recipe, r.Step, data, layers)
}

func (b builderStore) LastInputs(ctx context.Context, recipe, step string) (pipeline.Inputs, bool) {
	data, ok := b.CacheLast(ctx, recipe, step)
	if !ok {
		return nil, false
	}
	r, ok := readResult(data)
	return r.Inputs, ok
}

func (b builderStore) OpenLayer(ctx context.Context, l pipeline.Layer) (pipeline.ReaderAtCloser, ocispec.Descriptor, error) {
	blob, err := b.Layer(ctx, l.Descriptor, l.DiffID)
	if err != nil {
		return nil, ocispec.Descriptor{}, err
	}
	return struct {
		io.ReaderAt
		io.Closer
		io.Reader
	}{blob, blob, io.NewSectionReader(blob, 0, blob.Size())}, blob.Descriptor, nil
}

// resolve finds an image of the store by what a person typed.
func resolve(ctx context.Context, s *store.Store, text string) (ocispec.Descriptor, error) {
	r, err := ref.Parse(text)
	if err != nil {
		return ocispec.Descriptor{}, &usageError{err}
	}
	if r.Remote() {
		return ocispec.Descriptor{}, usagef("%q lies in a registry; `rhizome pull %s` brings it into the store first", text, text)
	}
	d, err := s.Resolve(ctx, text)
	if isNotFound(err) && r.Tag == "" && r.Digest == "" {
		if pins, notCluster := s.Pins(r.Name); notCluster == nil {
			return d, fmt.Errorf("%q is a cluster, and an image is wanted; its nodes boot %s: %w", text, pins.Boot, err)
		}
	}
	return d, err
}
