package store

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"rhizome/registry/durable"
	"rhizome/registry/layout"

	"crypto/sha256"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// CacheEntry is the recorded result of a build step.
type CacheEntry struct {
	Key    digest.Digest `json:"key"`
	Recipe string        `json:"recipe"`
	Step   string        `json:"step"`
	Time   time.Time     `json:"time"`
	// Result is the pipeline's own, as it gave it.
	Result json.RawMessage `json:"result"`
	// Layers are kept from collection as long as the entry is.
	Layers []ocispec.Descriptor `json:"layers"`
}

func cacheFile(key digest.Digest) string { return dirCache + "/" + key.Encoded() + ".json" }

// CacheGet returns the result recorded under a key. An entry that cannot be
// read, or of which a layer is gone, counts as none: the step runs again.
func (s *Store) CacheGet(ctx context.Context, key digest.Digest) (result []byte, ok bool, err error) {
	if err := key.Validate(); err != nil {
		return nil, false, fmt.Errorf("looking for the step %q: %w", key, err)
	}
	var e CacheEntry
	err = s.readJSON(cacheFile(key), &e)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil || e.Key != key {
		s.log.Warn("passing over a cache entry that cannot be read", "key", key, "error", err)
		return nil, false, nil
	}
	for _, d := range e.Layers {
		if ok, err := s.images.Exists(ctx, d); !ok || err != nil {
			return nil, false, err
		}
	}
	if now := time.Now(); !s.readOnly {
		_ = os.Chtimes(s.path(cacheFile(key)), now, now) // used: gc looks at it
	}
	return e.Result, true, nil
}

// CachePut records the result of a step of a recipe under its key, and that it
// is the step's last. The layers must be in the store already.
func (s *Store) CachePut(ctx context.Context, key digest.Digest, recipe, step string, result []byte, layers []ocispec.Descriptor) error {
	if err := key.Validate(); err != nil {
		return fmt.Errorf("recording the step %q: %w", key, err)
	}
	for _, d := range layers {
		ok, err := s.images.Exists(ctx, d)
		if err != nil {
			return fmt.Errorf("recording the step %q: %w", step, err)
		}
		if !ok {
			return fmt.Errorf("recording the step %q: %w", step, &layout.NotFoundError{What: "its layer " + d.Digest.String(), Root: s.dir})
		}
	}
	e := CacheEntry{Key: key, Recipe: recipe, Step: step, Time: s.now().UTC(), Result: result, Layers: layers}
	if err := s.writeJSON(cacheFile(key), e); err != nil {
		return err
	}
	return s.writeJSON(lastFile(recipe, step), key)
}

// lastFile holds the key of a step's last result; names of recipes and steps
// may hold anything, so the file is named by their digest.
func lastFile(recipe, step string) string {
	sum := sha256.Sum256([]byte(recipe + "\x00" + step))
	return dirCache + "/last-" + hex.EncodeToString(sum[:]) + ".json"
}

// CacheLast returns the result that a step of a recipe had when it was last
// recorded, whether its layers still exist or not.
func (s *Store) CacheLast(_ context.Context, recipe, step string) (result []byte, ok bool) {
	var key digest.Digest
	if s.readJSON(lastFile(recipe, step), &key) != nil || key.Validate() != nil {
		return nil, false
	}
	var e CacheEntry
	if s.readJSON(cacheFile(key), &e) != nil {
		return nil, false
	}
	return e.Result, true
}

// LockKey makes builds of one key go one after the other, whatever process
// they are in.
func (s *Store) LockKey(ctx context.Context, key digest.Digest) (unlock func(), err error) {
	if err := key.Validate(); err != nil {
		return nil, fmt.Errorf("locking the step %q: %w", key, err)
	}
	return durable.Lock(ctx, s.path(dirLocks, key.Encoded()+".lock"), durable.Exclusive)
}

// workPrefix begins the names of WorkDir's folders in tmp/; the key follows, cut.
const workPrefix = "work-"

// WorkDir is a folder that belongs to a key and is kept until somebody removes
// it, or nobody has used it for workAge: a build that was stopped goes on there.
func (s *Store) WorkDir(key digest.Digest) (string, error) {
	if err := key.Validate(); err != nil {
		return "", fmt.Errorf("making a folder for the step %q: %w", key, err)
	}
	dir := s.path(dirTemp, workPrefix+key.Encoded()[:32])
	if err := s.fs.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("making the folder %q: %w", dir, durable.Hint(err))
	}
	_ = os.Chtimes(dir, s.now(), s.now()) // it is in use; what is written lies deeper
	return dir, nil
}

// Ingest stores a blob whose digest is known when write returns. Nothing is
// visible before that, and nothing stays if it fails.
func (s *Store) Ingest(ctx context.Context, mediaType string, write func(io.Writer) error) (ocispec.Descriptor, error) {
	return s.images.Ingest(ctx, mediaType, write)
}

// Blob opens a blob for reading at any place. What is read is not verified;
// see layout.Blob.
func (s *Store) Blob(ctx context.Context, d ocispec.Descriptor) (*layout.Blob, error) {
	return s.images.Open(ctx, d)
}
