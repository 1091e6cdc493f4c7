package httpd

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// shelf is a store of blobs and tags.
type shelf struct {
	blobs map[string][]byte
	kinds map[digest.Digest]string
	tags  map[string]digest.Digest
}

type blobReader struct{ *bytes.Reader }

func (blobReader) Close() error { return nil }

func (s *shelf) OpenBlob(_ context.Context, d string) (BlobFile, error) {
	b, ok := s.blobs[d]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return blobReader{bytes.NewReader(b)}, nil
}

func (s *shelf) References(context.Context) ([]string, error) {
	var list []string
	for name := range s.tags {
		list = append(list, name)
	}
	return list, nil
}

func (s *shelf) Resolve(ctx context.Context, ref string) (ocispec.Descriptor, error) {
	return s.Describe(ctx, s.tags[ref])
}

func (s *shelf) Describe(_ context.Context, d digest.Digest) (ocispec.Descriptor, error) {
	kind, ok := s.kinds[d]
	if !ok {
		return ocispec.Descriptor{}, fs.ErrNotExist
	}
	return ocispec.Descriptor{MediaType: kind, Digest: d, Size: int64(len(s.blobs[string(d)]))}, nil
}

func (s *shelf) put(t *testing.T, kind string, v any) ocispec.Descriptor {
	t.Helper()
	b, ok := v.([]byte)
	if !ok {
		var err error
		if b, err = json.Marshal(v); err != nil {
			t.Fatal(err)
		}
	}
	d := digest.FromBytes(b)
	s.blobs[string(d)] = b
	if strings.Contains(kind, "manifest") || strings.Contains(kind, "index") {
		s.kinds[d] = kind
	}
	return ocispec.Descriptor{MediaType: kind, Digest: d, Size: int64(len(b))}
}

// cluster puts an index of two nodes on the shelf, as "lab/beowulf:v1".
func cluster(t *testing.T) *shelf {
	t.Helper()
	s := &shelf{map[string][]byte{}, map[digest.Digest]string{}, map[string]digest.Digest{}}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, arch := range []string{"amd64", "arm64"} {
		layer := s.put(t, ocispec.MediaTypeImageLayer, append(noise(700_000), arch...))
		config := s.put(t, ocispec.MediaTypeImageConfig, ocispec.Image{
			Platform: ocispec.Platform{OS: "linux", Architecture: arch},
			RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.Digest}},
		})
		m := s.put(t, ocispec.MediaTypeImageManifest, ocispec.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{layer},
		})
		m.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
		index.Manifests = append(index.Manifests, m)
	}
	d := s.put(t, ocispec.MediaTypeImageIndex, index)
	for _, tag := range []string{"lab/beowulf:v1", "lab/beowulf:v2", "lab/beowulf:latest", "other:x"} {
		s.tags[tag] = d.Digest
	}
	return s
}

func registryAt(t *testing.T, s *shelf) string {
	t.Helper()
	server := httptest.NewServer(Admin(Registry(s), http.NotFoundHandler(), nil))
	t.Cleanup(server.Close)
	return server.URL
}

