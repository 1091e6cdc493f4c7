package registry

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"testing"

	"rhizome/registry/layerfmt"
	"rhizome/registry/registrytest"
	"rhizome/registry/remote"
	"rhizome/registry/store"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func flip(t *testing.T, path string, at int64) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[at] ^= 0x40
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func menderOf(l Link) *Mender {
	return &Mender{Store: l.Store, Client: func(bool) (*remote.Client, error) { return l.Client, nil }}
}

// TestAPieceComesFromTheRegistryAndMendsTheBlob: with a registry that gives
// ranges, and with one that only gives whole blobs.
func TestAPieceComesFromTheRegistryAndMendsTheBlob(t *testing.T) {
	reg := registrytest.Docker(t, "docker-registry")
	for what, hook := range map[string]registrytest.Hook{
		"ranges": nil,
		"whole blobs": func(_ http.ResponseWriter, r *http.Request) bool {
			r.Header.Del("Range")
			return false
		},
	} {
		t.Run(what, func(t *testing.T) {
			ctx := context.Background()
			proxy := registrytest.NewProxy(t, reg.Host)
			proxy.SetHook(hook)
			s := open(t)
			l := link(t, s, remote.Options{})
			layer := registrytest.OurLayer(t, s.Images(), registrytest.Tar(7, 3, 100_000)).Descriptor
			image := registrytest.Index(t, s.Images(), registrytest.Manifest(t, s.Images(), "n1", registrytest.Layer{Descriptor: layer, DiffID: "sha256:" + digest.Digest(layer.Digest.Encoded())}))
			if err := l.Push(ctx, image, parse(t, proxy.Host()+"/team/mend:1")); err != nil {
				t.Fatal(err)
			}
			path, err := s.Images().Path(layer.Digest)
			if err != nil {
				t.Fatal(err)
			}
			flip(t, path, 5000)
			m := menderOf(l)
			piece, err := m.Range(ctx, layer.Digest, 4000, 2000)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.WriteBack(layer.Digest, 4000, piece); err != nil {
				t.Fatal(err)
			}
			if err := s.Images().Verify(ctx, layer); err != nil {
				t.Error(err)
			}
			if err := m.WriteBack(layer.Digest, layer.Size-10, piece); err == nil {
				t.Error("a piece was written behind the blob's end")
			}
		})
	}
}

func TestAPieceOfASeekableCopyComesFromTheOriginal(t *testing.T) {
	ctx := context.Background()
	s := open(t)
	foreign := registrytest.GzipLayer(t, s.Images(), registrytest.Tar(9, 3, 100_000))
	d, err := s.Derive(ctx, foreign.Descriptor, foreign.DiffID)
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.Layer(ctx, foreign.Descriptor, foreign.DiffID)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	want := make([]byte, 500)
	if _, err := l.ReadAt(want, 4800); err != nil {
		t.Fatal(err)
	}
	flip(t, l.Name(), 5000)
	m := menderOf(link(t, s, remote.Options{}))
	got, err := m.Range(ctx, d.Copy.Digest, 4800, 500)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("another piece came: %v", err)
	}
	if err := m.WriteBack(d.Copy.Digest, 4800, got); err != nil {
		t.Error(err)
	}
	if _, err := layerfmt.ReadTail(l, l.Size(), d.Copy.Annotations); err != nil {
		t.Error(err)
	}
	data, err := os.ReadFile(l.Name())
	if err != nil || digest.FromBytes(data) != d.Copy.Digest {
		t.Errorf("the copy is still damaged: %v", err)
	}
}

func TestWithoutARegistryNothingComes(t *testing.T) {
	ctx := context.Background()
	s := open(t)
	layer := registrytest.OurLayer(t, s.Images(), registrytest.Tar(7, 1, 1000)).Descriptor
	m := menderOf(link(t, s, remote.Options{}))
	if _, err := m.Range(ctx, layer.Digest, 0, 100); err == nil {
		t.Error("a piece came from nowhere")
	}
	if err := s.AddOrigin(ctx, store.Origin{Host: "127.0.0.1:1", Name: "gone", PlainHTTP: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Range(ctx, layer.Digest, 0, 100); err == nil {
		t.Error("a piece came from a registry that is down")
	}
	if _, err := m.Range(ctx, ocispec.DescriptorEmptyJSON.Digest, 0, 1); err == nil {
		t.Error("a piece came of a blob that is not here")
	}
}
