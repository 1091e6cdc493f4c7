package layerfmt

import (
	"archive/tar"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestAReaderWrittenByTheDocumentReadsTheSame runs testdata/reader.py, which
// knows docs/storage.md and no Go.
func TestAReaderWrittenByTheDocumentReadsTheSame(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("skipped: no python3 here")
	}
	if _, err := exec.LookPath("zstd"); err != nil {
		t.Skip("skipped: no zstd program here")
	}
	pax := map[string]string{"SCHILY.xattr.user.b": "\x00\xff", "SCHILY.xattr.security.capability": "cap", "SCHILY.fflags": "uarch,schg"}
	streams := [][]byte{nil, makeTar(t, map[string][]byte{"bin/a": []byte("text")},
		tar.Header{Typeflag: tar.TypeReg, Name: "bin/a", Mode: 0o4755, Uid: 70000, Gid: 3, PAXRecords: pax}, tar.Header{Typeflag: tar.TypeLink, Name: "b", Linkname: "bin/a"},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "s", Linkname: "../über"}, tar.Header{Typeflag: tar.TypeBlock, Name: "dev/sda1", Devmajor: 8, Devminor: 1},
		tar.Header{Typeflag: tar.TypeReg, Name: "d/.wh..wh..opq"}, tar.Header{Typeflag: tar.TypeReg, Name: ".wh.gone"}, tar.Header{Typeflag: tar.TypeLink, Name: "l", Linkname: "usr/x"})}
	big, _ := mixed(t)
	for i, stream := range append(streams, big) {
		blob, _ := encode(t, stream, 2)
		name := filepath.Join(t.TempDir(), "blob")
		if err := os.WriteFile(name, blob, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(python, "testdata/reader.py", name).CombinedOutput()
		if err != nil {
			t.Fatalf("tar %d: %v\n%s", i, err, out)
		}
		want := strings.Join(describe(openBlob(t, blob, nil), "", Root), "\n") + "\n"
		if string(out) != want {
			t.Errorf("tar %d: by the document\n%s\nby layerfmt\n%s", i, out, want)
		}
	}
}

func describe(x *Index, path string, i Inode) []string {
	kinds := strings.Fields("? dir file symlink char block fifo whiteout link")
	a := x.Attr(i)
	bits := 0
	if a.Opaque {
		bits |= bitOpaque
	}
	if a.Implied {
		bits |= bitImplied
	}
	line := fmt.Sprintf("%s %s %04o %d:%d %d %d %d %d %d %s", path, kinds[a.Kind], a.Mode, a.UID, a.GID, a.Nlink, a.Size, a.Sec, a.Nsec, bits, x.Flags(i))
	xattrs := x.Xattrs(i)
	for _, k := range slices.Sorted(maps.Keys(xattrs)) {
		line += fmt.Sprintf(" %s=%x", k, xattrs[k])
	}
	switch a.Kind {
	case File:
		d, _ := x.BodyDigest(i)
		line += fmt.Sprintf(" %x", d)
	case Symlink, Link:
		line += " " + x.Readlink(i)
	case Char, Block:
		line += fmt.Sprintf(" %d,%d", a.Major, a.Minor)
	}
	out := []string{line}
	first, n := x.Children(i)
	for at := first; at < first+n; at++ {
		d := x.Dirent(at)
		out = append(out, describe(x, path+"/"+d.Name, d.Inode)...)
	}
	return out
}
