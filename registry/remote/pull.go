package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"sync"

	"rhizome/registry/durable"
	"rhizome/registry/layout"
	"rhizome/registry/ref"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"oras.land/oras-go/v2/registry/remote/errcode"
)

// maxBlobs bounds what one image may name: 10,000 nodes with eight layers each
// of their own are far below.
const maxBlobs = 1 << 20

// PullOptions say where a pull keeps things and what it takes.
type PullOptions struct {
	// Partial is the folder of half-pulled blobs, on the layout's file system.
	Partial string
	// FS changes the disk; nil is the real one.
	FS durable.FS
	// Platform chooses one manifest of an index that has platforms; nil takes
	// the whole index.
	Platform *ocispec.Platform
	// Check looks into a blob whose digest is right before it becomes
	// visible; nil looks at nothing.
	Check func(ctx context.Context, d ocispec.Descriptor, blob io.ReaderAt) error
}

// Pull brings an image, whole, into the layout. It gives it no name: that is
// for the caller to do last. What did arrive of an image that did not arrive
// whole is kept, and is not asked for again.
func (c *Client) Pull(ctx context.Context, r ref.Reference, l *layout.Layout, o PullOptions) (ocispec.Descriptor, error) {
	if o.FS == nil {
		o.FS = durable.OS{}
	}
	p := &puller{c: c, r: r, l: l, o: o, meter: newMeter("pulling", r.String(), c.o.Progress), seen: map[digest.Digest]bool{}}
	d, err := p.pull(ctx)
	return d, wrap("pulling", r, err)
}

type puller struct {
	c     *Client
	r     ref.Reference
	l     *layout.Layout
	o     PullOptions
	meter *meter

	mu    sync.Mutex
	seen  map[digest.Digest]bool
	blobs []ocispec.Descriptor
}

func (p *puller) pull(ctx context.Context) (ocispec.Descriptor, error) {
	root, data, err := p.c.root(ctx, p.r)
	if err != nil {
		return root, err
	}
	if p.o.Platform != nil && layout.IsIndex(root.MediaType) {
		if root, data, err = p.choose(ctx, root, data); err != nil {
			return root, err
		}
	}
	if err := p.manifests(ctx, root, data); err != nil {
		return root, err
	}
	return root, p.fetchBlobs(ctx)
}

// choose takes the manifest of one platform out of an index.
func (p *puller) choose(ctx context.Context, root ocispec.Descriptor, data []byte) (ocispec.Descriptor, []byte, error) {
	next, err := children(root, data)
	if err != nil {
		return root, nil, err
	}
	for _, d := range next {
		if layout.IsManifest(d.MediaType) && matches(d.Platform, p.o.Platform) {
			data, err := p.c.manifest(ctx, p.r, d)
			return d, data, err
		}
	}
	return root, nil, fmt.Errorf("the image has no manifest for %s/%s", p.o.Platform.OS, p.o.Platform.Architecture)
}

func matches(have, want *ocispec.Platform) bool {
	return have != nil && have.OS == want.OS && have.Architecture == want.Architecture &&
		(want.Variant == "" || have.Variant == want.Variant)
}

// manifests stores root and every manifest below it, level by level, and notes
// the blobs that they name.
func (p *puller) manifests(ctx context.Context, root ocispec.Descriptor, data []byte) error {
	if err := p.l.Push(ctx, root, bytes.NewReader(data)); err != nil {
		return err
	}
	next, err := children(root, data)
	if err != nil {
		return err
	}
	level := p.take(next)
	for depth := 0; len(level) > 0; depth++ {
		if depth > 8 || len(p.seen) > maxBlobs {
			return &layout.CorruptError{Descriptor: root, Problem: "its indexes are nested too deeply, or name too many blobs"}
		}
		if level, err = p.level(ctx, level); err != nil {
			return err
		}
	}
	return nil
}

func (p *puller) level(ctx context.Context, manifests []ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	var below []ocispec.Descriptor
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(p.c.o.Concurrency)
	for _, d := range manifests {
		g.Go(func() error {
			next, err := p.oneManifest(ctx, d)
			found := p.take(next)
			p.mu.Lock()
			below = append(below, found...)
			p.mu.Unlock()
			return err
		})
	}
	return below, g.Wait()
}

// oneManifest stores a manifest unless it is here, and returns what it needs.
func (p *puller) oneManifest(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	ok, err := p.l.Exists(ctx, d)
	if err != nil {
		return nil, err
	}
	if ok {
		return p.l.Successors(ctx, d)
	}
	data, err := p.c.manifest(ctx, p.r, d)
	if err != nil {
		return nil, err
	}
	if err := p.l.Push(ctx, d, bytes.NewReader(data)); err != nil {
		return nil, err
	}
	return children(d, data)
}

