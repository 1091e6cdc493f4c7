package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	"rhizome/registry/layout"
	"rhizome/registry/ref"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"
)

// maxMounts is how many repositories are tried as the source of a mount.
const maxMounts = 3

// PushOptions say what a push does beside its reference.
type PushOptions struct {
	// Tags are further tags of the same image: dated ones, for a history that
	// the registry keeps.
	Tags []string
}

// Push sends an image with all it needs from the layout to a registry: blobs
// first, then manifests, the name last, so that the registry never shows half
// an image. A reference that has a digest must have the image's.
func (c *Client) Push(ctx context.Context, l *layout.Layout, root ocispec.Descriptor, r ref.Reference, o PushOptions) error {
	if r.Digest != "" && r.Digest != root.Digest {
		return fmt.Errorf("pushing %q: the image has the digest %s; leave the digest out of the destination", r, root.Digest)
	}
	p := &pusher{c: c, r: r, l: l, repo: c.repository(r), meter: newMeter("pushing", r.String(), c.o.Progress)}
	return wrap("pushing", r, p.push(ctx, root, o.Tags))
}

type pusher struct {
	c     *Client
	r     ref.Reference
	l     *layout.Layout
	repo  *remote.Repository
	meter *meter
}

func (p *pusher) push(ctx context.Context, root ocispec.Descriptor, tags []string) error {
	blobs, manifests, err := p.contents(ctx, root)
	if err != nil {
		return err
	}
	if err := p.each(ctx, blobs, p.blob); err != nil {
		return err
	}
	// Children stand behind their parents in the list, so the levels are
	// pushed from its end; only manifests of one kind go at once.
	for _, level := range levels(manifests) {
		if err := p.each(ctx, level, p.manifest); err != nil {
			return err
		}
	}
	return p.name(ctx, root, tags)
}

// contents lists what an image consists of, manifests before what they need.
func (p *pusher) contents(ctx context.Context, root ocispec.Descriptor) (blobs, manifests []ocispec.Descriptor, err error) {
	if err := p.l.Complete(ctx, root); err != nil {
		return nil, nil, err
	}
	err = p.l.Walk(ctx, root, func(d ocispec.Descriptor, err error) error {
		if layout.IsManifest(d.MediaType) {
			manifests = append(manifests, d)
		} else {
			blobs = append(blobs, d)
		}
		p.meter.expect(1, d.Size)
		return err
	})
	return blobs, manifests, err
}

// levels groups manifests so that each group needs only earlier ones: all image
// manifests first, then indexes one by one, the innermost first.
func levels(manifests []ocispec.Descriptor) [][]ocispec.Descriptor {
	var images []ocispec.Descriptor
	var indexes [][]ocispec.Descriptor
	for _, d := range manifests {
		if layout.IsIndex(d.MediaType) {
			indexes = append(indexes, []ocispec.Descriptor{d})
		} else {
			images = append(images, d)
		}
	}
	slices.Reverse(indexes)
	return append([][]ocispec.Descriptor{images}, indexes...)
}

func (p *pusher) each(ctx context.Context, ds []ocispec.Descriptor, push func(context.Context, ocispec.Descriptor) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(p.c.o.Concurrency)
	for _, d := range ds {
		g.Go(func() error { return push(ctx, d) })
	}
	return g.Wait()
}

// blob sends one blob unless the registry has it or can take it from another
// repository.
func (p *pusher) blob(ctx context.Context, d ocispec.Descriptor) error {
	note, err := p.spared(ctx, d)
	if err != nil {
		return err
	}
	if note != "" {
		p.meter.finished(d.Digest, d.Size, note)
		return nil
	}
	if err := p.c.retry(ctx, d.Digest.String(), func(ctx context.Context) (bool, error) { return false, p.sendTwice(ctx, d) }); err != nil {
		return fmt.Errorf("sending the blob %s: %w", d.Digest, err)
	}
	p.meter.finished(d.Digest, 0, "done")
	return nil
}

