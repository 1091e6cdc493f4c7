package layout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rhizome/registry/durable"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Exists says whether the blob is here with the size that its descriptor
// gives. Manifests and other small blobs are read and verified, so that one
// that rotted counts as missing and is fetched again. A blob that is found
// counts as new for the collection of garbage, since the caller is about to
// rely on it.
func (l *Layout) Exists(ctx context.Context, d ocispec.Descriptor) (bool, error) {
	path, err := l.Path(d.Digest)
	if err != nil {
		return false, err
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() != d.Size {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking for the blob %s: %w", d.Digest, err)
	}
	if d.Size <= MaxManifest {
		if _, err := l.ReadAll(ctx, d); err != nil {
			return false, ignoreCorrupt(err)
		}
	}
	return l.touch(path), nil
}

func ignoreCorrupt(err error) error {
	var corrupt *CorruptError
	if errors.As(err, &corrupt) {
		return nil
	}
	return err
}

// touch makes a file new and says whether it is still there: a collection in
// another process takes a file away before it looks at its age for the last
// time (Collect). A store of somebody else cannot be touched, nor collected.
func (l *Layout) touch(path string) bool {
	if l.readOnly {
		return true
	}
	now := time.Now()
	return !errors.Is(os.Chtimes(path, now, now), fs.ErrNotExist)
}

// Fetch reads a blob from its beginning; the last Read gives a *CorruptError
// instead of io.EOF when the bytes are not those of the digest.
func (l *Layout) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	b, err := l.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	return &verifying{blob: b, verifier: d.Digest.Verifier()}, nil
}

type verifying struct {
	blob     *Blob
	verifier digest.Verifier
	read     int64
}

func (v *verifying) Read(p []byte) (int, error) {
	n, err := v.blob.Read(p)
	_, _ = v.verifier.Write(p[:n]) // a hash never fails
	v.read += int64(n)
	if errors.Is(err, io.EOF) {
		if problem := v.problem(); problem != "" {
			return n, &CorruptError{Descriptor: v.blob.desc, Path: v.blob.Name(), Problem: problem}
		}
	}
	return n, err
}

func (v *verifying) problem() string {
	switch {
	case v.read != v.blob.desc.Size:
		return fmt.Sprintf("it has %d bytes, not %d", v.read, v.blob.desc.Size)
	case !v.verifier.Verified():
		return "its bytes have another digest"
	}
	return ""
}

func (v *verifying) Close() error { return v.blob.Close() }

// Blob is a blob opened for reading at any place. Its bytes are not verified:
// who reads pieces checks them against the frame digests of the layer's index
// (package layerfmt).
type Blob struct {
	*os.File
	desc ocispec.Descriptor
}

// Size is the blob's size in bytes.
func (b *Blob) Size() int64 { return b.desc.Size }

// NewBlob makes a Blob of an open file: a copy of a layer that lies elsewhere
// in the store. The descriptor has the file's size.
func NewBlob(f *os.File, d ocispec.Descriptor) *Blob { return &Blob{File: f, desc: d} }

// Open opens a blob. A size of 0 in the descriptor means that it is not known.
func (l *Layout) Open(_ context.Context, d ocispec.Descriptor) (*Blob, error) {
	path, err := l.Path(d.Digest)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &NotFoundError{What: "the blob " + d.Digest.String(), Root: l.root}
	}
	if err != nil {
		return nil, fmt.Errorf("opening the blob %s: %w", d.Digest, durable.Hint(err))
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("opening the blob %s: %w", d.Digest, err)
	}
	if d.Size != 0 && info.Size() != d.Size {
		f.Close()
		return nil, &CorruptError{Descriptor: d, Path: path, Problem: fmt.Sprintf("it has %d bytes, not %d", info.Size(), d.Size)}
	}
	d.Size = info.Size()
	return &Blob{File: f, desc: d}, nil
}

