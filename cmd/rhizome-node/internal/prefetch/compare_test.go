package prefetch

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"rhizome/serve/node/nodeapi"
)

// region is a tar as the server sends it.
func region(t testing.TB) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	at := time.Unix(1_700_000_000, 123456789)
	for _, h := range []struct {
		tar.Header
		body string
	}{
		{tar.Header{Typeflag: tar.TypeDir, Name: "shared/src/", Mode: 0o755}, ""},
		{tar.Header{Typeflag: tar.TypeReg, Name: "shared/src/a", Mode: 0o644}, "aaaa"},
		{tar.Header{Typeflag: tar.TypeReg, Name: "shared/src/b", Mode: 0o600}, "b"},
		{tar.Header{Typeflag: tar.TypeLink, Name: "shared/src/b2", Linkname: "shared/src/b"}, ""},
		{tar.Header{Typeflag: tar.TypeDir, Name: "shared/src/d/", Mode: 0o700}, ""},
		{tar.Header{Typeflag: tar.TypeReg, Name: "shared/src/d/deep", Mode: 0o644}, "deep"},
		{tar.Header{Typeflag: tar.TypeSymlink, Name: "shared/src/l", Linkname: "a"}, ""},
	} {
		h.ModTime, h.Format, h.Size = at, tar.FormatPAX, int64(len(h.body))
		if err := w.WriteHeader(&h.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, h.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func filled(t testing.TB) (dir string, root *os.Root, list Listing) {
	t.Helper()
	dir = t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	if list, err = Fill(root, bytes.NewReader(region(t))); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "shared/src"), root, list
}

// told is the tar of changes as text: what becomes of which path.
func told(t *testing.T, root *os.Root, all []Change) string {
	t.Helper()
	var buf bytes.Buffer
	if err := Write(&buf, root, all); err != nil {
		t.Fatal(err)
	}
	var out []string
	for r := tar.NewReader(&buf); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return strings.Join(out, "\n")
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf("%c %s %s %s", h.Typeflag, strings.TrimPrefix(h.Name, "shared/src"), h.Linkname, body)
		if h.PAXRecords[nodeapi.PAXMeta] != "" {
			line = "meta" + line
		}
		if h.PAXRecords[nodeapi.PAXRemoved] != "" {
			line = "gone" + line
		}
		out = append(out, strings.TrimSpace(line))
	}
}

func TestWhatChangedIsToldAndNothingElse(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(dir string) error
		want string
	}{
		{name: "nothing", do: func(string) error { return nil }},
		{name: "content with the same time", do: func(d string) error {
			info, err := os.Stat(d + "/a")
			return errors.Join(err, os.WriteFile(d+"/a", []byte("AAAA"), 0), os.Chtimes(d+"/a", info.ModTime(), info.ModTime()))
		}, want: "0 /a  AAAA"},
		{name: "mode", do: func(d string) error { return os.Chmod(d+"/a", 0o4755) }, want: "meta0 /a"},
		{name: "time", do: func(d string) error { return os.Chtimes(d+"/a", time.Unix(5, 6), time.Unix(5, 6)) }, want: "meta0 /a"},
		{name: "one name of two", do: func(d string) error { return os.WriteFile(d+"/b2", []byte("B"), 0) }, want: "0 /b  B\n1 /b2 shared/src/b"},
		{name: "a link cut", do: func(d string) error {
			return errors.Join(os.Rename(d+"/b2", d+"/x"), os.WriteFile(d+"/b2", []byte("b"), 0o600), os.Remove(d+"/x"), keepTime(d))
		}, want: "0 /b  b\n0 /b2  b"},
		{name: "a folder gone", do: func(d string) error { return errors.Join(os.RemoveAll(d+"/d"), keepTime(d)) }, want: "gone0 /.wh.d"},
		{name: "a file for a folder", do: func(d string) error {
			return errors.Join(os.RemoveAll(d+"/d"), os.WriteFile(d+"/d", []byte("file"), 0o644), keepTime(d))
		}, want: "0 /d  file"},
		{name: "a symlink", do: func(d string) error {
			return errors.Join(os.Remove(d+"/l"), os.Symlink("b", d+"/l"), keepTime(d))
		}, want: "2 /l b"},
		{name: "something new", do: func(d string) error {
			return errors.Join(os.MkdirAll(d+"/d/new", 0o755), os.WriteFile(d+"/d/new/f", []byte("f"), 0o644))
		}, want: "5 /d/\n5 /d/new/\n0 /d/new/f  f"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, root, list := filled(t)
			if err := c.do(dir); err != nil {
				t.Fatal(err)
			}
			all, err := Changes(root, list, []string{"shared/src"})
			if err != nil {
				t.Fatal(err)
			}
			if got := told(t, root, all); got != c.want {
				t.Errorf("told is\n%s\nand not\n%s", got, c.want)
			}
		})
	}
}

// keepTime undoes what a change in a folder does to the folder's time.
func keepTime(dir string) error {
	at := time.Unix(1_700_000_000, 123456789)
	return os.Chtimes(dir, at, at)
}

// A file that is mapped and written to on a memory file system keeps its times.
func TestAWriteThroughAMappingIsSeen(t *testing.T) {
	dir, root, list := filled(t)
	f, err := os.OpenFile(dir+"/a", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, 4, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	copy(m, "mmap")
	if err := unix.Munmap(m); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(dir+"/a", time.Unix(1_700_000_000, 123456789), time.Unix(1_700_000_000, 123456789)); err != nil {
		t.Fatal(err)
	}
	all, err := Changes(root, list, []string{"shared/src"})
	if got := told(t, root, all); err != nil || got != "0 /a  mmap" {
		t.Errorf("told is %q, %v", got, err)
	}
}

func TestWhatMayBeOutdatedAroundAChangeIsAskedAbout(t *testing.T) {
	got := outdated([]string{"shared/src", "shared/lib/x"}, []Change{{Path: "shared/src/a/b/f"}, {Path: "shared/src/a/g"}, {Path: "shared/src/mode", Meta: true}, {Path: "shared/lib/x"}})
	if want := "shared shared/lib shared/src shared/src/a shared/src/a/b shared/src/mode"; strings.Join(got, " ") != want {
		t.Errorf("they are %v, and not %s", got, want)
	}
}

func TestATarThatIsNoRegionIsRefused(t *testing.T) {
	whole := region(t)
	for name, data := range map[string][]byte{
		"cut in a body":   whole[:1200],
		"cut in a header": whole[:700],
		"outside":         bytes.ReplaceAll(whole, []byte("shared/src/a"), []byte("../../../../")),
	} {
		dir := t.TempDir()
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		if _, err := Fill(root, bytes.NewReader(data)); err == nil {
			t.Errorf("%s: it was taken", name)
		}
	}
}

// FuzzFill: nothing that a server sends is written outside of the folder.
func FuzzFill(f *testing.F) {
	f.Add(region(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		outer := t.TempDir()
		dir := filepath.Join(outer, "in")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		if list, err := Fill(root, bytes.NewReader(data)); err == nil {
			if _, err := Changes(root, list, nil); err != nil {
				t.Error(err)
			}
		}
		if names, err := os.ReadDir(outer); err != nil || len(names) != 1 {
			t.Errorf("outside of the folder are %v, %v", names, err)
		}
	})
}