// spared says why a blob need not be sent; "" when it must be.
func (p *pusher) spared(ctx context.Context, d ocispec.Descriptor) (note string, err error) {
	err = p.c.retry(ctx, d.Digest.String(), func(ctx context.Context) (bool, error) {
		ok, err := p.repo.Blobs().Exists(ctx, d)
		if ok {
			note = "present"
		}
		return false, err
	})
	if err != nil || note != "" {
		return note, err
	}
	if p.mounted(ctx, d) {
		return "mounted", nil
	}
	return "", nil
}

// errNoMount ends an attempt to mount before any byte is sent.
var errNoMount = errors.New("the registry does not mount it")

// mounted asks the registry to take the blob from another of its repositories
// (distribution-spec, "Mounting a blob from another repository"). That it does
// not is no error: the blob is sent then.
func (p *pusher) mounted(ctx context.Context, d ocispec.Descriptor) bool {
	if p.c.o.MountFrom == nil {
		return false
	}
	tried := 0
	for _, name := range p.c.o.MountFrom(p.r.Host) {
		if name == p.r.Name || tried == maxMounts {
			continue
		}
		tried++
		err := p.repo.Mount(ctx, d, name, func() (io.ReadCloser, error) { return nil, errNoMount })
		if err == nil {
			return true
		}
		p.c.o.Log.Debug("not mounted", "blob", d.Digest, "from", name, "error", err)
	}
	return false
}

// sendTwice sends a blob once more where the token ran out between the two
// requests of an upload: oras takes the first one's for the second, and does not
// ask for another. The next upload begins with a fresh one.
func (p *pusher) sendTwice(ctx context.Context, d ocispec.Descriptor) error {
	err := p.send(ctx, d)
	var answer *errcode.ErrorResponse
	if !errors.As(err, &answer) || answer.StatusCode != http.StatusUnauthorized {
		return err
	}
	return p.send(ctx, d)
}

// send does one upload from the blob's beginning.
func (p *pusher) send(ctx context.Context, d ocispec.Descriptor) error {
	rc, err := p.l.Fetch(ctx, d)
	if err != nil {
		return err
	}
	defer rc.Close()
	counted := &metered{Reader: rc, m: p.meter, d: d.Digest}
	if err := p.repo.Blobs().Push(ctx, d, counted); err != nil {
		counted.takeBack()
		return err
	}
	return nil
}

// manifest sends a manifest under its digest.
func (p *pusher) manifest(ctx context.Context, d ocispec.Descriptor) error {
	if err := p.put(ctx, d, d.Digest.String()); err != nil {
		return fmt.Errorf("sending the manifest %s: %w", d.Digest, err)
	}
	p.meter.finished(d.Digest, d.Size, "done")
	return nil
}

func (p *pusher) put(ctx context.Context, d ocispec.Descriptor, name string) error {
	data, err := p.l.ReadAll(ctx, d)
	if err != nil {
		return err
	}
	// Without the scope at hand the auth client would ask for a token twice.
	ctx = auth.AppendRepositoryScope(ctx, p.repo.Reference, auth.ActionPull, auth.ActionPush)
	return p.c.retry(ctx, name, func(ctx context.Context) (bool, error) {
		return false, explainManifest(p.repo.PushReference(ctx, d, bytes.NewReader(data), name), d)
	})
}

// explainManifest adds to a registry's refusal of a manifest what it usually
// means.
func explainManifest(err error, d ocispec.Descriptor) error {
	var answer *errcode.ErrorResponse
	if errors.As(err, &answer) && (answer.StatusCode == http.StatusRequestEntityTooLarge || answer.StatusCode == http.StatusBadRequest) && d.Size > 1<<20 {
		return fmt.Errorf("%w: the manifest has %d bytes, and this registry seems to take fewer", err, d.Size)
	}
	return err
}

// name makes the tags, in order. A reference with a digest and no tag asks for
// none.
func (p *pusher) name(ctx context.Context, root ocispec.Descriptor, tags []string) error {
	if p.r.Tag != "" || p.r.Digest == "" {
		tags = append([]string{p.r.TagOrDefault()}, tags...)
	}
	for _, tag := range tags {
		if err := p.put(ctx, root, tag); err != nil {
			return fmt.Errorf("naming it %q: %w", tag, err)
		}
	}
	return nil
}