// ReadAll reads and verifies a blob of at most MaxManifestRead bytes.
func (l *Layout) ReadAll(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	if d.Size > MaxManifestRead {
		return nil, fmt.Errorf("reading the blob %s into memory: it has %d bytes, more than the %d a manifest or config may have", d.Digest, d.Size, MaxManifestRead)
	}
	r, err := l.Fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, MaxManifestRead+1))
	if err == nil && len(data) > MaxManifestRead {
		err = fmt.Errorf("reading the blob %s into memory: it is larger than %d bytes", d.Digest, MaxManifestRead)
	}
	return data, err
}

// Verify reads every byte of a blob.
func (l *Layout) Verify(ctx context.Context, d ocispec.Descriptor) error {
	r, err := l.Fetch(ctx, d)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.CopyBuffer(io.Discard, &contextReader{ctx, r}, make([]byte, 1<<20))
	return err
}

// contextReader ends a long read when its caller gives up.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

// Push stores a blob whose descriptor is known; other bytes are refused. What
// lies there already is replaced, which mends a damaged blob.
func (l *Layout) Push(ctx context.Context, d ocispec.Descriptor, r io.Reader) error {
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("storing a blob named %q: %w", d.Digest, err)
	}
	if IsManifest(d.MediaType) && d.Size > MaxManifest {
		return fmt.Errorf("storing the manifest %s: it has %d bytes, and registries take no more than %d: spread the nodes over several cluster images", d.Digest, d.Size, MaxManifest)
	}
	_, err := l.ingest(ctx, d.MediaType, &d, func(w io.Writer) error {
		// One byte more than promised is enough to see that it lies.
		_, err := io.Copy(w, io.LimitReader(r, d.Size+1))
		return err
	})
	return err
}

// Ingest stores what write writes, whose digest is known when it returns.
// Nothing is visible before that, and nothing stays if it fails.
func (l *Layout) Ingest(ctx context.Context, mediaType string, write func(io.Writer) error) (ocispec.Descriptor, error) {
	return l.ingest(ctx, mediaType, nil, write)
}

// ingest writes a temporary file, hashing on the way, and moves it to its name.
func (l *Layout) ingest(ctx context.Context, mediaType string, want *ocispec.Descriptor, write func(io.Writer) error) (ocispec.Descriptor, error) {
	f, err := l.fs.CreateTemp(l.temp, "blob-*.tmp")
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("making a temporary file in %q: %w", l.temp, durable.Hint(err))
	}
	algorithm := digest.Canonical
	if want != nil {
		algorithm = want.Digest.Algorithm()
	}
	h := &hashing{ctx: ctx, w: f, digester: algorithm.Digester()}
	if err := write(h); err != nil {
		return ocispec.Descriptor{}, errors.Join(fmt.Errorf("storing a blob: %w", durable.Hint(err)), durable.Discard(l.fs, f))
	}
	got := ocispec.Descriptor{MediaType: mediaType, Digest: h.digester.Digest(), Size: h.size}
	if want != nil && (got.Digest != want.Digest || got.Size != want.Size) {
		return ocispec.Descriptor{}, errors.Join(mismatch(*want, got), durable.Discard(l.fs, f))
	}
	if l.hasSound(ctx, got) {
		return got, durable.Discard(l.fs, f) // a rebuild without changes waits for no disk
	}
	return got, l.commit(f, got)
}

// hasSound says whether a small blob is here already, to the byte.
func (l *Layout) hasSound(ctx context.Context, d ocispec.Descriptor) bool {
	if d.Size > MaxManifest {
		return false
	}
	ok, err := l.Exists(ctx, d)
	return ok && err == nil
}

func mismatch(want, got ocispec.Descriptor) error {
	if got.Size > want.Size {
		return &CorruptError{Descriptor: want, Problem: fmt.Sprintf("more than the %d bytes it should have came", want.Size)}
	}
	return &CorruptError{Descriptor: want, Problem: fmt.Sprintf("what came has the digest %s and %d bytes, not %d", got.Digest, got.Size, want.Size)}
}

