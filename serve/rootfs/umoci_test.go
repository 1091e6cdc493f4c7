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
	"path"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"
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

// generator makes one image whose layers shadow, remove and replace what lies
// below them. What umoci cannot do at all it leaves out: an implied directory
// over a file.
type generator struct {
	t      testing.TB
	rng    *rand.Rand
	bodies map[*tar.Header]string
	prefix string
	below  *View // what the layers so far make
	opened []*Layer

	names map[string]*tar.Header // of the layer being made, by path
	alone bool                   // nothing may be added to the layer
}

func (g *generator) image(n int) [][]*tar.Header {
	var out [][]*tar.Header
	c := NewCache(0)
	for i := range n {
		l := g.layer(i)
		if out = append(out, l); i == n-1 {
			break
		}
		blob, s := blobOf(g.t, headersTar(g.t, l, g.bodies))
		g.opened = append(g.opened, openLayer(g.t, c, blob, s.Digest.String()))
		g.below = viewOf(g.t, g.opened...)
	}
	return out
}

func (g *generator) layer(n int) []*tar.Header {
	g.names, g.alone = map[string]*tar.Header{}, false
	if n == 0 {
		g.put(&tar.Header{Typeflag: tar.TypeDir, Name: g.prefix})
	}
	if n > 0 && g.rng.IntN(4) == 0 {
		g.throughSymlink()
	} else {
		for i := 1 + g.rng.IntN(10); i > 0 && !g.alone; i-- {
			g.entry(n)
		}
	}
	paths := make([]string, 0, len(g.names))
	for p := range g.names {
		paths = append(paths, p)
	}
	sort.Slice(paths, func(i, j int) bool {
		return strings.ReplaceAll(paths[i], "/", "\x00") < strings.ReplaceAll(paths[j], "/", "\x00")
	})
	var out, links []*tar.Header
	for _, p := range paths {
		if h := g.names[p]; h.Typeflag == tar.TypeLink {
			links = append(links, h)
		} else {
			out = append(out, h)
		}
	}
	return append(out, links...)
}

func (g *generator) pick() string {
	p := g.prefix
	for range 1 + g.rng.IntN(3) {
		p += "/" + string(rune('a'+g.rng.IntN(4)))
	}
	return p
}

func (g *generator) put(h *tar.Header) {
	h.Mode = int64(g.rng.IntN(0o1000))
	if h.Typeflag == tar.TypeSymlink {
		h.Mode = 0o777
	}
	h.ModTime = time.Unix(int64(1e9+g.rng.IntN(1e6)), 0)
	h.Uid, h.Gid = g.rng.IntN(3), g.rng.IntN(3)
	g.names[h.Name] = h
}

func (g *generator) entry(n int) {
	p := g.pick()
	kind := g.rng.IntN(10)
	if !g.allowed(p, kind == 0 || kind == 1) {
		return
	}
	switch {
	case kind <= 1:
		g.put(&tar.Header{Typeflag: tar.TypeDir, Name: p})
	case kind <= 4:
		h := &tar.Header{Typeflag: tar.TypeReg, Name: p}
		g.bodies[h] = fmt.Sprintf("%s in layer %d, %d", p, n, g.rng.IntN(1000))
		h.Size = int64(len(g.bodies[h]))
		g.put(h)
	case kind == 5:
		g.put(&tar.Header{Typeflag: tar.TypeSymlink, Name: p, Linkname: string(rune('a' + g.rng.IntN(4)))})
	case kind == 6:
		g.hardLink(p)
	case kind == 7 && n > 0:
		g.put(&tar.Header{Typeflag: tar.TypeReg, Name: path.Join(path.Dir(p), ".wh."+path.Base(p))})
	case kind == 8 && n > 0 && path.Dir(p) != g.prefix:
		g.put(&tar.Header{Typeflag: tar.TypeReg, Name: path.Join(path.Dir(p), ".wh..wh..opq")})
	case kind == 9:
		g.put(&tar.Header{Typeflag: tar.TypeFifo, Name: p})
	}
}

// allowed keeps a layer consistent in itself, and its implied directories off
// files below.
func (g *generator) allowed(p string, dir bool) bool {
	if g.names[p] != nil || g.names[path.Join(path.Dir(p), ".wh."+path.Base(p))] != nil {
		return false
	}
	for q := range g.names {
		if strings.HasPrefix(q, p+"/") && !dir {
			return false
		}
	}
	for d := path.Dir(p); d != "."; d = path.Dir(d) {
		h := g.names[d]
		if h != nil && h.Typeflag != tar.TypeDir || g.names[path.Join(path.Dir(d), ".wh."+path.Base(d))] != nil {
			return false
		}
		if h == nil && g.below != nil && g.kindBelow(d) != Dir && g.kindBelow(d) != 0 {
			return false
		}
	}
	return true
}

func (g *generator) kindBelow(p string) Kind {
	var kind Kind
	r := resolver{s: g.below.top}
	if f, err := r.walk(rootFile, p, false); err == nil {
		a, err := g.below.Attr(f)
		if err != nil {
			g.t.Fatal(err)
		}
		kind = a.Kind
	}
	return kind
}

// hardLink links to a file of this layer or, half of the time, of one below.
func (g *generator) hardLink(p string) {
	var targets []string
	for q, h := range g.names {
		if h.Typeflag == tar.TypeReg && !strings.Contains(q, ".wh.") {
			targets = append(targets, q)
		}
	}
	if g.below != nil && len(g.names) == 0 {
		g.alone = true
		g.walkBelow(func(q string, a Attr) {
			if a.Kind == Regular && !strings.HasPrefix(q, p+"/") && q != p {
				targets = append(targets, q)
			}
		})
	}
	if len(targets) == 0 {
		return
	}
	sort.Strings(targets)
	g.put(&tar.Header{Typeflag: tar.TypeLink, Name: p, Linkname: targets[g.rng.IntN(len(targets))]})
}

func (g *generator) walkBelow(fn func(p string, a Attr)) {
	err := g.below.Walk("/", func(p string, _ File, a Attr) error {
		fn(strings.TrimPrefix(p, "/"), a)
		return nil
	})
	if err != nil {
		g.t.Fatal(err)
	}
}

// throughSymlink makes a layer of one file whose path leads through a symlink
// below to a directory.
func (g *generator) throughSymlink() {
	var links []string
	g.walkBelow(func(p string, a Attr) {
		if a.Kind != Symlink {
			return
		}
		if f, err := g.below.Resolve(p); err == nil {
			if at, err := g.below.Attr(f); err == nil && at.Kind == Dir {
				links = append(links, p)
			}
		}
	})
	if len(links) == 0 {
		return
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: links[g.rng.IntN(len(links))] + "/through"}
	g.bodies[h] = "through"
	h.Size = 7
	g.put(h)
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
