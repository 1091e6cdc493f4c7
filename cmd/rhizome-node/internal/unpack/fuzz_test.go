package unpack

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// Whatever a layer says, nothing outside the folder changes.
func FuzzLayer(f *testing.F) {
	f.Add(layer(f, file("a", "1"), symlink("b", "../outside"), file("b/x", "2"), file("b/.wh.kept", "")), false)
	f.Add(layer(f, symlink("b", "/../outside"), dir("b"), file("b/kept", "2"), hardlink("c", "b/kept")), true)
	f.Add(layer(f, dir("d/e"), symlink("d", "../outside"), file("d/.wh..wh..opq", "")), false)
	f.Add(layer(f, entry(tar.TypeFifo, "p", "", 0o600), file(".wh.p", "")), false)
	f.Fuzz(func(t *testing.T, data []byte, overlay bool) {
		top := t.TempDir()
		root, outside := filepath.Join(top, "root"), filepath.Join(top, "outside")
		for _, d := range []string{root, outside} {
			if err := os.Mkdir(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		kept := filepath.Join(outside, "kept")
		if err := os.WriteFile(kept, []byte("kept"), 0o640); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(kept, stamp, stamp); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(outside, stamp, stamp); err != nil {
			t.Fatal(err)
		}
		_, _ = Layer(bytes.NewReader(data), Into{Dir: root, Limit: 1 << 20, Overlay: overlay})
		for _, p := range []string{kept, outside} {
			info, err := os.Stat(p)
			if err != nil || !info.ModTime().Equal(stamp) {
				t.Fatalf("%s was changed: %v", p, err)
			}
		}
		if info, _ := os.Stat(kept); info.Mode() != 0o640 {
			t.Fatalf("the file outside has the mode %v", info.Mode())
		}
		if list, err := os.ReadDir(top); err != nil || len(list) != 2 {
			t.Fatalf("beside the folder lie %d names, %v", len(list), err)
		}
	})
}
