package remote_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"rhizome/registry/durable/faultfs"
	"rhizome/registry/layout"
	"rhizome/registry/registrytest"
	"rhizome/registry/remote"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// fake is a registry of one image that a test bends.
type fake struct {
	manifest []byte
	blob     []byte
	desc     ocispec.Descriptor
}

func newFake() *fake {
	f := &fake{blob: bytes.Repeat([]byte("layer"), 50_000)}
	f.desc = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(f.blob), Size: int64(len(f.blob))}
	config := ocispec.DescriptorEmptyJSON
	f.manifest, _ = json.Marshal(ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{f.desc}})
	return f
}

// serve answers as a good registry does.
func (f *fake) serve(w http.ResponseWriter, r *http.Request) bool {
	switch {
	case strings.Contains(r.URL.Path, "/manifests/"):
		f.sendManifest(w, f.manifest)
	case strings.HasSuffix(r.URL.Path, f.desc.Digest.Encoded()):
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.blob))
	case strings.Contains(r.URL.Path, "/blobs/"):
		w.Write(ocispec.DescriptorEmptyJSON.Data)
	}
	return true
}

func (f *fake) sendManifest(w http.ResponseWriter, data []byte) {
	w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
	w.Header().Set("Docker-Content-Digest", digest.FromBytes(data).String())
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.Write(data)
}

func isBlob(f *fake, r *http.Request) bool {
	return strings.HasSuffix(r.URL.Path, f.desc.Digest.Encoded())
}

func TestARegistryThatLiesIsCaughtAndNothingIsStored(t *testing.T) {
	f := newFake()
	other := bytes.Repeat([]byte("LAYER"), 50_000)
	for _, c := range []struct {
		name string
		part string
		hook func(w http.ResponseWriter, r *http.Request) bool
	}{
		{"another blob", "the digest", func(w http.ResponseWriter, r *http.Request) bool {
			if !isBlob(f, r) {
				return f.serve(w, r)
			}
			w.Write(other)
			return true
		}},
		{"a blob one byte short", "the registry offers", func(w http.ResponseWriter, r *http.Request) bool {
			if !isBlob(f, r) {
				return f.serve(w, r)
			}
			w.Header().Set("Content-Length", strconv.Itoa(len(f.blob)-1))
			w.Write(f.blob[1:])
			return true
		}},
		{"a blob without an end", "more than", func(w http.ResponseWriter, r *http.Request) bool {
			if !isBlob(f, r) {
				return f.serve(w, r)
			}
			for {
				if _, err := w.Write(f.blob); err != nil {
					return true
				}
			}
		}},
		{"a manifest of 100 MB", "the most that is read", func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			w.Header().Set("Docker-Content-Digest", f.desc.Digest.String())
			w.Header().Set("Content-Length", strconv.Itoa(100<<20))
			return true
		}},
		{"another manifest than its digest", "mismatched digest", func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			w.Header().Set("Docker-Content-Digest", f.desc.Digest.String())
			w.Write(f.manifest)
			return true
		}},
		{"a manifest that is no JSON", "no JSON", func(w http.ResponseWriter, _ *http.Request) bool {
			f.sendManifest(w, []byte("{"))
			return true
		}},
		{"a manifest with a negative size", "a size of -5", func(w http.ResponseWriter, _ *http.Request) bool {
			f.sendManifest(w, fmt.Appendf(nil, `{"config":{"digest":%q,"size":-5}}`, f.desc.Digest))
			return true
		}},
		{"a manifest with a path for a digest", "names a blob", func(w http.ResponseWriter, _ *http.Request) bool {
			f.sendManifest(w, []byte(`{"config":{"digest":"sha256:../../../etc/passwd","size":1}}`))
			return true
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			proxy, l := registrytest.NewProxy(t, ""), open(t)
			proxy.SetHook(c.hook)
			_, err := pull(t, client(t, remote.Options{}), proxy.Host()+"/web:1", l)
			kind(t, err, remote.Lied, c.part)
			if ok, _ := l.Exists(context.Background(), f.desc); ok {
				t.Error("the blob was stored")
			}
			left, _ := os.ReadFile(filepath.Join(l.Root(), "ingest", strings.Replace(f.desc.Digest.String(), ":", "-", 1)))
			if len(left) > 0 {
				t.Errorf("%d bytes of it were kept for the next pull", len(left))
			}
		})
	}
}