// take sorts descriptors that were not seen before into blobs, which it keeps,
// and manifests, which it returns.
func (p *puller) take(ds []ocispec.Descriptor) (manifests []ocispec.Descriptor) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range ds {
		if p.seen[d.Digest] {
			continue
		}
		p.seen[d.Digest] = true
		if layout.IsManifest(d.MediaType) {
			manifests = append(manifests, d)
			continue
		}
		p.blobs = append(p.blobs, d)
		p.meter.expect(1, d.Size)
	}
	return manifests
}

func (p *puller) fetchBlobs(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(p.c.o.Concurrency)
	for _, d := range p.blobs {
		g.Go(func() error { return p.blob(ctx, d) })
	}
	return g.Wait()
}

// blob fetches one blob unless it is here. The lock makes a second process
// that wants the same blob wait, and find it done.
func (p *puller) blob(ctx context.Context, d ocispec.Descriptor) error {
	lock := filepath.Join(p.o.Partial, partialName(d.Digest)+".lock")
	release, err := durable.Lock(ctx, lock, durable.Exclusive)
	if err != nil {
		return err
	}
	defer release()
	ok, err := p.l.Exists(ctx, d)
	if err != nil {
		return err
	}
	if ok {
		p.meter.finished(d.Digest, d.Size, "present")
		_ = p.o.FS.Remove(lock) // swept later when it stays
		return nil
	}
	return p.receive(ctx, d, lock)
}

// receive fetches a blob under its lock.
func (p *puller) receive(ctx context.Context, d ocispec.Descriptor, lock string) error {
	part, err := openPartial(p.o.FS, p.o.Partial, d)
	if err != nil {
		return err
	}
	if err := p.fill(ctx, part); err != nil {
		part.file.Close()
		return err
	}
	if err := p.check(ctx, part); err != nil {
		return errors.Join(err, durable.Discard(p.o.FS, part.file))
	}
	if err := p.l.Adopt(part.file, d); err != nil {
		return err
	}
	p.meter.finished(d.Digest, 0, "done")
	_ = p.o.FS.Remove(lock)
	return nil
}

func (p *puller) check(ctx context.Context, part *partial) error {
	if p.o.Check == nil {
		return nil
	}
	return p.o.Check(ctx, part.desc, part.file)
}

// fill completes and verifies a partial blob. Bytes that an earlier run left
// and that turn out wrong are fetched again, once.
func (p *puller) fill(ctx context.Context, part *partial) error {
	p.meter.moved(part.desc.Digest, part.have)
	err := p.transfer(ctx, part)
	if err == nil {
		err = part.verify()
	}
	var corrupt *layout.CorruptError
	switch {
	case errors.As(err, &corrupt) && part.inherited:
		p.meter.moved(part.desc.Digest, -part.have)
		if err := part.restart(); err != nil {
			return err
		}
		return p.fill(ctx, part)
	case errors.As(err, &corrupt):
		return errors.Join(err, part.restart())
	}
	return err
}

// transfer fetches what is missing, trying again as long as bytes come.
func (p *puller) transfer(ctx context.Context, part *partial) error {
	return p.c.retry(ctx, part.desc.Digest.String(), func(ctx context.Context) (bool, error) {
		before := part.have
		err := p.append(ctx, part)
		return part.have > before, err
	})
}

// append does one request for the rest of a blob.
func (p *puller) append(ctx context.Context, part *partial) error {
	if part.have == part.desc.Size {
		return nil
	}
	resp, err := p.c.get(ctx, p.r, part.desc, part.have, 0)
	var answer *errcode.ErrorResponse
	if errors.As(err, &answer) && answer.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		return &layout.CorruptError{Descriptor: part.desc, Problem: fmt.Sprintf("the registry's copy ends before byte %d", part.have)}
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK && part.have > 0 {
		p.meter.moved(part.desc.Digest, -part.have)
		if err := part.restart(); err != nil {
			return err
		}
	}
	return p.drain(part, resp.Body)
}

func (p *puller) drain(part *partial, body io.Reader) error {
	missing := part.desc.Size - part.have
	// One byte more than promised is enough to see that it lies.
	n, err := io.CopyBuffer(onlyWriter{part}, &metered{Reader: io.LimitReader(body, missing+1), m: p.meter, d: part.desc.Digest}, make([]byte, 256<<10))
	switch {
	case err != nil:
		return err
	case n > missing:
		return &layout.CorruptError{Descriptor: part.desc, Problem: fmt.Sprintf("more than its %d bytes came", part.desc.Size)}
	case n < missing:
		return io.ErrUnexpectedEOF
	}
	return nil
}

// onlyWriter hides other methods from io.Copy.
type onlyWriter struct{ io.Writer }
