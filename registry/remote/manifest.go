package remote

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"

	"rhizome/registry/layout"
	"rhizome/registry/ref"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
)

// Resolve asks a registry for what a reference names.
func (c *Client) Resolve(ctx context.Context, r ref.Reference) (ocispec.Descriptor, error) {
	d, _, err := c.root(ctx, r)
	return d, wrap("resolving", r, err)
}

// Peek asks a registry once what a reference names now, by HEAD: it is for those
// who ask again and again. A registry that gives no digest with that
// (distribution-spec, "Checking if content exists in the registry") is asked
// for the manifest.
func (c *Client) Peek(ctx context.Context, r ref.Reference) (digest.Digest, error) {
	d, err := c.repository(r).Resolve(ctx, r.Target())
	if err == nil {
		return d.Digest, nil
	}
	_, rc, again := c.repository(r).FetchReference(ctx, r.Target())
	if again != nil {
		return "", wrap("resolving", r, again)
	}
	defer rc.Close()
	data, err := io.ReadAll(io.LimitReader(rc, layout.MaxManifestRead+1))
	if err == nil && len(data) > layout.MaxManifestRead {
		err = fmt.Errorf("a manifest of more than %d bytes", layout.MaxManifestRead)
	}
	return digest.FromBytes(data), wrap("resolving", r, err)
}

// root fetches the manifest or index that a reference names, and verifies it.
func (c *Client) root(ctx context.Context, r ref.Reference) (d ocispec.Descriptor, data []byte, err error) {
	err = c.retry(ctx, r.String(), func(ctx context.Context) (bool, error) {
		var rc io.ReadCloser
		if d, rc, err = c.repository(r).FetchReference(ctx, r.Target()); err != nil {
			return false, err
		}
		defer rc.Close()
		data, err = readManifest(d, rc)
		return false, err
	})
	if err == nil && !layout.IsManifest(d.MediaType) {
		err = fmt.Errorf("it is a %q, which is no image", d.MediaType)
	}
	return d, data, err
}

// manifest fetches a manifest by its digest.
func (c *Client) manifest(ctx context.Context, r ref.Reference, d ocispec.Descriptor) (data []byte, err error) {
	err = c.retry(ctx, d.Digest.String(), func(ctx context.Context) (bool, error) {
		if err := checkManifestSize(d); err != nil {
			return false, err
		}
		rc, err := c.repository(r).Manifests().Fetch(ctx, d)
		if err != nil {
			return false, fmt.Errorf("fetching the manifest %s: %w", d.Digest, err)
		}
		defer rc.Close()
		data, err = readManifest(d, rc)
		return false, err
	})
	return data, err
}

func checkManifestSize(d ocispec.Descriptor) error {
	if d.Size < 0 || d.Size > layout.MaxManifestRead {
		return &layout.CorruptError{Descriptor: d, Problem: fmt.Sprintf("a manifest of %d bytes; %d is the most that is read", d.Size, layout.MaxManifestRead)}
	}
	return nil
}

func readManifest(d ocispec.Descriptor, r io.Reader) ([]byte, error) {
	if err := checkManifestSize(d); err != nil {
		return nil, err
	}
	data, err := content.ReadAll(r, d)
	if err != nil {
		return nil, fmt.Errorf("reading the manifest %s: %w", d.Digest, err)
	}
	return data, nil
}

// children reads what a fetched manifest needs.
func children(d ocispec.Descriptor, data []byte) ([]ocispec.Descriptor, error) {
	next, err := layout.Successors(d.MediaType, data)
	if err != nil {
		return nil, &layout.CorruptError{Descriptor: d, Problem: "it is no JSON of its type: " + err.Error()}
	}
	if err := layout.CheckDescriptors(d, next); err != nil {
		return nil, &layout.CorruptError{Descriptor: d, Problem: err.Error()}
	}
	return next, nil
}

// referrersTag is what registries without the referrers API use as an index
// (distribution-spec, "Referrers Tag Schema"); it names no image.
var referrersTag = regexp.MustCompile(`^sha(256|512)-[0-9a-f]{64,128}$`)

// Tags lists the tags of a repository, sorted, without the referrers' ones.
func (c *Client) Tags(ctx context.Context, r ref.Reference) (tags []string, err error) {
	err = c.retry(ctx, r.Repository(), func(ctx context.Context) (bool, error) {
		tags = nil
		return false, c.repository(r).Tags(ctx, "", func(page []string) error {
			tags = append(tags, page...)
			return nil
		})
	})
	if err != nil {
		return nil, wrap("listing the tags of", r, err)
	}
	tags = slices.DeleteFunc(tags, referrersTag.MatchString)
	slices.Sort(tags)
	return tags, nil
}

// Manifest fetches the manifest or index that a reference names, verified.
func (c *Client) Manifest(ctx context.Context, r ref.Reference) ([]byte, error) {
	_, data, err := c.root(ctx, r)
	return data, wrap("reading", r, err)
}
