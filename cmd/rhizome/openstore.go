package main

import (
	"context"
	"encoding/json"
	"errors"
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

// makeStore opens the store for a verb that brings something new in: one is made
// where there is none.
func (a *app) makeStore() (*store.Store, error) { return a.storeBy(store.Open) }

// openStore opens the store for a verb that reads something in it. None is made:
// the folder's name may be mistyped.
func (a *app) openStore() (*store.Store, error) { return a.storeBy(store.OpenExisting) }

// openToChange opens the store for a verb that changes what is in it.
func (a *app) openToChange() (*store.Store, error) { return a.storeBy(store.OpenToChange) }

// openAnyStore opens the store for a verb that can do without one: where there is
// none, nothing is found in it.
func (a *app) openAnyStore() (*store.Store, error) {
	s, err := a.openStore()
	var none *store.NoStoreError
	if errors.As(err, &none) && none.Holds == "" {
		return a.storeBy(store.None)
	}
	return s, err
}

// openListed opens the store for a verb that lists what is there. Nothing is, on a
// machine that has built and pulled nothing yet, and in an empty folder; a folder
// that somebody named and that there is not is a mistake.
func (a *app) openListed() (*store.Store, error) {
	s, err := a.openStore()
	var none *store.NoStoreError
	if errors.As(err, &none) && (none.Empty || none.Holds == "" && !a.namesStore()) {
		a.term.note("%s", noStoreYet(none))
		return a.storeBy(store.None)
	}
	return s, err
}

func noStoreYet(e *store.NoStoreError) string {
	return fmt.Sprintf("there is no store at %q yet: build and pull make one", e.Dir)
}

func (a *app) storeBy(open func(string, store.Options) (*store.Store, error)) (*store.Store, error) {
	dir, err := a.storeFolder()
	if err != nil {
		return nil, err
	}
	return open(dir, store.Options{Who: who(), Log: a.term.logger()})
}

// namesStore says whether somebody chose where the store lies.
func (a *app) namesStore() bool { return a.storeDir != "" || a.getenv("RHIZOME_STORE") != "" }

// storeFolder is where the store lies, as the flags or the environment say.
func (a *app) storeFolder() (string, error) {
	dir := a.storeDir
	if dir == "" {
		dir = a.getenv("RHIZOME_STORE")
	}
	if dir == "" {
		dir = store.DefaultDir(a.getenv, os.Getuid(), runtime.GOOS)
	}
	if dir == "" {
		return "", usagef("there is no home to keep the store in: set HOME, or name a folder with --store or RHIZOME_STORE")
	}
	return dir, nil
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

// cacheFolder is where downloads are kept between builds, of all stores; "" where
// the user has no home. A stage that downloads says so then.
func (a *app) cacheFolder() string {
	dir := a.getenv("XDG_CACHE_HOME")
	if home := a.getenv("HOME"); dir == "" && home != "" {
		dir = filepath.Join(home, ".cache")
	}
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, "rhizome")
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

// storeRef reads a reference that must name an image of the store.
func storeRef(text string) (ref.Reference, error) {
	r, err := ref.Parse(text)
	if err != nil {
		return r, &usageError{err}
	}
	if r.Remote() {
		return r, usagef("%q lies in a registry; `rhizome pull %s` brings it into the store first", text, text)
	}
	return r, nil
}

// resolve finds an image of the store by what a person typed.
func resolve(ctx context.Context, s *store.Store, text string) (ocispec.Descriptor, error) {
	r, err := storeRef(text)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d, err := s.Resolve(ctx, text)
	if isNotFound(err) && r.Tag == "" && r.Digest == "" {
		if pins, notCluster := s.Pins(r.Name); notCluster == nil {
			return d, fmt.Errorf("%q is a cluster, and an image is wanted; its nodes boot %s: %w", text, pins.Boot, err)
		}
	}
	return d, err
}
