package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rhizome/registry/registrytest"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// blob is where a desk's store keeps a blob.
func (d desk) blob(digest string) string {
	return filepath.Join(d.store, "oci/blobs/sha256", strings.TrimPrefix(digest, "sha256:"))
}

// anyLayer is the first layer of an index's first node.
func anyLayer(t *testing.T, d desk, index string) ocispec.Descriptor {
	t.Helper()
	raw, err := os.ReadFile(d.blob(firstManifest(t, d, index)))
	if err != nil {
		t.Fatal(err)
	}
	return manifest(t, string(raw)).Layers[0]
}

// spoil changes one byte in the middle of a file.
func spoil(t *testing.T, name string) {
	t.Helper()
	body, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	body[len(body)/2] ^= 1
	if err := os.Chmod(name, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, body, 0o644); err != nil {
		t.Fatal(err)
	}
}

// Issue 4, items 8 and 9: what is damaged, cut short or gone is named with exit
// code 6, and mended from the registry that the image came from; where that is
// away, nothing is lost that was there.
func TestVerifyNamesWhatIsBadAndRepairMendsIt(t *testing.T) {
	needNamespaces(t)
	registry := registrytest.Docker(t, "docker-registry")
	command(t, "skopeo", "copy", "--dest-tls-verify=false", "oci:"+foreignImage(t)+":t", "docker://"+registry.Host+"/base:1")
	maker := newDesk(t)
	base, _ := maker.must("pull", "--plain-http", registry.Host+"/base:1")
	built, _ := maker.must("build", recipeOn(t, "base@"+base), "--tag", "web:1")
	maker.must("push", "--plain-http", "web:1", registry.Host+"/web:1")

	d := newDesk(t)
	d.must("pull", "--plain-http", registry.Host+"/web@"+built, "--tag", "web:1")
	d.must("verify", "web:1")
	layer := anyLayer(t, d, built)
	whole, err := os.ReadFile(d.blob(layer.Digest.String()))
	if err != nil {
		t.Fatal(err)
	}
	for what, harm := range map[string]func(name string) error{
		"one bit flipped": func(name string) error { spoil(t, name); return nil },
		"one byte short":  func(name string) error { return os.Truncate(name, layer.Size-1) },
		"gone":            os.Remove,
	} {
		t.Run(what, func(t *testing.T) {
			if err := harm(d.blob(layer.Digest.String())); err != nil {
				t.Fatal(err)
			}
			_, said, code := d.rhizome("verify", "web:1")
			if code != exitFound || !strings.Contains(said, layer.Digest.String()) {
				t.Errorf("verify: exit code %d: %s", code, said)
			}
			_, said, code = d.rhizome("verify", "web:1", "--json")
			var found []struct{ Text string }
			if err := json.Unmarshal([]byte(said), &found); err != nil || code != exitFound || len(found) == 0 {
				t.Errorf("verify --json: exit code %d, %v: %s", code, err, said)
			}
			if _, said, code = d.rhizome("verify", "web:1", "--repair", "--plain-http"); code != 0 {
				t.Errorf("verify --repair: exit code %d: %s", code, said)
			}
			d.must("verify", "web:1")
			if body, err := os.ReadFile(d.blob(layer.Digest.String())); err != nil || string(body) != string(whole) {
				t.Errorf("the blob has %d bytes, and had %d: %v", len(body), len(whole), err)
			}
		})
	}
	t.Run("the registry is away", func(t *testing.T) {
		registry.Stop()
		spoil(t, d.blob(layer.Digest.String()))
		_, said, code := d.rhizome("verify", "web:1", "--repair", "--plain-http")
		if (code != exitFound && code != exitNetwork) || !strings.Contains(said, registry.Host) {
			t.Errorf("exit code %d: %s", code, said)
		}
		if info, err := os.Stat(d.blob(layer.Digest.String())); err != nil || info.Size() != layer.Size {
			t.Errorf("what was there is gone: %v", err)
		}
	})
}
