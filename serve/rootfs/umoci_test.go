package rootfs

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// umociCases is how many images are generated: each is a folder of one image
// that umoci unpacks at once.
const umociCases = 1500

// TestViewsAreWhatUmociUnpacks lays generated layers over each other, in a
// view and by umoci on a disk, and compares every path.
func TestViewsAreWhatUmociUnpacks(t *testing.T) {
	if _, err := exec.LookPath("umoci"); err != nil {
		t.Skip("skipped: no umoci here; install the Debian package umoci")
	}
	if os.Getuid() != 0 {
		t.Skip("skipped: umoci keeps owners and modes for root only")
	}
	cases := umociCases
	if testing.Short() {
		cases = 200
	}
	rng := rand.New(rand.NewPCG(4, 2026))
	layers := make([][]*tar.Header, 4)
	bodies := map[*tar.Header]string{}
	for n := range cases {
		g := generator{t: t, rng: rng, bodies: bodies, prefix: fmt.Sprintf("c%04d", n)}
		for i, l := range g.image(1 + rng.IntN(len(layers))) {
			layers[i] = append(layers[i], l...)
		}
	}
	var streams [][]byte
	c := NewCache(8 << 20)
	var opened []*Layer
	for _, l := range layers {
		stream := headersTar(t, l, bodies)
		streams = append(streams, stream)
		blob, s := blobOf(t, stream)
		opened = append(opened, openLayer(t, c, blob, s.Digest.String()))
	}
	disk := umociUnpack(t, streams)
	compareDisk(t, viewOf(t, opened...), disk)
}

func headersTar(t testing.TB, headers []*tar.Header, bodies map[*tar.Header]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(bodies[h])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// umociUnpack makes an OCI image of gzip layers and has umoci unpack it.
func umociUnpack(t *testing.T, streams [][]byte) string {
	t.Helper()
	dir := t.TempDir()
	oci := filepath.Join(dir, "oci")
	var diffIDs []string
	var layers []map[string]any
	for _, s := range streams {
		diffIDs = append(diffIDs, fmt.Sprintf("sha256:%x", sha256.Sum256(s)))
		var z bytes.Buffer
		w, _ := gzip.NewWriterLevel(&z, 1)
		_, _ = w.Write(s)
		w.Close()
		layers = append(layers, putBlob(t, oci, "application/vnd.oci.image.layer.v1.tar+gzip", z.Bytes()))
	}
	config := putBlob(t, oci, "application/vnd.oci.image.config.v1+json", toJSON(t, map[string]any{
		"architecture": "amd64", "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs}}))
	manifest := putBlob(t, oci, "application/vnd.oci.image.manifest.v1+json", toJSON(t, map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers}))
	manifest["annotations"] = map[string]string{"org.opencontainers.image.ref.name": "t"}
	writeFile(t, filepath.Join(oci, "index.json"), toJSON(t, map[string]any{"schemaVersion": 2, "manifests": []any{manifest}}))
	writeFile(t, filepath.Join(oci, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`))
	bundle := filepath.Join(dir, "bundle")
	cmd := exec.Command("umoci", "unpack", "--image", oci+":t", bundle)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("umoci: %v\n%s", err, out)
	}
	return filepath.Join(bundle, "rootfs")
}

func putBlob(t *testing.T, oci, mediaType string, b []byte) map[string]any {
	t.Helper()
	sum := fmt.Sprintf("%x", sha256.Sum256(b))
	writeFile(t, filepath.Join(oci, "blobs/sha256", sum), b)
	return map[string]any{"mediaType": mediaType, "digest": "sha256:" + sum, "size": len(b)}
}

func writeFile(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func toJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// compareDisk wants every path of the disk in the view and the other way
// round, with the same attributes, contents and hard links.
func compareDisk(t *testing.T, v *View, root string) {
	t.Helper()
	got, want := viewLines(t, v), diskLines(t, root)
	bad := 0
	for p := range union(got, want) {
		if got[p] != want[p] {
			if bad++; bad <= 20 {
				t.Errorf("%s:\n view %s\numoci %s", p, got[p], want[p])
			}
		}
	}
	if bad > 0 || len(want) < 1000 {
		t.Errorf("%d of %d paths differ", bad, len(want))
	}
}

func union(a, b map[string]string) map[string]bool {
	u := map[string]bool{}
	for p := range a {
		u[p] = true
	}
	for p := range b {
		u[p] = true
	}
	return u
}

func viewLines(t *testing.T, v *View) map[string]string {
	t.Helper()
	out := map[string]string{}
	first := map[File]string{}
	err := v.Walk("/", func(p string, f File, a Attr) error {
		if p == "/" {
			return nil
		}
		line := fmt.Sprintf("%s %04o %d:%d links %d", a.Kind, a.Mode, a.UID, a.GID, a.Nlink)
		if a.Kind != Dir {
			if first[f] == "" {
				first[f] = p
			}
			line += fmt.Sprintf(" time %d inode of %s", a.Sec, first[f])
		}
		switch a.Kind {
		case Regular:
			body := make([]byte, a.Size)
			if _, err := v.ReadAt(f, body, 0); err != nil {
				return err
			}
			line += " " + string(body)
		case Symlink:
			text, _ := v.Readlink(f)
			line += " " + text
		}
		out[p] = line
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func diskLines(t *testing.T, root string) map[string]string {
	t.Helper()
	out := map[string]string{}
	first := map[uint64]string{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(p, root)
		out[name] = diskLine(p, name, info, first)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func diskLine(p, name string, info fs.FileInfo, first map[uint64]string) string {
	st := info.Sys().(*syscall.Stat_t)
	kind, links := Regular, uint32(st.Nlink)
	switch {
	case info.IsDir():
		kind, links = Dir, dirLinks(p)
	case info.Mode()&fs.ModeSymlink != 0:
		kind = Symlink
	case info.Mode()&fs.ModeNamedPipe != 0:
		kind = Fifo
	}
	line := fmt.Sprintf("%s %04o %d:%d links %d", kind, info.Mode().Perm(), st.Uid, st.Gid, links)
	if kind != Dir {
		if first[st.Ino] == "" {
			first[st.Ino] = name
		}
		line += fmt.Sprintf(" time %d inode of %s", info.ModTime().Unix(), first[st.Ino])
	}
	switch kind {
	case Regular:
		b, _ := os.ReadFile(p)
		line += " " + string(b)
	case Symlink:
		text, _ := os.Readlink(p)
		line += " " + text
	}
	return line
}

// dirLinks counts a directory's links by its subdirectories: not every file
// system does.
func dirLinks(p string) uint32 {
	n := uint32(2)
	list, _ := os.ReadDir(p)
	for _, d := range list {
		if d.IsDir() {
			n++
		}
	}
	return n
}
