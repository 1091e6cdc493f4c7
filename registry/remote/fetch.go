package remote

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"rhizome/registry/durable"
	"rhizome/registry/layout"
	"rhizome/registry/ref"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"
)

// get asks for a blob from byte off on; n bytes, or all the rest when n is 0.
// The answer is 200 for the whole blob, or 206 for the range asked for.
func (c *Client) get(ctx context.Context, r ref.Reference, d ocispec.Descriptor, off, n int64) (*http.Response, error) {
	repo := c.repository(r)
	ctx = auth.AppendRepositoryScope(ctx, repo.Reference, auth.ActionPull)
	scheme := "https"
	if repo.PlainHTTP {
		scheme = "http"
	}
	// distribution-spec, "Pulling blobs"
	url := fmt.Sprintf("%s://%s/v2/%s/blobs/%s", scheme, repo.Reference.Host(), repo.Reference.Repository, d.Digest)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if off > 0 || n > 0 {
		req.Header.Set("Range", rangeHeader(off, n))
	}
	resp, err := repo.Client.Do(req)
	if err != nil {
		return nil, err
	}
	if err := checkAnswer(resp, d, off, n); err != nil {
		resp.Body.Close()
		return nil, fmt.Errorf("fetching the blob %s: %w", d.Digest, err)
	}
	return resp, nil
}

// rangeHeader writes a byte range (RFC 9110, section 14.1.2).
func rangeHeader(off, n int64) string {
	if n == 0 {
		return fmt.Sprintf("bytes=%d-", off)
	}
	return fmt.Sprintf("bytes=%d-%d", off, off+n-1)
}

// checkAnswer refuses what is not the blob, or not the range, that was asked for.
func checkAnswer(resp *http.Response, d ocispec.Descriptor, off, n int64) error {
	switch resp.StatusCode {
	case http.StatusOK:
		if resp.ContentLength >= 0 && resp.ContentLength != d.Size {
			return &layout.CorruptError{Descriptor: d, Problem: fmt.Sprintf("the registry offers %d bytes, not %d", resp.ContentLength, d.Size)}
		}
		return nil
	case http.StatusPartialContent:
		end := d.Size - 1
		if n > 0 {
			end = min(end, off+n-1)
		}
		want := fmt.Sprintf("bytes %d-%d/", off, end)
		if got := resp.Header.Get("Content-Range"); !strings.HasPrefix(got, want) {
			return fmt.Errorf("%w: %q, not %q", errBadRange, got, want)
		}
		return nil
	}
	return &errcode.ErrorResponse{Method: http.MethodGet, URL: resp.Request.URL, StatusCode: resp.StatusCode}
}

// Fetch opens a blob of a registry. What is read is not verified: the reader
// is for callers that verify, as layout.Push does.
func (c *Client) Fetch(ctx context.Context, r ref.Reference, d ocispec.Descriptor) (io.ReadCloser, error) {
	if layout.IsManifest(d.MediaType) {
		rc, err := c.repository(r).Manifests().Fetch(ctx, d)
		return rc, wrap("fetching", r, err)
	}
	resp, err := c.get(ctx, r, d, 0, 0)
	if err != nil {
		return nil, wrap("fetching", r, err)
	}
	return resp.Body, nil
}

// ErrNoRange is FetchRange's answer when a registry only gives whole blobs.
var ErrNoRange = errors.New("the registry does not give parts of blobs")

// FetchRange fetches n bytes of a blob from off on, unverified: the caller
// checks them against the frame digests of the layer's index.
func (c *Client) FetchRange(ctx context.Context, r ref.Reference, d ocispec.Descriptor, off, n int64) (data []byte, err error) {
	if off < 0 || n <= 0 || off+n > d.Size {
		return nil, fmt.Errorf("fetching %d bytes from %d of the blob %s, which has %d bytes: that is no part of it", n, off, d.Digest, d.Size)
	}
	err = c.retry(ctx, d.Digest.String(), func(ctx context.Context) (bool, error) {
		resp, err := c.get(ctx, r, d, off, n)
		if err != nil {
			return false, err
		}
		defer resp.Body.Close()
		if resp.StatusCode == http.StatusOK && n < d.Size {
			return false, ErrNoRange
		}
		data = make([]byte, n)
		_, err = io.ReadFull(resp.Body, data)
		return false, err
	})
	return data, wrap("fetching a part from", r, err)
}

// partial is a blob on its way in: a file under a name made of its digest, so
// that the next pull, of whatever image, goes on where this one stopped.
type partial struct {
	desc ocispec.Descriptor
	file durable.File
	hash hash.Hash
	// have is how many bytes are in the file and in the hash.
	have int64
	// inherited says that an earlier run wrote the beginning, which a power
	// cut may have spoilt.
	inherited bool
}

func openPartial(fsys durable.FS, dir string, d ocispec.Descriptor) (*partial, error) {
	path := filepath.Join(dir, partialName(d.Digest))
	f, err := fsys.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the half-pulled blob %q: %w", path, durable.Hint(err))
	}
	p := &partial{desc: d, file: f, hash: d.Digest.Algorithm().Hash()}
	if err := p.recall(); err != nil {
		f.Close()
		return nil, err
	}
	return p, nil
}

func partialName(d digest.Digest) string { return strings.Replace(d.String(), ":", "-", 1) }

// recall hashes what an earlier run left.
func (p *partial) recall() error {
	n, err := io.Copy(p.hash, p.file)
	if err != nil {
		return fmt.Errorf("reading the half-pulled blob %q: %w", p.file.Name(), err)
	}
	p.have, p.inherited = n, n > 0
	if n > p.desc.Size {
		return p.restart()
	}
	return nil
}

func (p *partial) restart() error {
	p.hash.Reset()
	p.have, p.inherited = 0, false
	if err := p.file.Truncate(0); err != nil {
		return fmt.Errorf("emptying the half-pulled blob %q: %w", p.file.Name(), err)
	}
	_, err := p.file.Seek(0, io.SeekStart)
	return err
}

// Write appends, and hashes what reached the file.
func (p *partial) Write(b []byte) (int, error) {
	n, err := p.file.Write(b)
	p.hash.Write(b[:n])
	p.have += int64(n)
	return n, err
}

// verify says what is wrong with a blob that has all its bytes.
func (p *partial) verify() error {
	if got := digest.NewDigest(p.desc.Digest.Algorithm(), p.hash); got != p.desc.Digest {
		return &layout.CorruptError{Descriptor: p.desc, Problem: fmt.Sprintf("what came has the digest %s", got)}
	}
	return nil
}
