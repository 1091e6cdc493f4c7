package unpack

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

var stamp = time.Unix(1_700_000_000, 0)

// entry is a line of a made layer: a body for a file, a target for links.
func entry(kind byte, name, text string, mode int64) *tar.Header {
	h := &tar.Header{Typeflag: kind, Name: name, Mode: mode, ModTime: stamp, Uid: os.Getuid(), Gid: os.Getgid(), Format: tar.FormatPAX}
	if kind == tar.TypeReg {
		h.Size = int64(len(text))
		h.PAXRecords = map[string]string{"body": text}
	} else {
		h.Linkname = text
	}
	return h
}

func file(name, body string) *tar.Header { return entry(tar.TypeReg, name, body, 0o644) }
func dir(name string) *tar.Header        { return entry(tar.TypeDir, name, "", 0o755) }
func symlink(name, to string) *tar.Header {
	return entry(tar.TypeSymlink, name, to, 0o777)
}
func hardlink(name, to string) *tar.Header { return entry(tar.TypeLink, name, to, 0o644) }

func layer(t testing.TB, entries ...*tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		body := h.PAXRecords["body"]
		if h.Typeflag == tar.TypeReg {
			h.PAXRecords = nil
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// tree is what lies in a folder, a line each: the kind, the path, what it says.
func tree(t testing.TB, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		switch {
		case d.IsDir():
			fmt.Fprintf(&b, "%s/\n", rel)
		case d.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(p)
			fmt.Fprintf(&b, "%s -> %s\n", rel, to)
			return err
		default:
			body, err := os.ReadFile(p)
			fmt.Fprintf(&b, "%s = %s\n", rel, body)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// laid lays layers over each other in a new folder.
func laid(t *testing.T, layers ...[]byte) string {
	t.Helper()
	root := t.TempDir()
	for _, l := range layers {
		if _, err := Layer(bytes.NewReader(l), Into{Dir: root}); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// OCI's rules for layers (image-spec, layer.md, "Applying Changesets").
func TestLayersLieOverEachOtherAsOCISays(t *testing.T) {
	for name, c := range map[string]struct {
		layers [][]byte
		want   string
	}{
		"a file replaces a file, and a whiteout takes one away": {
			[][]byte{layer(t, file("a", "1"), file("b", "1")), layer(t, file("a", "2"), file(".wh.b", ""))}, "a = 2\n"},
		"a whiteout speaks of the layers below, not of its own": {
			[][]byte{layer(t, file("d/old", "1")), layer(t, file("d/new", "2"), file(".wh.d", ""))}, "d/\nd/new = 2\n"},
		"an opaque folder hides what lay in it, wherever its mark stands": {
			[][]byte{layer(t, file("d/old", "1"), file("d/sub/old", "1")), layer(t, file("d/sub/new", "2"), file("d/.wh..wh..opq", ""), file("d/x", "2"))},
			"d/\nd/sub/\nd/sub/new = 2\nd/x = 2\n"},
		"a file replaces a folder, a folder a file": {
			[][]byte{layer(t, file("a/x", "1"), file("b", "1")), layer(t, file("a", "2"), file("b/y", "2"))}, ""},
		"what a layer only implies goes through a symlink": {
			[][]byte{layer(t, dir("usr/lib"), symlink("lib", "usr/lib"), symlink("abs", "/usr")), layer(t, file("lib/x", "2"), file("abs/y", "2"))},
			"abs -> /usr\nlib -> usr/lib\nusr/\nusr/lib/\nusr/lib/x = 2\nusr/y = 2\n"},
		"a folder that a layer names replaces a symlink": {
			[][]byte{layer(t, dir("usr/lib"), symlink("lib", "usr/lib")), layer(t, dir("lib"), file("lib/x", "2"))}, "lib/\nlib/x = 2\nusr/\nusr/lib/\n"},
		"hard links of one layer, and to a layer below": {
			[][]byte{layer(t, file("a", "1"), hardlink("b", "a")), layer(t, hardlink("c", "/b"))}, "a = 1\nb = 1\nc = 1\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.want == "" { // the file in the way is an error, told by name
				root := t.TempDir()
				_, err := Layer(bytes.NewReader(c.layers[0]), Into{Dir: root})
				if err == nil {
					_, err = Layer(bytes.NewReader(c.layers[1]), Into{Dir: root})
				}
				if err == nil || !strings.Contains(err.Error(), `in the way of the folder "b"`) {
					t.Errorf("got %v", err)
				}
				return
			}
			if got := tree(t, laid(t, c.layers...)); got != c.want {
				t.Errorf("got\n%swant\n%s", got, c.want)
			}
		})
	}
}

func TestOwnersModesTimesAndDevicesAreKept(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("skipped: not root: files cannot be given away")
	}
	su := entry(tar.TypeReg, "bin/su", "x", 0o4755)
	su.Uid, su.Gid = 7, 8
	su.PAXRecords["SCHILY.xattr.trusted.rhizome"] = "yes"
	null := entry(tar.TypeChar, "dev/null", "", 0o666)
	null.Devmajor, null.Devminor, null.Linkname = 1, 3, ""
	folder := dir("bin")
	folder.Mode = 0o1777
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []*tar.Header{folder, su, null, entry(tar.TypeFifo, "pipe", "", 0o600)} {
		delete(h.PAXRecords, "body")
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h == su {
			io.WriteString(w, "x")
		}
	}
	w.Close()
	root := laid(t, b.Bytes())
	for name, want := range map[string]string{"bin": "dtrwxrwxrwx 0:0", "bin/su": "urwxr-xr-x 7:8", "dev/null": "Dcrw-rw-rw- 0:0", "pipe": "prw------- 0:0"} {
		info, err := os.Lstat(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		if got := fmt.Sprintf("%v %d:%d", info.Mode(), st.Uid, st.Gid); got != want || !info.ModTime().Equal(stamp) {
			t.Errorf("%s is %s of %v, want %s of %v", name, got, info.ModTime(), want, stamp)
		}
	}
	value := make([]byte, 8)
	if n, err := unix.Getxattr(filepath.Join(root, "bin/su"), "trusted.rhizome", value); err != nil || string(value[:n]) != "yes" {
		t.Errorf("the attribute is %q (%v)", value[:max(n, 0)], err)
	}
}

func TestEveryCompressionIsTaken(t *testing.T) {
	plain := layer(t, file("a", strings.Repeat("word ", 1000)))
	var z, g bytes.Buffer
	zw, _ := zstd.NewWriter(&z)
	zw.Write(plain[:600])
	zw.Close()
	// A second frame and a skippable one, as layers have (RFC 8878, 3.1.2).
	zw, _ = zstd.NewWriter(&z)
	zw.Write(plain[600:])
	zw.Close()
	z.Write([]byte{0x5e, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4})
	gw := gzip.NewWriter(&g)
	gw.Write(plain)
	gw.Close()
	for name, data := range map[string][]byte{"none": plain, "zstd": z.Bytes(), "gzip": g.Bytes()} {
		root := t.TempDir()
		r := bytes.NewReader(data)
		count, err := Layer(r, Into{Dir: root})
		if err != nil || count.Bytes != 5000 || count.Entries != 1 || r.Len() != 0 {
			t.Errorf("%s: %+v, %d bytes unread, %v", name, count, r.Len(), err)
		}
	}
}

// A bundle is hottest first: what does not fit is left out from there on, and
// no folder is called whole that is not.
func TestWithTooLittleMemoryTheFrontIsTaken(t *testing.T) {
	data := layer(t, dir("usr"), file("usr/a", "1234"), file("usr/b", "12345678"), file("usr/c", "1"), file("usr/.wh..wh..opq", ""))
	root := t.TempDir()
	count, err := Layer(bytes.NewReader(data), Into{Dir: root, Limit: 6, Overlay: true})
	if err != nil || count.Bytes != 4 || count.Left != 9 {
		t.Errorf("%+v, %v", count, err)
	}
	if got := tree(t, root); got != "usr/\nusr/a = 1234\n" {
		t.Error(got)
	}
	if n, err := unix.Getxattr(filepath.Join(root, "usr"), "trusted.overlay.opaque", make([]byte, 4)); err == nil {
		t.Errorf("usr is marked opaque (%d bytes), and not all of it is there", n)
	}
}

func TestAWholeFolderOfABundleIsMarkedForOverlayfs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("skipped: not root: trusted attributes cannot be set")
	}
	root := t.TempDir()
	if _, err := Layer(bytes.NewReader(layer(t, file("usr/a", "1"), file("usr/.wh..wh..opq", ""))), Into{Dir: root, Overlay: true}); err != nil {
		t.Fatal(err)
	}
	value := make([]byte, 4)
	if n, err := unix.Getxattr(filepath.Join(root, "usr"), "trusted.overlay.opaque", value); err != nil || string(value[:n]) != "y" {
		t.Errorf("%q, %v", value[:max(n, 0)], err)
	}
	if got := tree(t, root); got != "usr/\nusr/a = 1\n" {
		t.Error(got)
	}
}

// A layer may come in parts that lie beside each other: a hard link leads from one
// to the other, and a last part that holds nothing is none the worse.
func TestAHardLinkLeadsIntoAnEarlierPart(t *testing.T) {
	first := laid(t, layer(t, dir("usr"), file("usr/a", "1"), symlink("out", "/etc")))
	rest := t.TempDir()
	into := Into{Dir: rest, Below: []string{first}, Overlay: true}
	if _, err := Layer(bytes.NewReader(layer(t, hardlink("usr/b", "usr/a"), file("usr/c", "3"), hardlink("usr/d", "usr/c"))), into); err != nil {
		t.Fatal(err)
	}
	if got := tree(t, rest); got != "usr/\nusr/b = 1\nusr/c = 3\nusr/d = 3\n" {
		t.Error(got)
	}
	a, _ := os.Stat(filepath.Join(first, "usr/a"))
	if b, err := os.Stat(filepath.Join(rest, "usr/b")); err != nil || !os.SameFile(a, b) {
		t.Errorf("usr/b is a file of its own, %v", err)
	}
	if _, err := Layer(bytes.NewReader(layer(t, hardlink("h", "out/passwd"))), into); err == nil {
		t.Error("a hard link led out of the folder through a symlink of an earlier part")
	}
	skippable := []byte{0x5e, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3}
	if count, err := Layer(bytes.NewReader(skippable), into); err != nil || count.Entries != 0 {
		t.Errorf("a part of skippable frames: %+v, %v", count, err)
	}
}

func TestWhatNoLayerHoldsIsRefusedByName(t *testing.T) {
	for says, h := range map[string]*tar.Header{
		"leads out of the layer":    file("a/../../b", "x"),
		"character device 0:0":      entry(tar.TypeChar, "w", "", 0o600),
		"more than 255 bytes":       file(strings.Repeat("n", 256), "x"),
		"too many symlinks":         file("loop/x", "1"),
		"a whiteout of nothing":     file(".wh.", ""),
		"type '7', which no layer":  entry(tar.TypeCont, "c", "", 0o600),
		"no such file or directory": hardlink("h", "nothing"),
		"in the way of the folder":  file("plain/x", "1"),
		"it leads nowhere":          hardlink("h", "../x"),
	} {
		root := laid(t, layer(t, symlink("loop", "loop"), file("plain", "1")))
		_, err := Layer(bytes.NewReader(layer(t, h)), Into{Dir: root})
		if err == nil || !strings.Contains(err.Error(), says) && !strings.Contains(says, "type") {
			t.Errorf("%q: got %v, want %q", h.Name, err, says)
		}
	}
}

func TestACutLayerIsAnError(t *testing.T) {
	var z bytes.Buffer
	zw, _ := zstd.NewWriter(&z)
	zw.Write(layer(t, file("a", strings.Repeat("x", 10000)), file("b", "y")))
	zw.Close()
	for n := range z.Len() {
		if _, err := Layer(bytes.NewReader(z.Bytes()[:n]), Into{Dir: t.TempDir()}); err == nil && n > 0 {
			t.Fatalf("%d of %d bytes were taken for a whole layer", n, z.Len())
		}
	}
}
