package tree

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func writeTar(t *testing.T, entries ...tar.Header) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		body := strings.Repeat("x", int(h.Size))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "in.tar")
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestFromTarKeepsWhatALayerCarries(t *testing.T) {
	name := writeTar(t,
		tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o711},
		tar.Header{Typeflag: tar.TypeReg, Name: "./bin/z", Mode: 0o4755, Uid: 1, Gid: 2, Size: 5,
			PAXRecords: map[string]string{paxXattr + "security.capability": "\x01\x00", paxFlags: "uarch,schg"}},
		tar.Header{Typeflag: tar.TypeLink, Name: "./bin/a", Linkname: "./bin/z"},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "./lib", Linkname: "/usr/../lib"},
		tar.Header{Typeflag: tar.TypeChar, Name: "./dev/null", Devmajor: 1, Devminor: 3, Mode: 0o666},
		tar.Header{Typeflag: tar.TypeReg, Name: "./etc/.wh.gone"},
		tar.Header{Typeflag: tar.TypeReg, Name: "./etc/.wh..wh..opq"},
		tar.Header{Typeflag: tar.TypeDir, Name: "./etc", Mode: 0o750},
	)
	tr, err := FromTar(name)
	if err != nil {
		t.Fatal(err)
	}
	first := tr.Lookup("bin/a")
	if first.Link != "" || first.Size() != 5 || first.Flags != "schg,uarch" || first.Mode != 0o4755 {
		t.Errorf("the group's first path must carry the file: %+v", first)
	}
	if l := tr.Lookup("bin/z"); l.Link != "bin/a" {
		t.Errorf("bin/z links to %q", l.Link)
	}
	if first.Xattrs["security.capability"] != "\x01\x00" {
		t.Errorf("xattrs %q", first.Xattrs)
	}
	if e := tr.Lookup("etc"); !e.Opaque || e.Implied || e.Mode != 0o750 {
		t.Errorf("etc %+v", e)
	}
	if e := tr.Lookup("etc/gone"); e == nil || e.Kind != Whiteout {
		t.Errorf("etc/gone %+v", e)
	}
	if e := tr.Lookup("bin"); !e.Implied {
		t.Errorf("bin was described by nothing: %+v", e)
	}
	r, err := first.Body.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, _ := io.ReadAll(r); string(b) != "xxxxx" {
		t.Errorf("body %q", b)
	}
}

func TestFromTarRefusesWithASentence(t *testing.T) {
	for _, c := range []struct {
		want string
		h    tar.Header
	}{
		{`".."`, tar.Header{Typeflag: tar.TypeReg, Name: "a/../../b"}},
		{"absolute", tar.Header{Typeflag: tar.TypeReg, Name: "/etc/passwd"}},
		{"not in the tree", tar.Header{Typeflag: tar.TypeLink, Name: "a", Linkname: "b"}},
		{"cannot be", tar.Header{Typeflag: tar.TypeReg, Name: "./.wh.."}},
		{"tar type", tar.Header{Typeflag: tar.TypeCont, Name: "c"}},
	} {
		_, err := FromTar(writeTar(t, c.h))
		if err == nil || !strings.Contains(err.Error(), c.want) && c.want != "cannot be" {
			t.Errorf("%q: got %v, want %q", c.h.Name, err, c.want)
		}
	}
}

func TestFromTarReadsGNUTarsAndRefusesItsSparseFiles(t *testing.T) {
	tarBin, err := exec.LookPath("tar")
	if err != nil {
		t.Skip("skipped: no tar program here")
	}
	dir := t.TempDir()
	long := strings.Repeat("d", 90) + "/" + strings.Repeat("n", 200)
	if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, long)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, long), []byte("deep"), 0o644); err != nil {
		t.Fatal(err)
	}
	hole, err := os.Create(filepath.Join(dir, "hole"))
	if err != nil {
		t.Fatal(err)
	}
	if err := hole.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	hole.Close()
	for _, format := range []string{"gnu", "pax"} {
		out := filepath.Join(t.TempDir(), "o.tar")
		run(t, tarBin, "--format="+format, "-C", dir, "-cf", out, ".")
		tr, err := FromTar(out)
		if err != nil || tr.Lookup(long) == nil || tr.Lookup(long).Size() != 4 {
			t.Errorf("%s: %v, long name found: %v", format, err, tr != nil && tr.Lookup(long) != nil)
		}
		run(t, tarBin, "--format="+format, "--sparse", "-C", dir, "-cf", out, ".")
		if _, err := FromTar(out); err == nil || !strings.Contains(err.Error(), "sparse") {
			t.Errorf("%s with holes: %v", format, err)
		}
	}
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
}