func TestSkopeoPullsTheWholeClusterImage(t *testing.T) {
	need(t, "skopeo")
	s := cluster(t)
	at := strings.Replace(registryAt(t, s), "http", "docker", 1) + "/lab/beowulf"
	dir := t.TempDir()
	skopeo := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "skopeo", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("skopeo %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	skopeo("copy", "--quiet", "--all", "--preserve-digests", "--insecure-policy", "--src-tls-verify=false", at+":v1", "oci:"+dir+":v1")
	for d := range s.blobs {
		if _, err := os.Stat(filepath.Join(dir, "blobs/sha256", strings.TrimPrefix(d, "sha256:"))); err != nil {
			t.Errorf("the copy lacks %s", d)
		}
	}
	if got := skopeo("inspect", "--raw", "--tls-verify=false", at+"@"+string(s.tags["lab/beowulf:v1"])); digest.FromString(got) != s.tags["lab/beowulf:v1"] {
		t.Errorf("by digest came %s", got)
	}
	if got := skopeo("list-tags", "--tls-verify=false", at); !strings.Contains(got, `"v2"`) || strings.Contains(got, `"x"`) {
		t.Errorf("tags: %s", got)
	}
}

func TestTheRegistryKeepsToTheSpecification(t *testing.T) {
	s := cluster(t)
	at := registryAt(t, s)
	index := string(s.tags["lab/beowulf:v1"])
	for p, c := range map[string]struct{ status, body string }{
		"/v2/":                      {"200", "{}"},
		"/v2/_catalog":              {"200", `"repositories":["lab/beowulf","other"]`},
		"/v2/_catalog?n=1":          {"200", `["lab/beowulf"]`},
		"/v2/lab/beowulf/tags/list": {"200", `["latest","v1","v2"]`},
		"/v2/lab/beowulf/tags/list?n=1&last=latest": {"200", `["v1"]`},
		"/v2/lab/beowulf/tags/list?n=0":             {"200", `"tags":[]`},
		"/v2/none/tags/list":                        {"404", "NAME_UNKNOWN"},
		"/v2/lab/beowulf/manifests/v9":              {"404", "MANIFEST_UNKNOWN"},
		"/v2/lab/beowulf/manifests/" + index:        {"200", `"schemaVersion":2`},
		"/v2/lab/beowulf/blobs/" + sum(nil):         {"404", "BLOB_UNKNOWN"},
		"/v2/lab/beowulf/blobs/sha256:zz":           {"404", "NAME_INVALID"},
		"/v2/../etc/passwd":                         {"404", ""},
		"/v2/LAB/manifests/v1":                      {"404", "NAME_INVALID"},
		"/v2/lab/beowulf/referrers/" + index:        {"404", ""},
	} {
		got, status := curl(t, "--path-as-is", "-L", at+p)
		if status != c.status || !strings.Contains(string(got), c.body) {
			t.Errorf("%s: %s %s; want %s %s", p, status, got, c.status, c.body)
		}
	}
	if got, status := curl(t, "-X", "POST", at+"/v2/lab/beowulf/blobs/uploads/"); status != "405" || !strings.Contains(string(got), "UNSUPPORTED") {
		t.Errorf("pushing: %s %s", status, got)
	}
}

func TestManifestsAndBlobsCarryTheirDigest(t *testing.T) {
	s := cluster(t)
	at := registryAt(t, s)
	for _, ref := range []string{"v1", string(s.tags["lab/beowulf:v1"])} {
		r, err := http.Head(at + "/v2/lab/beowulf/manifests/" + ref)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.Header.Get("Docker-Content-Digest") != string(s.tags["lab/beowulf:v1"]) || r.Header.Get("Content-Type") != ocispec.MediaTypeImageIndex || r.ContentLength < 1 {
			t.Errorf("%s: %v", ref, r.Header)
		}
	}
	for d, b := range s.blobs {
		if got, status := curl(t, "-r", "1-3", at+"/v2/lab/beowulf/blobs/"+d); status != "206" || !bytes.Equal(got, b[1:4]) {
			t.Errorf("%s: %s %q", d, status, got)
		}
	}
}

func TestAListIsReadPageByPage(t *testing.T) {
	at := registryAt(t, cluster(t))
	next, pages := "/v2/lab/beowulf/tags/list?n=2", []string{}
	for next != "" {
		r, err := http.Get(at + next)
		if err != nil {
			t.Fatal(err)
		}
		var list struct{ Tags []string }
		if err := json.NewDecoder(r.Body).Decode(&list); err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		pages = append(pages, strings.Join(list.Tags, "+"))
		next, _, _ = strings.Cut(strings.TrimPrefix(r.Header.Get("Link"), "<"), ">")
	}
	if !slices.Equal(pages, []string{"latest+v1", "v2"}) {
		t.Errorf("%q", pages)
	}
}

// The law: what a path is taken apart into is well formed, and put together again
// it is the path.
func FuzzRegistryPaths(f *testing.F) {
	for _, p := range []string{"/v2/", "/v2/_catalog", "/v2/a/b/tags/list", "/v2/a/manifests/v1", "/v2/a/blobs/sha256:" + strings.Repeat("0", 64), "/v2/a/manifests/b/manifests/c"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p string) {
		q := parseRegistryPath(p)
		again := map[registryCall]string{
			callNone: p, callBase: p, callCatalog: "/v2/_catalog", callTags: "/v2/" + q.repo + "/tags/list",
			callManifest: "/v2/" + q.repo + "/manifests/" + q.reference, callBlob: "/v2/" + q.repo + "/blobs/" + q.reference,
		}[q.call]
		if again != p || strings.Contains(q.repo, "..") || strings.ContainsAny(q.reference, "/\\") {
			t.Fatalf("%q was taken for %+v", p, q)
		}
	})
}