func TestAnotherRangeThanAskedForIsRefused(t *testing.T) {
	f, l := newFake(), open(t)
	proxy := registrytest.NewProxy(t, "")
	proxy.SetHook(func(w http.ResponseWriter, r *http.Request) bool {
		if isBlob(f, r) && r.Header.Get("Range") != "" {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", len(f.blob)-1, len(f.blob)))
			w.WriteHeader(http.StatusPartialContent)
			w.Write(f.blob)
			return true
		}
		return f.serve(w, r)
	})
	half := filepath.Join(l.Root(), "ingest", strings.Replace(f.desc.Digest.String(), ":", "-", 1))
	if err := os.WriteFile(half, f.blob[:1000], 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := pull(t, client(t, remote.Options{}), proxy.Host()+"/web:1", l)
	kind(t, err, remote.Lied, "another range")
}

func TestARegistryWithoutRangesIsReadFromTheBeginning(t *testing.T) {
	f, l := newFake(), open(t)
	proxy := registrytest.NewProxy(t, "")
	var asked atomic.Int32
	proxy.SetHook(func(w http.ResponseWriter, r *http.Request) bool {
		if !isBlob(f, r) {
			return f.serve(w, r)
		}
		if asked.Add(1) == 1 {
			w.Write(f.blob[:1000])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		w.Write(f.blob)
		return true
	})
	if _, err := pull(t, client(t, remote.Options{}), proxy.Host()+"/web:1", l); err != nil {
		t.Fatal(err)
	}
	if err := l.Verify(context.Background(), f.desc); err != nil {
		t.Error(err)
	}
	c := client(t, remote.Options{})
	if _, err := c.FetchRange(context.Background(), parse(t, proxy.Host()+"/web:1"), f.desc, 10, 10); err == nil || !strings.Contains(err.Error(), "does not give parts") {
		t.Errorf("a part of a blob: %v", err)
	}
}

func TestARegistryThatStallsIsGivenUp(t *testing.T) {
	f := newFake()
	for name, part := range map[string]string{"before the answer": "", "in the middle of a blob": "half"} {
		t.Run(name, func(t *testing.T) {
			l := open(t)
			proxy := registrytest.NewProxy(t, "")
			proxy.SetHook(func(w http.ResponseWriter, r *http.Request) bool {
				if !isBlob(f, r) {
					return f.serve(w, r)
				}
				if part != "" && r.Header.Get("Range") == "" {
					w.Header().Set("Content-Length", strconv.Itoa(len(f.blob)))
					w.Write(f.blob[:1000])
					w.(http.Flusher).Flush()
				}
				<-r.Context().Done() // until the client hangs up
				return true
			})
			_, err := pull(t, client(t, remote.Options{IdleTimeout: time.Second, Attempts: 2}), proxy.Host()+"/web:1", l)
			kind(t, err, remote.Stalled, "no byte moved")
		})
	}
}

func TestAPushIsTriedAgainWhenItMayPass(t *testing.T) {
	reg := registrytest.Docker(t, "docker-registry")
	for name, fail := range map[string]func(w http.ResponseWriter, r *http.Request){
		"503": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		"a connection that breaks": func(_ http.ResponseWriter, r *http.Request) {
			io.CopyN(io.Discard, r.Body, 1000)
			panic(http.ErrAbortHandler)
		},
	} {
		t.Run(name, func(t *testing.T) {
			proxy, l := registrytest.NewProxy(t, reg.Host), open(t)
			var failed atomic.Int32
			proxy.SetHook(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != http.MethodPut || failed.Add(1) > 3 {
					return false
				}
				fail(w, r)
				return true
			})
			image := registrytest.Cluster(t, l, uint64(len(name)))
			var last remote.Progress
			c := client(t, remote.Options{Progress: func(p remote.Progress) { last = p }})
			if err := push(t, c, l, image, proxy.Host()+"/web:1"); err != nil {
				t.Fatal(err)
			}
			if last.Done != last.Total {
				t.Errorf("the progress ends at %+v", last)
			}
			back := open(t)
			if d, err := pull(t, c, reg.Host+"/web:1", back); err != nil || d.Digest != image.Digest {
				t.Errorf("it came back as %v, %v", d.Digest, err)
			}
		})
	}
}

// A registry that is asked too often says how long it wants to be left alone.
func TestARegistryIsLeftAloneForAsLongAsItAsks(t *testing.T) {
	for asks, want := range map[string][2]time.Duration{
		"20": {19 * time.Second, 20 * time.Second}, "86400": {119 * time.Second, 2 * time.Minute},
		"": {0, time.Second}, "soon": {0, time.Second}, "-5": {0, time.Second},
	} {
		f := newFake()
		proxy := registrytest.NewProxy(t, "")
		var asked atomic.Int32
		proxy.SetHook(func(w http.ResponseWriter, r *http.Request) bool {
			if asked.Add(1) > 1 {
				return f.serve(w, r)
			}
			w.Header().Set("Retry-After", asks)
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		})
		var waited time.Duration
		c := client(t, remote.Options{Sleep: func(_ context.Context, d time.Duration) error { waited += d; return nil }})
		if _, err := pull(t, c, proxy.Host()+"/web:1", open(t)); err != nil {
			t.Fatalf("%q: %v", asks, err)
		}
		if waited < want[0] || waited > want[1] {
			t.Errorf("%q: we waited %s", asks, waited)
		}
	}
}

func TestARefusalIsNotTriedAgain(t *testing.T) {
	for status, want := range map[int]remote.Kind{401: remote.Denied, 403: remote.Denied, 404: remote.NotFound, 400: remote.Refused} {
		proxy, l := registrytest.NewProxy(t, ""), open(t)
		proxy.SetHook(func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(status); return true })
		_, err := pull(t, client(t, remote.Options{}), proxy.Host()+"/web:1", l)
		kind(t, err, want, "")
		if n := len(proxy.Requests("GET", "")); n != 1 {
			t.Errorf("%d: asked %d times", status, n)
		}
		image := registrytest.Cluster(t, l, 1)
		kind(t, push(t, client(t, remote.Options{}), l, image, proxy.Host()+"/web:1"), map[int]remote.Kind{404: remote.NotFound}[status]+map[int]remote.Kind{401: want, 403: want, 400: want}[status], "")
	}
}