func (l *Layout) commit(f durable.File, d ocispec.Descriptor) error {
	path, err := l.Path(d.Digest)
	if err != nil {
		return errors.Join(err, durable.Discard(l.fs, f))
	}
	if err := l.fs.MkdirAll(l.blobDir(d.Digest.Algorithm()), 0o755); err != nil {
		return errors.Join(fmt.Errorf("storing the blob %s: %w", d.Digest, durable.Hint(err)), durable.Discard(l.fs, f))
	}
	return durable.Commit(l.fs, f, path, 0o644)
}

// Adopt moves a file that the caller has filled and verified, on the same file
// system, to the blob's name.
func (l *Layout) Adopt(f durable.File, d ocispec.Descriptor) error { return l.commit(f, d) }

type hashing struct {
	ctx      context.Context
	w        io.Writer
	digester digest.Digester
	size     int64
}

func (h *hashing) Write(p []byte) (int, error) {
	if h.ctx.Err() != nil {
		return 0, context.Cause(h.ctx)
	}
	n, err := h.w.Write(p)
	h.digester.Hash().Write(p[:n])
	h.size += int64(n)
	return n, err
}

// collectedPrefix begins the names of blobs that a collection has moved away.
const collectedPrefix = "collected-"

// PutBack gives blobs their names again that a collection moved away before it
// died: somebody may have relied on one just then. What was garbage is collected
// the next time. It does nothing while a collection, or another change, is at
// work.
func (l *Layout) PutBack() error {
	entries, err := os.ReadDir(l.temp)
	if err != nil {
		return fmt.Errorf("looking for blobs that a collection left: %w", err)
	}
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return !strings.HasPrefix(e.Name(), collectedPrefix) })
	if len(entries) == 0 {
		return nil
	}
	release, free, err := durable.TryLock(l.lock, durable.Exclusive)
	if err != nil || !free {
		return err
	}
	defer release()
	for _, e := range entries {
		err = errors.Join(err, l.putBack(e.Name()))
	}
	return err
}

// putBack names one blob again. Its digest's algorithm is told by its length.
func (l *Layout) putBack(name string) error {
	hex := strings.TrimSuffix(strings.TrimPrefix(name, collectedPrefix), ".tmp")
	algorithm := digest.SHA256
	if len(hex) == 2*digest.SHA512.Size() {
		algorithm = digest.SHA512
	}
	path, err := l.Path(digest.NewDigestFromEncoded(algorithm, hex))
	if err != nil {
		return nil //nolint:nilerr // no blob: it is swept with the rest
	}
	away := filepath.Join(l.temp, name)
	if _, err := os.Stat(path); err == nil {
		return l.fs.Remove(away) // it came again meanwhile
	}
	if err := l.fs.Rename(away, path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("putting a blob back that a collection left: %w", durable.Hint(err))
	}
	return l.fs.SyncDir(filepath.Dir(path))
}

// Collect removes a blob that nobody has relied on since before, and says
// whether it did. The caller holds the lock and has made sure that nothing needs
// the blob. It is moved away first: whoever relies on it meanwhile has either
// made it new, then it is put back, or does not find it and brings it again.
func (l *Layout) Collect(d digest.Digest, before time.Time) (bool, error) {
	path, err := l.Path(d)
	if err != nil {
		return false, err
	}
	away := filepath.Join(l.temp, collectedPrefix+d.Encoded()+".tmp")
	if err := l.fs.Rename(path, away); err != nil {
		return false, fmt.Errorf("removing the blob %s: %w", d, durable.Hint(err))
	}
	info, err := os.Stat(away)
	if err != nil || !info.ModTime().Before(before) {
		return false, errors.Join(err, l.fs.Rename(away, path))
	}
	if err := l.fs.Remove(away); err != nil {
		return false, fmt.Errorf("removing the blob %s: %w", d, durable.Hint(err))
	}
	return true, nil
}
