package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rhizome/registry/registrytest"
	"rhizome/stages/debian/bootstrap"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// desk is a person at a terminal with a store of their own.
type desk struct {
	t     *testing.T
	store string
	home  string
}

func newDesk(t *testing.T) desk {
	return desk{t, t.TempDir(), t.TempDir()}
}

// rhizome runs the program and returns the last line of its output.
func (d desk) rhizome(args ...string) (last, said string, code int) {
	d.t.Helper()
	var out, err bytes.Buffer
	env := map[string]string{"RHIZOME_STORE": d.store, "XDG_CACHE_HOME": d.home, "HOME": d.home}
	code = run(context.WithoutCancel(d.t.Context()), args, streams{in: strings.NewReader(""), out: &out, err: &err,
		env: func(name string) (string, bool) { v, ok := env[name]; return v, ok }})
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	return lines[len(lines)-1], out.String() + err.String(), code
}

// must is rhizome for what has to succeed.
func (d desk) must(args ...string) (last, said string) {
	d.t.Helper()
	last, said, code := d.rhizome(args...)
	if code != 0 {
		d.t.Fatalf("rhizome %s: exit code %d\n%s", strings.Join(args, " "), code, said)
	}
	return last, said
}

func command(t *testing.T, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(args[0]); err != nil {
		t.Skipf("skipped: %v", err)
	}
	cmd := exec.Command(args[0], args[1:]...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s%s", strings.Join(args, " "), err, out, said.String())
	}
	return string(out)
}

// foreignImage makes an image of two gzip layers with umoci: busybox, and a
// file removed from under it.
func foreignImage(t *testing.T) (layout string) {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("skipped: no busybox here (apt install busybox-static)")
	}
	dir := t.TempDir()
	layout = filepath.Join(dir, "image")
	bundle := filepath.Join(dir, "bundle")
	command(t, "umoci", "init", "--layout", layout)
	command(t, "umoci", "new", "--image", layout+":t")
	command(t, "umoci", "unpack", "--image", layout+":t", bundle)
	body, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(bundle, "rootfs/bin/busybox"), string(body), 0o755)
	write(t, filepath.Join(bundle, "rootfs/etc/base"), "of the base\n", 0o644)
	write(t, filepath.Join(bundle, "rootfs/etc/old"), "goes\n", 0o644)
	for _, p := range []string{"sh", "cat", "cp"} {
		if err := os.Symlink("busybox", filepath.Join(bundle, "rootfs/bin", p)); err != nil {
			t.Fatal(err)
		}
	}
	command(t, "umoci", "repack", "--refresh-bundle", "--image", layout+":t", bundle)
	if err := os.Remove(filepath.Join(bundle, "rootfs/etc/old")); err != nil {
		t.Fatal(err)
	}
	command(t, "umoci", "repack", "--image", layout+":t", bundle)
	return layout
}

func write(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, mode); err != nil {
		t.Fatal(err)
	}
}

const onForeignBase = `version: 1
name: foreign
os: linux
epoch: 2026-11-01T00:00:00Z
source: {oci: "@REF@"}
stages:
  - script: {run: "cat /etc/base /etc/old >/etc/seen 2>&1; cp note /etc/note", inputs: [note]}
network: {subnet: 10.77.0.0/24, server: 10.77.0.1}
nodes:
  - {name: n1, mac: "52:54:00:77:00:01", address: 10.77.0.11}
  - {name: n2, mac: "52:54:00:77:00:02", address: 10.77.0.12}
`

// recipeOn writes a recipe whose base is an image.
func recipeOn(t *testing.T, ref string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "note"), "a note\n", 0o644)
	write(t, filepath.Join(dir, "web.yaml"), strings.Replace(onForeignBase, "@REF@", ref, 1), 0o644)
	return filepath.Join(dir, "web.yaml")
}