// The layer alone is looked at: the first pull gives up the config beside it
// wherever that is when the layer fails, so the second may have to ask for it.
func TestARegistryThatDiesHalfWayKeepsWhatCame(t *testing.T) {
	proxy, there, image := served(t)
	layer := layerOf(t, there, image)
	proxy.SetCut(1 << 20)
	proxy.SetHook(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Range") != "" {
			panic(http.ErrAbortHandler) // it never comes back
		}
		return false
	})
	l := open(t)
	_, err := pull(t, client(t, remote.Options{}), proxy.Host()+"/web:1", l)
	kind(t, err, remote.Unreachable, "is kept")
	if l.Complete(context.Background(), image) == nil {
		t.Fatal("it came whole")
	}
	proxy.SetCut(0)
	proxy.SetHook(nil)
	proxy.Forget()
	if _, err := pull(t, client(t, remote.Options{}), proxy.Host()+"/web:1", l); err != nil {
		t.Fatal(err)
	}
	if got := proxy.Requests("GET", "/blobs/"+layer); len(got) != 1 || got[0].Range != "bytes=1048576-" {
		t.Errorf("the second pull asked for %+v", got)
	}
}

// layerOf is the digest of the one layer of an image's one node.
func layerOf(t *testing.T, l *layout.Layout, image ocispec.Descriptor) (layer string) {
	t.Helper()
	err := l.Walk(context.Background(), image, func(d ocispec.Descriptor, err error) error {
		if strings.Contains(d.MediaType, "layer") {
			layer = d.Digest.String()
		}
		return err
	})
	if err != nil || layer == "" {
		t.Fatalf("finding the layer of %s: %q, %v", image.Digest, layer, err)
	}
	return layer
}

