package dists

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Getter opens a URL, as http.Client would; the stage itself knows no network.
type Getter func(ctx context.Context, url string) (io.ReadCloser, error)

// maxManifest bounds what is taken for a MANIFEST, in bytes.
const maxManifest = 1 << 20

func join(base, name string) string { return strings.TrimSuffix(base, "/") + "/" + name }

func keys(m map[string]Set) []string { return slices.Sorted(maps.Keys(m)) }

func sumText(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func fetchSmall(ctx context.Context, env Env, url string) ([]byte, error) {
	if env.Get == nil {
		return nil, fmt.Errorf("%q is on the network, and nothing here fetches; download the sets into a folder and name that", url)
	}
	body, err := env.Get(ctx, url)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, maxManifest+1))
	if err == nil && len(text) > maxManifest {
		err = fmt.Errorf("%q is larger than any MANIFEST", url)
	}
	return text, err
}

// file brings a set to the disk, checked against its sum, and returns where
// it lies. A set in a folder is read where it is.
func (d Dists) file(ctx context.Context, env Env, s Set) (string, error) {
	if !Remote(d.From) {
		name := filepath.Join(d.From, s.File)
		return name, verify(ctx, name, s)
	}
	dir := env.Cache
	if dir == "" {
		dir = env.Work
	}
	name := filepath.Join(dir, s.SHA256+".txz")
	if verify(ctx, name, s) == nil {
		return name, nil
	}
	env.say("fetching %s", join(d.From, s.File))
	return name, d.download(ctx, env, s, name)
}

func (d Dists) download(ctx context.Context, env Env, s Set, name string) error {
	if env.Get == nil {
		return fmt.Errorf("fetching %q: nothing here fetches", join(d.From, s.File))
	}
	body, err := env.Get(ctx, join(d.From, s.File))
	if err != nil {
		return fmt.Errorf("fetching the release set %q: %w", s.File, err)
	}
	defer body.Close()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return fmt.Errorf("making a folder for release sets: %w", err)
	}
	part, err := os.CreateTemp(filepath.Dir(name), ".set-")
	if err != nil {
		return fmt.Errorf("keeping the release set %q: %w", s.File, err)
	}
	defer func() { _ = os.Remove(part.Name()) }()
	_, err = io.Copy(part, &ctxReader{ctx, body})
	if err = errors.Join(err, part.Close()); err != nil {
		return fmt.Errorf("fetching the release set %q: %w", s.File, err)
	}
	if err := verify(ctx, part.Name(), s); err != nil {
		return err
	}
	return os.Rename(part.Name(), name)
}

// verify reads a set whole and compares its sum.
func verify(ctx context.Context, name string, s Set) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("opening the release set %q: %w", s.File, err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, &ctxReader{ctx, f}); err != nil {
		return fmt.Errorf("reading the release set %q: %w", s.File, err)
	}
	if sum := hex.EncodeToString(h.Sum(nil)); sum != s.SHA256 {
		return fmt.Errorf("the release set %q has sha256 %s, but the MANIFEST says %s; it is damaged or of another release: fetch it again", s.File, sum, s.SHA256)
	}
	return nil
}

// ctxReader stops a long copy when its context ends.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *ctxReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
