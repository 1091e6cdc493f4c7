package e2e

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"rhizome/cmd/rhizome/internal/rig"

	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Two machines boot at once from a pulled image: each gets its own name, both
// the digest that the image was built with.
func TestTwoMachinesBootFromOneImage(t *testing.T) {
	w := need(t)
	n := lan(t)
	w.serve(t, n)
	for i, r := range []*rig.Running{w.boot(t, n, 1, nil), w.boot(t, n, 2, nil)} {
		g, _ := await(t, r, 0, `NODE-UP name=(\S+) digest=(sha256:[0-9a-f]{64})`)
		if want := fmt.Sprintf("n%d", i+1); g[1] != want {
			t.Errorf("machine %d calls itself %q, want %q", i+1, g[1], want)
		}
		if want := manifestOf(t, w, g[1]); g[2] != want {
			t.Errorf("%s booted %s; the image's manifest for it is %s", g[1], g[2], want)
		}
	}
}

// Every byte of /usr that a node reads over NFS is the byte that was built:
// the sums come from the node itself and from the layers' plain tar streams,
// read by nothing of ours but archive/tar.
func TestNodeReadsWhatWasBuilt(t *testing.T) {
	w := alone(t)
	n := lan(t)
	w.serve(t, n)
	r := w.boot(t, n, 1, nil)
	login(t, r, "n1")
	got, _, _ := strings.Cut(shell(t, r, `cd / && find usr -xdev -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum -z | sha256sum`), " ")
	want, files := sumsOfLayers(t, w, "n1", "usr/")
	if got != want {
		t.Errorf("the sum over all of /usr (%d files) differs: node %s, layers %s", files, got, want)
	}
	t.Logf("%d files of /usr compared", files)
	key, err := os.ReadFile(filepath.Join(w.store, "secrets", "e2e", "n1", "ssh", "ssh_host_ed25519_key.pub"))
	if err != nil {
		t.Fatal(err)
	}
	if seen := shell(t, r, `cat /etc/ssh/ssh_host_ed25519_key.pub`); seen != strings.TrimSpace(string(key)) {
		t.Errorf("the node's ssh host key is %q, the store's secret is %q", seen, key)
	}
	if mode := shell(t, r, `stat -c %a:%u /etc/ssh/ssh_host_ed25519_key`); mode != "600:0" {
		t.Errorf("the node's private host key has mode:owner %s", mode)
	}
}

// Killing the server while a node runs, and starting it again, costs the node
// nothing but time: open files read on, no handle is stale.
func TestServerRestartsUnderARunningNode(t *testing.T) {
	w := alone(t)
	n := lan(t)
	s := w.serve(t, n)
	r := w.boot(t, n, 1, nil)
	login(t, r, "n1")
	shell(t, r, `exec 7</usr/bin/perl; head -c 4096 <&7 | sha256sum; true`)
	s.Kill()
	w.serve(t, n)
	// Every command must succeed: a stale handle is an error of read or open.
	out := shell(t, r, `echo 3 > /proc/sys/vm/drop_caches && cat <&7 | wc -c && ls -lR /usr/share > /dev/null && cat /usr/bin/* > /dev/null && echo GOES''-ON`)
	if !strings.Contains(out, "GOES-ON") || strings.Contains(out, "tale file handle") {
		t.Errorf("the node did not go on after the server's restart:\n%s", out)
	}
}

// manifestOf reads the digest of a node's manifest out of the store's OCI
// layout, as any OCI tool would.
func manifestOf(t *testing.T, w *world, node string) string {
	t.Helper()
	var index ocispec.Index
	readBlob(t, w, w.digest, &index)
	for _, m := range index.Manifests {
		if m.Annotations["io.rhizome.node"] == node {
			return m.Digest.String()
		}
	}
	t.Fatalf("the index has no node %q", node)
	return ""
}

func readBlob(t *testing.T, w *world, digest string, into any) {
	t.Helper()
	data, err := os.ReadFile(blobPath(w, digest))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatal(err)
	}
}

func blobPath(w *world, digest string) string {
	return filepath.Join(w.store, "oci", "blobs", strings.Replace(digest, ":", "/", 1))
}

// sumsOfLayers applies a node's layers in order and returns the sum of
// sha256sum's lines for all regular files below a prefix.
func sumsOfLayers(t *testing.T, w *world, node, prefix string) (sum string, files int) {
	t.Helper()
	var m ocispec.Manifest
	readBlob(t, w, manifestOf(t, w, node), &m)
	sums := map[string]string{}
	for _, l := range m.Layers {
		if err := addSums(sums, blobPath(w, l.Digest.String()), prefix); err != nil {
			t.Fatalf("layer %s: %v", l.Digest, err)
		}
	}
	names := make([]string, 0, len(sums))
	for name := range sums {
		names = append(names, name)
	}
	sort.Strings(names)
	all := sha256.New()
	for _, name := range names {
		fmt.Fprintf(all, "%s  %s\x00", sums[name], name)
	}
	return hex.EncodeToString(all.Sum(nil)), len(names)
}

func addSums(sums map[string]string, blob, prefix string) error {
	f, err := os.Open(blob)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		return err
	}
	defer z.Close()
	for tr := tar.NewReader(z); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(h.Name, "./")
		if strings.HasPrefix(path.Base(name), ".wh.") {
			continue // the bundle says that it has a folder whole: what lay below was moved there
		}
		switch h.Typeflag {
		case tar.TypeReg:
			body := sha256.New()
			if _, err := io.Copy(body, tr); err != nil {
				return err
			}
			if strings.HasPrefix(name, prefix) {
				sums[name] = hex.EncodeToString(body.Sum(nil))
			}
		case tar.TypeLink:
			if strings.HasPrefix(name, prefix) {
				sums[name] = sums[strings.TrimPrefix(h.Linkname, "./")]
			}
		}
	}
}