func TestAFullDiskInAPullIsOurOwnFaultAndTheNextPullWorks(t *testing.T) {
	f := newFake()
	proxy := registrytest.NewProxy(t, "")
	proxy.SetHook(f.serve)
	try := func(fs *faultfs.FS, dir string) error {
		l, err := layout.Open(dir, layout.Options{FS: fs})
		if err != nil {
			return err
		}
		_, err = client(t, remote.Options{}).Pull(context.Background(), parse(t, proxy.Host()+"/web:1"), l,
			remote.PullOptions{Partial: filepath.Join(dir, "ingest"), FS: fs})
		return err
	}
	count := &faultfs.FS{}
	if err := try(count, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	for _, crash := range []bool{false, true} {
		for at := 1; at <= count.Calls(); at++ {
			dir := t.TempDir()
			if _, err := layout.Open(dir, layout.Options{}); err != nil {
				t.Fatal(err)
			}
			err := try(&faultfs.FS{At: at, Crash: crash}, dir)
			if err != nil && !crash && !strings.Contains(err.Error(), syscall.ENOSPC.Error()) {
				t.Errorf("call %d: the error hides the full disk: %v", at, err)
			}
			if err := try(&faultfs.FS{}, dir); err != nil {
				t.Errorf("call %d, crash %v: the next pull: %v", at, crash, err)
			}
			l, _ := layout.Open(dir, layout.Options{})
			if err := l.Verify(context.Background(), f.desc); err != nil {
				t.Errorf("call %d, crash %v: %v", at, crash, err)
			}
		}
	}
}

func TestWhatIsNotThereIsNamedWithItsRemedy(t *testing.T) {
	l := open(t)
	_, err := pull(t, client(t, remote.Options{}), "127.0.0.1:1/web:1", l)
	kind(t, err, remote.Unreachable, "check the name, the port")
	image := registrytest.Cluster(t, l, 1)
	kind(t, push(t, client(t, remote.Options{}), l, image, "127.0.0.1:1/web:1"), remote.Unreachable, "connection refused")
	reg := registrytest.Docker(t, "docker-registry")
	_, err = pull(t, client(t, remote.Options{}), reg.Host+"/none:1", l)
	kind(t, err, remote.NotFound, "check the name and the tag")
	_, err = pull(t, client(t, remote.Options{}), reg.Host+"/none@"+image.Digest.String(), l)
	kind(t, err, remote.NotFound, "")
}

func TestAnImageThatIsNotWholeIsNotPushed(t *testing.T) {
	proxy, l := registrytest.NewProxy(t, ""), open(t)
	image := registrytest.Cluster(t, l, 1)
	blobs, _ := l.Blobs()
	path, _ := l.Path(blobs[0].Digest)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := push(t, client(t, remote.Options{}), l, image, proxy.Host()+"/web:1"); err == nil || !strings.Contains(err.Error(), "not whole") {
		t.Errorf("it gives %v", err)
	}
	if n := len(proxy.Requests("HEAD", "")); n > 0 {
		t.Errorf("the registry was asked %d times", n)
	}
}

func TestACancelledPullStopsAtOnceAndSaysSo(t *testing.T) {
	f, l := newFake(), open(t)
	ctx, cancel := context.WithCancel(context.Background())
	proxy := registrytest.NewProxy(t, "")
	proxy.SetHook(func(w http.ResponseWriter, r *http.Request) bool {
		if isBlob(f, r) {
			cancel()
			<-r.Context().Done()
			return true
		}
		return f.serve(w, r)
	})
	_, err := client(t, remote.Options{}).Pull(ctx, parse(t, proxy.Host()+"/web:1"), l, remote.PullOptions{Partial: filepath.Join(l.Root(), "ingest")})
	kind(t, err, remote.Stopped, "")
}
