package registry

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"

	"rhizome/registry/imagefmt"
	"rhizome/registry/layerfmt"
	"rhizome/registry/lazy"
	"rhizome/registry/registrytest"
	"rhizome/registry/remote"
	"rhizome/registry/store"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// pushed puts an image of one node with one layer of about 8 MB into a registry.
func pushed(t *testing.T, host string, layer func(*store.Store) registrytest.Layer) (ocispec.Descriptor, registrytest.Layer) {
	t.Helper()
	s := open(t)
	l := layer(s)
	image := registrytest.Index(t, s.Images(), registrytest.Manifest(t, s.Images(), "n1", l))
	if err := link(t, s, remote.Options{}).Push(context.Background(), image, parse(t, host+"/rack/web:1")); err != nil {
		t.Fatal(err)
	}
	return image, l
}

func ourLayer(t *testing.T) func(*store.Store) registrytest.Layer {
	return func(s *store.Store) registrytest.Layer {
		return registrytest.OurLayer(t, s.Images(), registrytest.Tar(5, 8, 1_000_000))
	}
}

func TestALazyImageIsReadBeforeItIsHereAndWholeInTheEnd(t *testing.T) {
	ctx := context.Background()
	proxy := registrytest.NewProxy(t, registrytest.Docker(t, "docker-registry").Host)
	image, layer := pushed(t, proxy.Host(), ourLayer(t))
	proxy.Forget()
	s := open(t)
	z, err := link(t, s, remote.Options{}).Lazy(ctx, parse(t, proxy.Host()+"/rack/web:1"), LazyOptions{Tag: "web:1"})
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	b := z.Layer(layer.Descriptor.Digest)
	if _, err := layerfmt.ReadTail(b, b.Size(), layer.Descriptor.Annotations); err != nil {
		t.Fatal(err)
	}
	var sent int64
	for _, r := range proxy.Requests(http.MethodGet, layer.Descriptor.Digest.String()) {
		sent += r.Sent
	}
	if sent > 2*lazy.Piece+1 {
		t.Errorf("reading the index took %d bytes of %d", sent, b.Size())
	}
	if _, err := s.Resolve(ctx, "web:1"); err == nil {
		t.Error("the image has its name before it is whole")
	}
	if err := z.Fill(ctx); err != nil {
		t.Fatal(err)
	}
	if d, err := s.Resolve(ctx, "web:1"); err != nil || d.Digest != image.Digest {
		t.Errorf("the name: %v, %v", d.Digest, err)
	}
	if found, err := s.Verify(ctx, image, nil); err != nil || len(found) > 0 {
		t.Errorf("verify: %v, %v", found, err)
	}
}

// TestALazyPullGoesOnAfterARestart: of 8 MB, 3 were there when serve ended.
func TestALazyPullGoesOnAfterARestart(t *testing.T) {
	ctx := context.Background()
	proxy := registrytest.NewProxy(t, registrytest.Docker(t, "docker-registry").Host)
	image, layer := pushed(t, proxy.Host(), ourLayer(t))
	s := open(t)
	begin := func() *Lazy {
		z, err := link(t, s, remote.Options{}).Lazy(ctx, parse(t, proxy.Host()+"/rack/web:1"), LazyOptions{Tag: "web:1"})
		if err != nil {
			t.Fatal(err)
		}
		return z
	}
	z := begin()
	if _, err := z.Layer(layer.Descriptor.Digest).ReadAt(make([]byte, 3*lazy.Piece), 2*lazy.Piece); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	proxy.Forget()
	z = begin()
	defer z.Close()
	if err := z.Fill(ctx); err != nil {
		t.Fatal(err)
	}
	var sent int64
	for _, r := range proxy.Requests(http.MethodGet, layer.Descriptor.Digest.String()) {
		sent += r.Sent
	}
	if most := layer.Descriptor.Size - 3*lazy.Piece + 1; sent > most {
		t.Errorf("the second start fetched %d bytes, want at most %d", sent, most)
	}
	if found, err := s.Verify(ctx, image, nil); err != nil || len(found) > 0 {
		t.Errorf("verify: %v, %v", found, err)
	}
}

func TestALazyPullSurvivesTheRegistry(t *testing.T) {
	ctx := context.Background()
	proxy := registrytest.NewProxy(t, registrytest.Docker(t, "docker-registry").Host)
	image, layer := pushed(t, proxy.Host(), ourLayer(t))
	s := open(t)
	quick := func(context.Context, time.Duration) error { return nil }
	z, err := link(t, s, remote.Options{Sleep: quick, Attempts: 2}).Lazy(ctx, parse(t, proxy.Host()+"/rack/web:1"), LazyOptions{Tag: "web:1"})
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	proxy.SetHook(func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	var far *remote.Error
	if _, err := z.Layer(layer.Descriptor.Digest).ReadAt(make([]byte, 10), 0); !errors.As(err, &far) {
		t.Errorf("a read while the registry is down: %v", err)
	}
	proxy.SetHook(nil)
	if err := z.Fill(ctx); err != nil {
		t.Fatal(err)
	}
	if found, err := s.Verify(ctx, image, nil); err != nil || len(found) > 0 {
		t.Errorf("verify: %v, %v", found, err)
	}
}

// TestWhatNodesHoldInMemoryComesFirst: a node with a bundle boots no sooner than
// the whole of it is here.
func TestWhatNodesHoldInMemoryComesFirst(t *testing.T) {
	var layers []ocispec.Descriptor
	for _, role := range []string{"base", "kernel", "precache", "node", "precache"} {
		layers = append(layers, ocispec.Descriptor{Size: int64(len(layers)), Annotations: map[string]string{imagefmt.AnnotationRole: role}})
	}
	hotFirst(layers)
	var order []int64
	for _, l := range layers {
		order = append(order, l.Size)
	}
	if want := []int64{2, 4, 0, 1, 3}; !slices.Equal(order, want) {
		t.Errorf("%v, want %v", order, want)
	}
}

func TestWhatCannotBeServedLazilySaysSo(t *testing.T) {
	ctx := context.Background()
	reg := registrytest.Docker(t, "docker-registry")
	for what, test := range map[string]struct {
		layer func(*store.Store) registrytest.Layer
		hook  registrytest.Hook
	}{
		"a registry without ranges": {ourLayer(t), func(_ http.ResponseWriter, r *http.Request) bool {
			r.Header.Del("Range")
			return false
		}},
		"a layer of another tool": {func(s *store.Store) registrytest.Layer {
			return registrytest.GzipLayer(t, s.Images(), registrytest.Tar(6, 1, 1000))
		}, nil},
	} {
		t.Run(what, func(t *testing.T) {
			proxy := registrytest.NewProxy(t, reg.Host)
			pushed(t, proxy.Host(), test.layer)
			proxy.SetHook(test.hook)
			if _, err := link(t, open(t), remote.Options{}).Lazy(ctx, parse(t, proxy.Host()+"/rack/web:1"), LazyOptions{}); !errors.Is(err, ErrNotLazy) {
				t.Errorf("%v", err)
			}
		})
	}
}