func manifest(t *testing.T, raw string) (m ocispec.Manifest) {
	t.Helper()
	if err := json.Unmarshal([]byte(raw), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func digests(layers []ocispec.Descriptor) (all []string) {
	for _, l := range layers {
		all = append(all, l.Digest.String())
	}
	return all
}

func needNamespaces(t *testing.T) {
	t.Helper()
	if _, err := bootstrap.Enter(t.Context()); err != nil {
		t.Skipf("skipped: %v", err)
	}
}

// Issue 3, stage 5: a base that another tool made and another registry keeps,
// its layers reused unchanged, and read by the stages above it.
func TestABaseFromARegistryKeepsItsLayers(t *testing.T) {
	needNamespaces(t)
	registry := registrytest.Docker(t, "docker-registry")
	command(t, "skopeo", "copy", "--dest-tls-verify=false", "oci:"+foreignImage(t)+":t", "docker://"+registry.Host+"/base:1")
	base := manifest(t, command(t, "skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+registry.Host+"/base:1"))
	recipe, d := recipeOn(t, registry.Host+"/base:1"), newDesk(t)

	if _, said, code := d.rhizome("build", "--plain-http", recipe); code == 0 || !strings.Contains(said, `run "rhizome lock"`) {
		t.Errorf("a tag without a lock was built: %d, %s", code, said)
	}
	d.must("lock", "--plain-http", recipe)
	index, _ := d.must("build", "--plain-http", "--tag", "foreign:1", recipe)
	d.must("push", "--plain-http", "foreign:1", registry.Host+"/foreign:1")

	node := command(t, "skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+registry.Host+"/foreign@"+firstManifest(t, d, index))
	got := digests(manifest(t, node).Layers)
	if want := digests(base.Layers); len(want) != 2 || !slices.Equal(got[:2], want) {
		t.Errorf("the base has the layers %q, the node %q", want, got)
	}
	if seen, _ := d.must("cat", "foreign:1", "n1", "/etc/seen"); !strings.HasPrefix(seen, "cat: can't open '/etc/old'") {
		t.Errorf("the script saw %q", seen)
	}
	bundle := filepath.Join(t.TempDir(), "bundle")
	local := filepath.Join(t.TempDir(), "copy")
	command(t, "skopeo", "copy", "--src-tls-verify=false", "docker://"+registry.Host+"/foreign@"+firstManifest(t, d, index), "oci:"+local+":t")
	command(t, "umoci", "unpack", "--image", gzipped(t, local), bundle)
	if text, err := os.ReadFile(filepath.Join(bundle, "rootfs/etc/note")); err != nil || string(text) != "a note\n" {
		t.Errorf("umoci unpacked %q, %v", text, err)
	}
}

// gzipped is a copy whose layers are gzip, which is all that this umoci reads.
func gzipped(t *testing.T, layout string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "gzip")
	command(t, "skopeo", "copy", "--dest-compress-format", "gzip", "oci:"+layout+":t", "dir:"+dir)
	out := filepath.Join(t.TempDir(), "oci")
	command(t, "skopeo", "copy", "--dest-compress", "--dest-compress-format", "gzip", "dir:"+dir, "oci:"+out+":t")
	return out + ":t"
}

// firstManifest is the digest of the first node's manifest.
func firstManifest(t *testing.T, d desk, index string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(d.store, "oci/blobs/sha256", strings.TrimPrefix(index, "sha256:")))
	if err != nil {
		t.Fatal(err)
	}
	var idx ocispec.Index
	if err := json.Unmarshal(raw, &idx); err != nil {
		t.Fatal(err)
	}
	return idx.Manifests[0].Digest.String()
}

func TestAnImageForAnotherMachineIsRefused(t *testing.T) {
	registry := registrytest.Docker(t, "docker-registry")
	command(t, "skopeo", "copy", "--dest-tls-verify=false", "oci:"+foreignImage(t)+":t", "docker://"+registry.Host+"/base:1")
	recipe := recipeOn(t, registry.Host+"/base:1")
	text, err := os.ReadFile(recipe)
	if err != nil {
		t.Fatal(err)
	}
	write(t, recipe, strings.Replace(string(text), "os: linux\n", "os: linux\narch: arm64\n", 1), 0o644)
	d := newDesk(t)
	d.must("lock", "--plain-http", recipe)
	if _, said, code := d.rhizome("build", "--plain-http", recipe); code != 1 || !strings.Contains(said, "is for linux/amd64, and the recipe is for linux/arm64") {
		t.Errorf("exit code %d: %s", code, said)
	}
}

// A base without a host is an image of the store.
func TestABaseMayLieInTheStore(t *testing.T) {
	needNamespaces(t)
	d := newDesk(t)
	registry := registrytest.Docker(t, "docker-registry")
	command(t, "skopeo", "copy", "--dest-tls-verify=false", "oci:"+foreignImage(t)+":t", "docker://"+registry.Host+"/base:1")
	digest, _ := d.must("pull", "--plain-http", registry.Host+"/base:1")
	d.must("build", recipeOn(t, "base@"+digest))
	if _, said := d.must("inspect", "base:1"); said != "image    "+digest+"\nnodes    none: no cluster boots it\n" {
		t.Errorf("an image that no cluster boots: %s", said)
	}
	if _, said := d.must("images", "--json"); !strings.Contains(said, `"nodes":[]`) {
		t.Errorf("an image without nodes: %s", said)
	}
	_, said, code := newDesk(t).rhizome("build", recipeOn(t, "base@"+digest))
	if code != exitNotFound || !strings.Contains(said, "finding the base image") {
		t.Errorf("a store without it: exit code %d: %s", code, said)
	}
}

// Issue 3: "the cache carried to an empty store through a registry gives hits
// only".
func TestTheCacheCarriedToAnEmptyStoreGivesHitsOnly(t *testing.T) {
	needNamespaces(t)
	registry := registrytest.Docker(t, "docker-registry")
	command(t, "skopeo", "copy", "--dest-tls-verify=false", "oci:"+foreignImage(t)+":t", "docker://"+registry.Host+"/base:1")
	recipe, cache := recipeOn(t, registry.Host+"/base:1"), registry.Host+"/cache"
	one, two := newDesk(t), newDesk(t)
	one.must("lock", "--plain-http", recipe)

	_, said := one.must("plan", "--plain-http", "--cache-from", cache, recipe)
	if strings.Contains(said, "hit") {
		t.Fatalf("an empty cache has hits:\n%s", said)
	}
	built, said := one.must("build", "--plain-http", "--progress", "plain", "--cache-to", cache, recipe)
	if !strings.Contains(said, "5 of 5 stages were new") {
		t.Errorf("pushed: %s", said)
	}
	if _, said := one.must("build", "--plain-http", "--progress", "plain", "--cache-to", cache, recipe); !strings.Contains(said, "0 of 5 stages were new") {
		t.Errorf("pushed again: %s", said)
	}
	if _, said := two.must("plan", "--plain-http", "--cache-from", cache, recipe); strings.Contains(said, "miss") || !strings.Contains(said, "found in "+cache) {
		t.Errorf("planned on an empty store:\n%s", said)
	}
	if blobs, _ := filepath.Glob(filepath.Join(two.store, "oci/blobs/sha256/*")); len(blobs) > 0 {
		t.Errorf("planning fetched %d blobs", len(blobs))
	}
	again, said := two.must("build", "--plain-http", "--progress", "plain", "--cache-from", cache, recipe)
	if again != built {
		t.Errorf("built %s, then %s out of the cache", built, again)
	}
	if strings.Contains(said, "started") || strings.Count(said, "hit ") != 5 {
		t.Errorf("an empty store built:\n%s", said)
	}
	two.must("verify", again)
	if _, said := two.must("plan", recipe); strings.Contains(said, "miss") {
		t.Errorf("afterwards the store knows it by itself:\n%s", said)
	}
	redatedCache(t, one, recipe, cache)
}

// Another epoch is the same key: its results used to stay out of the cache, so
// that each empty store dated every layer anew.
func redatedCache(t *testing.T, one desk, recipe, cache string) {
	t.Helper()
	text, err := os.ReadFile(recipe)
	if err != nil {
		t.Fatal(err)
	}
	write(t, recipe, strings.Replace(string(text), "2026-11-01", "2026-11-02", 1), 0o644)
	if _, said := one.must("build", "--plain-http", "--progress", "plain", "--cache-to", cache, recipe); strings.Contains(said, "0 of 5 stages were new") {
		t.Errorf("pushed with another epoch: %s", said)
	}
	if _, said := newDesk(t).must("plan", "--plain-http", "--cache-from", cache, recipe); strings.Contains(said, "another epoch") {
		t.Errorf("planned with another epoch:\n%s", said)
	}
}

func TestACacheThatIsNoneIsRefusedByName(t *testing.T) {
	registry := registrytest.Docker(t, "docker-registry")
	recipe, d := recipeOn(t, "base@sha256:"+strings.Repeat("a", 64)), newDesk(t)
	for args, want := range map[string]struct {
		code int
		said string
	}{
		registry.Host + "/cache:tag": {exitUsage, "leave the tag and digest out"},
		"local":                      {exitUsage, "names no registry"},
		"127.0.0.1:1/cache":          {exitNetwork, "leave --cache-from out to build without it"},
	} {
		_, said, code := d.rhizome("plan", "--plain-http", "--cache-from", args, recipe)
		if code != want.code || !strings.Contains(said, want.said) {
			t.Errorf("%s: exit code %d: %s", args, code, said)
		}
	}
}

// Issue 4, item 5: the parent is an input, and a store without it says so.
func TestAMissingParentNamesTheRemedy(t *testing.T) {
	recipe := recipeOn(t, "base@sha256:"+strings.Repeat("a", 64))
	text, err := os.ReadFile(recipe)
	if err != nil {
		t.Fatal(err)
	}
	parent := "sha256:" + strings.Repeat("b", 64)
	write(t, recipe, "parent: "+parent+"\n"+string(text), 0o644)
	_, said, code := newDesk(t).rhizome("plan", recipe)
	if code != exitNotFound || !strings.Contains(said, "rhizome pull HOST/NAME@"+parent) {
		t.Errorf("exit code %d: %s", code, said)
	}
}

// Issue 3: "its log is kept whole, the last 30 lines are shown".
func TestAFailedScriptShowsItsLastLines(t *testing.T) {
	needNamespaces(t)
	d := newDesk(t)
	registry := registrytest.Docker(t, "docker-registry")
	command(t, "skopeo", "copy", "--dest-tls-verify=false", "oci:"+foreignImage(t)+":t", "docker://"+registry.Host+"/base:1")
	digest, _ := d.must("pull", "--plain-http", registry.Host+"/base:1")
	recipe := recipeOn(t, "base@"+digest)
	text, err := os.ReadFile(recipe)
	if err != nil {
		t.Fatal(err)
	}
	write(t, recipe, strings.Replace(string(text), "cp note /etc/note", "echo the reason; exit 7", 1), 0o644)
	_, said, code := d.rhizome("build", "--progress", "plain", recipe)
	if code != exitFailed || !strings.Contains(said, "  | the reason\n") || !strings.Contains(said, "the command failed (exit status 7)") || !strings.Contains(said, recipe+":7:") {
		t.Errorf("exit code %d: %s", code, said)
	}
}
