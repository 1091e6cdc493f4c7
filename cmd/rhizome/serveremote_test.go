package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"rhizome/registry/ref"
	"rhizome/registry/registrytest"
	"rhizome/serve"
	"rhizome/serve/boot"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// farImage pushes an image of one node to a registry behind a proxy.
func farImage(t *testing.T) (p *registrytest.Proxy, index, layer ocispec.Descriptor, body []byte, name string) {
	t.Helper()
	p = registrytest.NewProxy(t, registrytest.Docker(t, "docker-registry").Host)
	far := testHost(t)
	index, layer, body = mendImage(t, far.store)
	name = p.Host() + "/rack/web:1"
	dest, err := ref.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	link, err := far.link(registryFlags{plainHTTP: true}, far.store)
	if err != nil {
		t.Fatal(err)
	}
	if err := link.Push(context.Background(), index, dest); err != nil {
		t.Fatal(err)
	}
	return p, index, layer, body, name
}

// remoteHost is a serve of a remote image, loaded and with its machine.
func remoteHost(t *testing.T, name string) (*host, *serve.Machine) {
	t.Helper()
	h := testHost(t)
	startRemote(t, h, name)
	return h, onlyMachine(t, h)
}

func startRemote(t *testing.T, h *host, name string) {
	t.Helper()
	ctx := context.Background()
	h.name, h.registry = name, registryFlags{plainHTTP: true}
	if h.fleet == nil {
		h.fleet = serve.NewFleet(time.Now)
	}
	h.serving = make(chan struct{})
	h.fillUntil, h.stopFilling = context.WithCancel(ctx)
	lease, err := h.store.Lease(ctx, "a test")
	if err != nil {
		t.Fatal(err)
	}
	h.lease = lease
	t.Cleanup(func() { h.closeRemotes(); lease.Close() })
	if err := h.load(ctx); err != nil {
		t.Fatal(err)
	}
}

func onlyMachine(t *testing.T, h *host) *serve.Machine {
	t.Helper()
	all := h.fleet.Machines()
	if len(all) != 1 {
		t.Fatalf("%d machines", len(all))
	}
	return all[0]
}

func bodyOf(t *testing.T, m *serve.Machine) []byte {
	t.Helper()
	r, err := m.View.Open("/data/file3-0")
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestServeOfARemoteImageBeginsBeforeThePullEnds and ends with the image in the
// store, by its name.
func TestServeOfARemoteImageBeginsBeforeThePullEnds(t *testing.T) {
	ctx := context.Background()
	_, index, layer, body, name := farImage(t)
	h, m := remoteHost(t, name)
	if ok, err := h.store.Images().Exists(ctx, layer); ok || err != nil {
		t.Fatalf("the layer is here already: %v, %v", ok, err)
	}
	if !bytes.Equal(bodyOf(t, m), body) {
		t.Error("a node reads other bytes")
	}
	checkBlob(t, h, layer) // over NFS it need not be here
	close(h.serving)
	blob, err := h.openBlob(ctx, layer.Digest.String())
	if err != nil {
		t.Fatal(err)
	}
	blob.Close()
	h.filling.Wait()
	if d, err := h.store.Resolve(ctx, "rack/web:1"); err != nil || d.Digest != index.Digest {
		t.Errorf("the image's name: %v", err)
	}
	checkBlob(t, h, layer)
	if found, err := h.store.Verify(ctx, index, nil); err != nil || len(found) > 0 {
		t.Errorf("verify: %v, %v", found, err)
	}
}

// checkBlob reads a blob as a node does over NFS.
func checkBlob(t *testing.T, h *host, d ocispec.Descriptor) {
	t.Helper()
	blob, err := h.readBlob(d.Digest.String())
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	sum := d.Digest.Verifier()
	if n, err := io.Copy(sum, io.NewSectionReader(blob, 0, d.Size)); err != nil || n != d.Size || !sum.Verified() {
		t.Errorf("%d of %d bytes came, and are right: %v; %v", n, d.Size, sum.Verified(), err)
	}
}

// TestARegistryWithoutRangesIsPulledFirst: a slow start is better than none.
func TestARegistryWithoutRangesIsPulledFirst(t *testing.T) {
	p, _, layer, body, name := farImage(t)
	p.SetHook(func(_ http.ResponseWriter, r *http.Request) bool {
		r.Header.Del("Range")
		return false
	})
	h, m := remoteHost(t, name)
	if ok, err := h.store.Images().Exists(context.Background(), layer); !ok || err != nil || h.remotes.layer(layer.Digest) != nil {
		t.Fatalf("the layer is not here: %v, %v", ok, err)
	}
	if !bytes.Equal(bodyOf(t, m), body) {
		t.Error("a node reads other bytes")
	}
}

// TestBytesThatWereSpoiltOnTheWayAreFetchedAgain: the first answer to a node's
// read is wrong, and the node does not see it.
func TestBytesThatWereSpoiltOnTheWayAreFetchedAgain(t *testing.T) {
	ctx := context.Background()
	p, _, layer, body, name := farImage(t)
	var events []boot.Event
	h := testHost(t)
	h.cache.SetHooks(h.damageHooks(ctx, h.mender(h.store, ""), func(e boot.Event) { events = append(events, e) }))
	startRemote(t, h, name)
	// The index came with the piece that the file lies in; that piece is
	// dropped, and comes again spoilt.
	spoilt := false
	p.SetHook(func(w http.ResponseWriter, r *http.Request) bool {
		if spoilt || r.Header.Get("Range") == "" {
			return false
		}
		spoilt = true
		w.Header().Set("Content-Range", "bytes "+r.Header.Get("Range")[len("bytes="):]+"/*")
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(make([]byte, layer.Size)) // the client may have gone
		return true
	})
	if _, ok, err := h.remotes.layer(layer.Digest).Again(0, 1); !ok || err != nil || !spoilt {
		t.Fatalf("%v %v", ok, err)
	}
	if !bytes.Equal(bodyOf(t, h.fleet.Machines()[0]), body) {
		t.Error("a node reads other bytes")
	}
	if len(events) == 0 || events[0].Kind != boot.LayerMended {
		t.Errorf("events: %+v", events)
	}
}
