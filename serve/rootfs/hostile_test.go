package rootfs

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// hostileView has what a handle from the network might wrongly name: hidden
// files, whiteouts, hard links to other layers, hollow directories.
func hostileView(t testing.TB) *View {
	c := NewCache(1)
	return viewOf(t,
		layerOf(t, c, ent{path: "a/b", body: "x"}, ent{path: "a/.wh.c"}, ent{path: "hollow/.wh.x"}, ent{path: "s", link: "a"}),
		layerOf(t, c, ent{path: "l", hard: "a/b"}, ent{path: ".wh.s"}, ent{path: "a/.wh..wh..opq"}, ent{path: "new/.wh.x"}))
}

// touchAll calls every method with a File. None may panic.
func touchAll(v *View, f File) {
	_, _ = v.Attr(f)
	_, _ = v.Parent(f)
	_, _ = v.Readlink(f)
	_, _ = v.Xattrs(f)
	_, _ = v.Flags(f)
	_, _ = v.BodyDigest(f)
	_, _ = v.ReadAt(f, make([]byte, 3), 0)
	_, _, _ = v.LendCached(f, 0, 3, nil)
	_, _ = v.Borrow(f, 1<<62, 1<<30, nil)
	for _, name := range []string{"", ".", "..", "a", "b", "x", "\x00", "a/b"} {
		_, _ = v.Lookup(f, name)
	}
	for _, cookie := range []uint64{0, 1, 2, 1<<32 + 1, 1<<32 + 3, 1 << 63} {
		_ = v.ReadDir(f, cookie, func(Dirent) bool { return true })
	}
}

func TestAnyFileFromTheNetworkIsAnsweredOrRefused(t *testing.T) {
	v := hostileView(t)
	for layer := range uint16(4) {
		for inode := range uint32(20) {
			touchAll(v, File{layer, inode})
		}
		touchAll(v, File{layer, 1<<32 - 1})
	}
	for _, f := range []File{{9, 1}, {0, 0}, {0, 1000}, {65535, 1}} {
		if _, err := v.Attr(f); !errors.Is(err, ErrStale) {
			t.Errorf("Attr(%v): %v", f, err)
		}
		if _, err := v.Lookup(f, "a"); !errors.Is(err, ErrStale) {
			t.Errorf("Lookup(%v): %v", f, err)
		}
	}
	if _, err := v.ReadAt(v.Root(), nil, 0); !errors.Is(err, ErrIsDir) {
		t.Errorf("reading a directory: %v", err)
	}
	l, _ := v.Resolve("l")
	if _, err := v.ReadAt(l, make([]byte, 1), -1); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("a negative offset: %v", err)
	}
	if _, err := v.Lookup(l, "x"); !errors.Is(err, ErrNotDir) {
		t.Errorf("a name in a file: %v", err)
	}
}

// FuzzHandle's law: a handle that is taken is the one that its file gives.
func FuzzHandle(f *testing.F) {
	v := hostileView(f)
	f.Add(v.Handle(v.Root()))
	l, _ := v.Resolve("l")
	f.Add(v.Handle(l))
	f.Add([]byte{1, 0})
	f.Fuzz(func(t *testing.T, h []byte) {
		file, err := v.FromHandle(h)
		if err != nil {
			return
		}
		if !bytes.Equal(v.Handle(file), h) {
			t.Fatalf("%x names %v, whose handle is %x", h, file, v.Handle(file))
		}
		touchAll(v, file)
	})
}

func TestALayerInAFileIsMappedAndReadsTheSame(t *testing.T) {
	c := NewCache(1)
	blob, s := blobOf(t, tarOf(t, []ent{{path: "etc/a", body: "one"}, {path: "etc/b", body: "two"}}))
	name := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(name, blob, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mapped, err := OpenLayerFile(s.Digest.String(), f, s.Size, s.Annotations(), c)
	if err != nil {
		t.Fatal(err)
	}
	read := openLayer(t, c, blob, s.Digest.String())
	if a, b := listing(t, viewOf(t, mapped)), listing(t, viewOf(t, read)); !slices.Equal(a, b) {
		t.Errorf("%q\n%q", a, b)
	}
	ann := s.Annotations()
	ann["io.rhizome.layer.index.digest"] = "sha256:00"
	if _, err := OpenLayerFile("x", f, s.Size, ann, c); err == nil {
		t.Error("an index of another digest was mapped")
	}
}
