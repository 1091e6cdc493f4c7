package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"rhizome/registry"
	"rhizome/registry/layerfmt"
	"rhizome/registry/ref"
	"rhizome/registry/registrytest"
	"rhizome/registry/store"
	"rhizome/serve"
	"rhizome/serve/boot"
	"rhizome/serve/rootfs"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// testHost is a serve without its doors.
func testHost(t *testing.T) *host {
	t.Helper()
	a := &app{streams: streams{in: os.Stdin, out: io.Discard, err: io.Discard, env: func(string) (string, bool) { return "", false }}}
	var err error
	if a.term, err = newTerminal(a.streams, "none", true, false); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.TempDir(), store.Options{Who: "tester"})
	if err != nil {
		t.Fatal(err)
	}
	h := &host{app: a, store: s, cache: rootfs.NewCache(0)}
	h.loader = &serve.Loader{Source: storeSource{s}, Cache: h.cache, Map: true}
	t.Cleanup(func() { h.loader.Close() })
	return h
}

// mendImage is an image of one node whose layer has one file of 300 kB.
func mendImage(t *testing.T, s *store.Store) (index, layer ocispec.Descriptor, body []byte) {
	t.Helper()
	tarball := registrytest.Tar(3, 1, 300_000)
	l := registrytest.OurLayer(t, s.Images(), tarball)
	index = registrytest.Index(t, s.Images(), registrytest.Manifest(t, s.Images(), "n1", l))
	return index, l.Descriptor, tarball[1024 : 1024+300_000]
}

// damage flips a bit in the middle of a layer's first frame with a body.
func damage(t *testing.T, s *store.Store, layer ocispec.Descriptor) {
	t.Helper()
	path, err := s.Images().Path(layer.Digest)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	index, err := layerfmt.ReadTail(bytes.NewReader(data), layer.Size, layer.Annotations)
	if err != nil {
		t.Fatal(err)
	}
	x, err := layerfmt.OpenIndex(index)
	if err != nil {
		t.Fatal(err)
	}
	f := x.Frame(x.FrameFor(100_000))
	data[f.Offset+int64(f.Length)/2] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// readFile reads the image's file as a node would.
func readFile(t *testing.T, h *host, index ocispec.Descriptor) ([]byte, error) {
	t.Helper()
	img, err := h.loader.Image(context.Background(), index)
	if err != nil {
		t.Fatal(err)
	}
	r, err := img.Machines[0].View.Open("/data/file3-0")
	if err != nil {
		t.Fatal(err)
	}
	return io.ReadAll(r)
}

// TestADamagedLayerIsMendedFromItsRegistry: pulled, spoilt on the disk, read by
// a node: the right bytes come, the blob is whole again, and an event says so.
func TestADamagedLayerIsMendedFromItsRegistry(t *testing.T) {
	ctx := context.Background()
	reg := registrytest.Docker(t, "docker-registry")
	far, h := testHost(t), testHost(t)
	index, layer, body := mendImage(t, far.store)
	dest, err := ref.Parse(reg.Host + "/rack/web:1")
	if err != nil {
		t.Fatal(err)
	}
	push, err := far.link(registryFlags{plainHTTP: true}, far.store)
	if err != nil {
		t.Fatal(err)
	}
	if err := push.Push(ctx, index, dest); err != nil {
		t.Fatal(err)
	}
	pull, err := h.link(registryFlags{plainHTTP: true}, h.store)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pull.Pull(ctx, dest, registry.PullOptions{Tag: "web:1"}); err != nil {
		t.Fatal(err)
	}
	damage(t, h.store, layer)

	var events []boot.Event
	h.cache.SetHooks(h.damageHooks(ctx, h.mender(h.store, ""), func(e boot.Event) { events = append(events, e) }))
	got, err := readFile(t, h, index)
	if err != nil || !bytes.Equal(got, body) {
		t.Fatalf("read %d bytes, %v", len(got), err)
	}
	if len(events) != 1 || events[0].Kind != boot.LayerMended || events[0].File != "data/file3-0" || events[0].Digest != layer.Digest.String() {
		t.Errorf("events: %+v", events)
	}
	if found, err := h.store.Verify(ctx, index, nil); err != nil || len(found) > 0 {
		t.Errorf("the store is not whole again: %v, %v", found, err)
	}
}

// TestWithoutARegistryDamageIsAnErrorAndAnEvent: no byte of it is served.
func TestWithoutARegistryDamageIsAnErrorAndAnEvent(t *testing.T) {
	ctx := context.Background()
	h := testHost(t)
	index, layer, _ := mendImage(t, h.store)
	damage(t, h.store, layer)
	before, err := os.ReadFile(filepath.Join(h.store.Images().Root(), "blobs/sha256", layer.Digest.Encoded()))
	if err != nil {
		t.Fatal(err)
	}

	var events []boot.Event
	h.cache.SetHooks(h.damageHooks(ctx, h.mender(h.store, ""), func(e boot.Event) { events = append(events, e) }))
	if _, err := readFile(t, h, index); !errors.Is(err, rootfs.ErrDamaged) {
		t.Fatalf("the file was read: %v", err)
	}
	if len(events) != 1 || events[0].Kind != boot.LayerDamaged || events[0].File != "data/file3-0" || events[0].Digest != layer.Digest.String() {
		t.Errorf("events: %+v", events)
	}
	after, err := os.ReadFile(filepath.Join(h.store.Images().Root(), "blobs/sha256", layer.Digest.Encoded()))
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the blob was written to: %v", err)
	}
}
