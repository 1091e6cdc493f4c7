package store_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rhizome/registry/layerfmt"
	"rhizome/registry/layout"
	"rhizome/registry/registrytest"
	"rhizome/registry/store"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/crypto/ssh"
)

// clock is a clock that the test moves.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { c.t = c.t.Add(time.Second); return c.t }

func open(t *testing.T, dir string, o store.Options) *store.Store {
	t.Helper()
	if o.Who == "" {
		o.Who = "ada@host"
	}
	s, err := store.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func tag(t *testing.T, s *store.Store, d ocispec.Descriptor, name string) {
	t.Helper()
	if err := s.Tag(context.Background(), d, name); err != nil {
		t.Fatal(err)
	}
}

// age makes every file of the store look old.
func age(t *testing.T, s *store.Store, by time.Duration) {
	t.Helper()
	when := time.Now().Add(-by)
	err := filepath.WalkDir(s.Dir(), func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chtimes(path, when, when)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestTheDefaultFolderIsTheSystemsOrTheUsers(t *testing.T) {
	env := func(pairs ...string) func(string) string {
		return func(k string) string {
			if i := slices.Index(pairs, k); i >= 0 {
				return pairs[i+1]
			}
			return ""
		}
	}
	for _, c := range []struct {
		env  func(string) string
		uid  int
		goos string
		want string
	}{
		{env("HOME", "/root"), 0, "linux", "/var/lib/rhizome"},
		{env("HOME", "/root"), 0, "freebsd", "/var/db/rhizome"},
		{env("HOME", "/home/ada"), 1000, "linux", "/home/ada/.local/share/rhizome"},
		{env(), 1000, "linux", ""},
		{env("HOME", "/home/ada", "XDG_DATA_HOME", "/data"), 1000, "freebsd", "/data/rhizome"},
		{env("HOME", "/home/ada", "XDG_DATA_HOME", "not/absolute"), 1000, "linux", "/home/ada/.local/share/rhizome"},
	} {
		if got := store.DefaultDir(c.env, c.uid, c.goos); got != c.want {
			t.Errorf("uid %d on %s: %q, want %q", c.uid, c.goos, got, c.want)
		}
	}
}

func TestAStoreOfANewerProgramIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, store.Options{})
	if err := os.WriteFile(filepath.Join(dir, "version.json"), []byte(`{"schema": 99}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(dir, store.Options{}); err == nil || !strings.Contains(err.Error(), "upgrade this program") {
		t.Errorf("it opens with %v", err)
	}
}

func TestHistorySaysWhoMovedATagWhenAndWhereTo(t *testing.T) {
	ctx := context.Background()
	c := &clock{time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)}
	s := open(t, t.TempDir(), store.Options{Now: c.now})
	a, b := registrytest.Cluster(t, s.Images(), 1), registrytest.Cluster(t, s.Images(), 2)
	tag(t, s, a, "web:1")
	tag(t, s, b, "web:1")
	tag(t, s, b, "web:1") // no change, no line
	tag(t, s, a, "web:2")
	if err := s.Untag(ctx, "web:1"); err != nil {
		t.Fatal(err)
	}
	got, err := s.History(ctx, "web:1")
	if err != nil {
		t.Fatal(err)
	}
	want := [][2]digest.Digest{{b.Digest, ""}, {a.Digest, b.Digest}, {"", a.Digest}}
	for i, v := range got {
		if i >= len(want) || v.From != want[i][0] || v.To != want[i][1] || v.Who != "ada@host" || v.Time.IsZero() {
			t.Errorf("line %d: %+v", i, v)
		}
	}
	if all, err := s.History(ctx, "web"); err != nil || len(all) != 4 || len(got) != 3 {
		t.Errorf("%d lines of web:1, %d of web, %v", len(got), len(all), err)
	}
	list, err := s.List(ctx)
	if err != nil || len(list) != 1 || list[0].Name != "web:2" || !slices.Equal(list[0].Nodes, []string{"n1", "n2"}) || list[0].Tagged.IsZero() {
		t.Errorf("the images are %+v, %v", list, err)
	}
}

func TestTheStoreNamesWholeImagesOnlyAndByStoreNames(t *testing.T) {
	ctx := context.Background()
	s := open(t, t.TempDir(), store.Options{})
	image := registrytest.Cluster(t, s.Images(), 1)
	for _, name := range []string{"host.example/web:1", "web@" + image.Digest.String(), image.Digest.String(), "Web:1", ""} {
		if err := s.Tag(ctx, image, name); err == nil {
			t.Errorf("%q became a tag", name)
		}
	}
	if _, err := s.Resolve(ctx, "host.example/web:1"); err == nil || !strings.Contains(err.Error(), "pull it first") {
		t.Errorf("a registry's name in the store: %v", err)
	}
	blobs, err := s.Images().Blobs()
	if err != nil {
		t.Fatal(err)
	}
	path, _ := s.Images().Path(blobs[0].Digest)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	var incomplete *layout.IncompleteError
	if err := s.Tag(ctx, image, "web:1"); !errors.As(err, &incomplete) {
		t.Errorf("half an image: %v", err)
	}
	if _, err := s.History(ctx, "web"); err == nil {
		t.Error("it has a history all the same")
	}
}

// A crash between the index and the log, or another program's tag, leaves the
// log behind the index; the next change says so.
func TestATornLogIsBroughtUpToTheIndex(t *testing.T) {
	ctx := context.Background()
	s := open(t, t.TempDir(), store.Options{})
	a, b := registrytest.Cluster(t, s.Images(), 1), registrytest.Cluster(t, s.Images(), 2)
	tag(t, s, a, "web:1")
	log := filepath.Join(s.Dir(), "history", "web.jsonl")
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(log, data[:len(data)-20], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Images().Tag(ctx, b, "web:1"); err != nil { // not through the store
		t.Fatal(err)
	}
	tag(t, s, a, "web:1")
	got, err := s.History(ctx, "web:1")
	if err != nil || len(got) != 2 || got[0].From != b.Digest || got[1].To != b.Digest {
		t.Errorf("the history is %+v, %v", got, err)
	}
}

func TestTheCacheForgetsAStepWhoseLayerIsGone(t *testing.T) {
	ctx := context.Background()
	s := open(t, t.TempDir(), store.Options{})
	layer := registrytest.OurLayer(t, s.Images(), registrytest.Tar(1, 1, 100))
	key := digest.FromString("key")
	if _, ok, err := s.CacheGet(ctx, key); ok || err != nil {
		t.Errorf("an empty cache: %v, %v", ok, err)
	}
	if err := s.CachePut(ctx, key, "web", "base", []byte(`{"a":1}`), []ocispec.Descriptor{layer.Descriptor}); err != nil {
		t.Fatal(err)
	}
	got, ok, err := s.CacheGet(ctx, key)
	if !ok || err != nil || !bytes.Contains(got, []byte(`"a"`)) {
		t.Errorf("a full cache: %s, %v, %v", got, ok, err)
	}
	path, _ := s.Images().Path(layer.Descriptor.Digest)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := s.CacheGet(ctx, key); ok || err != nil {
		t.Errorf("a cache without its layer: %v, %v", ok, err)
	}
	if last, ok := s.CacheLast(ctx, "web", "base"); !ok || len(last) == 0 {
		t.Error("what the step's inputs were is forgotten too")
	}
	if _, ok := s.CacheLast(ctx, "web", "other"); ok {
		t.Error("a step that never ran has a last result")
	}
	if err := s.CachePut(ctx, key, "web", "base", []byte(`{}`), []ocispec.Descriptor{layer.Descriptor}); err == nil {
		t.Error("a result without its layer was recorded")
	}
}

func TestHostKeysAreMadeOnceAndOpenSSHReadsThem(t *testing.T) {
	ctx := context.Background()
	s := open(t, t.TempDir(), store.Options{})
	dir, err := s.SSHHostKeys(ctx, "web", "n1")
	if err != nil {
		t.Fatal(err)
	}
	first := map[string]string{}
	for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
		file := filepath.Join(dir, "ssh_host_"+kind+"_key")
		first[kind] = checkKey(t, file)
	}
	again, err := s.SSHHostKeys(ctx, "web", "n1")
	if err != nil || again != dir {
		t.Fatal(again, err)
	}
	for kind, text := range first {
		if now := checkKey(t, filepath.Join(dir, "ssh_host_"+kind+"_key")); now != text {
			t.Errorf("the %s key changed", kind)
		}
	}
	other, err := s.SSHHostKeys(ctx, "web", "n2")
	if err != nil || checkKey(t, filepath.Join(other, "ssh_host_ed25519_key")) == first["ed25519"] {
		t.Errorf("two nodes share a key (%v)", err)
	}
	if info, err := os.Stat(filepath.Dir(dir)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the node's secrets have mode %v, %v", info.Mode(), err)
	}
	if _, err := s.SSHHostKeys(ctx, "web", "../x"); err == nil {
		t.Error("a node's name left its folder")
	}
}

func TestAClusterKeyIsMadeOnceAndAGivenOneIsKept(t *testing.T) {
	ctx := context.Background()
	s := open(t, t.TempDir(), store.Options{})
	keys := map[string]string{}
	for _, of := range [][2]string{{"web", "/etc/munge/munge.key"}, {"web", "/etc/other.key"}, {"db", "/etc/munge/munge.key"}} {
		file, err := s.ClusterKey(ctx, of[0], of[1])
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(file)
		if err != nil || len(data) != 1024 {
			t.Fatalf("the key of %v has %d bytes, %v", of, len(data), err)
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the key of %v: %v, %v", of, info.Mode(), err)
		}
		keys[string(data)] = file
	}
	if len(keys) != 3 {
		t.Errorf("three keys, %d different ones", len(keys))
	}
	file, err := s.ClusterKey(ctx, "web", "/etc/munge/munge.key")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("the operator's"), 0o600); err != nil {
		t.Fatal(err)
	}
	if again, err := s.ClusterKey(ctx, "web", "/etc/munge/munge.key"); err != nil || again != file {
		t.Fatal(again, err)
	}
	if data, _ := os.ReadFile(file); string(data) != "the operator's" {
		t.Errorf("a key that was given became %q", data)
	}
}

// checkKey reads a private key as Go and, where it is installed, as OpenSSH
// does, and compares the public one beside it.
func checkKey(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.ParsePrivateKey(data)
	if err != nil {
		t.Fatal(err)
	}
	public, err := os.ReadFile(file + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key.PublicKey())))
	if !strings.HasPrefix(string(public), want) {
		t.Errorf("%s.pub is %q", file, public)
	}
	if out, err := exec.Command("ssh-keygen", "-y", "-f", file).CombinedOutput(); !errors.Is(err, exec.ErrNotFound) {
		if err != nil || !strings.HasPrefix(string(out), want) {
			t.Errorf("ssh-keygen reads %s as %q, %v", file, out, err)
		}
	}
	return want
}

func TestAForeignLayerIsServedFromASeekableCopy(t *testing.T) {
	ctx := context.Background()
	tarball := registrytest.Tar(7, 3, 50_000)
	for name, store1 := range map[string]func(*layout.Layout) registrytest.Layer{
		"gzip": func(l *layout.Layout) registrytest.Layer { return registrytest.GzipLayer(t, l, tarball) },
		"tar": func(l *layout.Layout) registrytest.Layer {
			return registrytest.Layer{Descriptor: registrytest.Blob(t, l, ocispec.MediaTypeImageLayer, tarball), DiffID: digest.FromBytes(tarball)}
		},
		"zstd": func(l *layout.Layout) registrytest.Layer {
			return registrytest.Layer{Descriptor: registrytest.Blob(t, l, ocispec.MediaTypeImageLayerZstd, compressed(t, tarball)), DiffID: digest.FromBytes(tarball)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir(), store.Options{})
			layer := store1(s.Images())
			image := registrytest.Manifest(t, s.Images(), "n1", layer)
			if err := s.DeriveAll(ctx, image); err != nil {
				t.Fatal(err)
			}
			got, err := s.Layer(ctx, layer.Descriptor, layer.DiffID)
			if err != nil {
				t.Fatal(err)
			}
			defer got.Close()
			index, err := layerfmt.ReadTail(got, got.Size(), got.Descriptor.Annotations)
			if err != nil || !got.Derived {
				t.Fatalf("derived %v, %v", got.Derived, err)
			}
			x, err := layerfmt.OpenIndex(index)
			if err != nil || digest.NewDigestFromBytes(digest.SHA256, diffID(x)) != layer.DiffID {
				t.Errorf("the copy's DiffID is not the layer's (%v)", err)
			}
			if err := s.Images().Verify(ctx, layer.Descriptor); err != nil {
				t.Errorf("the original: %v", err)
			}
		})
	}
}

func diffID(x *layerfmt.Index) []byte { d := x.DiffID(); return d[:] }

func compressed(t *testing.T, data []byte) []byte {
	t.Helper()
	cmd := exec.Command("zstd", "-q", "-c")
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip("skipped: zstd is not installed")
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestOurOwnLayerIsItsOwnSeekableCopy(t *testing.T) {
	ctx := context.Background()
	s := open(t, t.TempDir(), store.Options{})
	layer := registrytest.OurLayer(t, s.Images(), registrytest.Tar(1, 2, 1000))
	bare := layer.Descriptor
	bare.Annotations = nil // as a tool that drops them leaves it
	for _, d := range []ocispec.Descriptor{layer.Descriptor, bare} {
		got, err := s.Layer(ctx, d, layer.DiffID)
		if err != nil || got.Derived {
			t.Fatalf("derived %v, %v", got != nil && got.Derived, err)
		}
		got.Close()
	}
	if left, _ := os.ReadDir(filepath.Join(s.Dir(), "derived")); len(left) > 0 {
		t.Errorf("derived/ has %v", left)
	}
}

func TestALayerThatLiesAboutItsDiffIDGetsNoCopy(t *testing.T) {
	s := open(t, t.TempDir(), store.Options{})
	layer := registrytest.GzipLayer(t, s.Images(), registrytest.Tar(1, 1, 1000))
	_, err := s.Layer(context.Background(), layer.Descriptor, digest.FromString("another"))
	var corrupt *layout.CorruptError
	if !errors.As(err, &corrupt) {
		t.Errorf("it gives %v", err)
	}
	if left, _ := os.ReadDir(filepath.Join(s.Dir(), "derived")); len(left) > 0 {
		t.Errorf("derived/ has %v", left)
	}
}

func TestVerifyNamesWhatIsWrongAndRepairMendsIt(t *testing.T) {
	ctx := context.Background()
	s, good := open(t, t.TempDir(), store.Options{}), open(t, t.TempDir(), store.Options{})
	foreign := registrytest.Tar(9, 2, 30_000)
	make := func(l *layout.Layout) (ocispec.Descriptor, []registrytest.Layer) {
		layers := []registrytest.Layer{registrytest.OurLayer(t, l, registrytest.Tar(1, 2, 1000)),
			registrytest.OurLayer(t, l, registrytest.Tar(2, 2, 1000)), registrytest.GzipLayer(t, l, foreign)}
		return registrytest.Index(t, l, registrytest.Manifest(t, l, "n1", layers...)), layers
	}
	image, layers := make(s.Images())
	make(good.Images())
	if err := s.DeriveAll(ctx, image); err != nil {
		t.Fatal(err)
	}
	flip(t, blobPath(t, s, layers[0]))
	if err := os.Remove(blobPath(t, s, layers[1])); err != nil {
		t.Fatal(err)
	}
	flip(t, filepath.Join(s.Dir(), "derived", layers[2].DiffID.Encoded()+".tar.zst"))
	findings, err := s.Verify(ctx, image, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := map[digest.Digest]store.Problem{}
	for _, f := range findings {
		got[f.Descriptor.Digest] = f.Problem
	}
	for i, want := range []store.Problem{store.Damaged, store.Missing, store.BadCopy} {
		if d := layers[i].Descriptor.Digest; got[d] != want {
			t.Errorf("layer %d: %q, want %q", i, got[d], want)
		}
	}
	left, err := s.Repair(ctx, findings, func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
		return good.Images().Fetch(ctx, d)
	})
	if err != nil || len(left) > 0 {
		t.Errorf("not mended: %v, %v", left, err)
	}
	if findings, err := s.Verify(ctx, image, nil); err != nil || len(findings) > 0 {
		t.Errorf("after the repair: %v, %v", findings, err)
	}
}

func blobPath(t *testing.T, s *store.Store, l registrytest.Layer) string {
	t.Helper()
	path, err := s.Images().Path(l.Descriptor.Digest)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func flip(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestLeftoversOfDeadProcessesAreSweptAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, store.Options{})
	lease, err := s.Lease(context.Background(), "build")
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Close()
	make := func(name string) string {
		path := filepath.Join(dir, "tmp", name)
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	dead := []string{make("blob-1.tmp"), make("locks/x.lock"), make("leases/dead.json")}
	partial := make("partial/sha256-1")
	age(t, s, 2*24*time.Hour)
	fresh := make("blob-2.tmp")
	open(t, dir, store.Options{})
	for _, path := range dead {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is still there", path)
		}
	}
	for _, path := range []string{partial, fresh} {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("%s was swept: %v", path, err)
		}
	}
	if leases, _ := os.ReadDir(filepath.Join(dir, "tmp", "leases")); len(leases) != 1 {
		t.Errorf("the leases are %v", leases)
	}
}
