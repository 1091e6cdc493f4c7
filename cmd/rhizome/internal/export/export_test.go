package export_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"rhizome/cmd/rhizome/internal/export"
	"rhizome/registry/layerfmt"
	"rhizome/serve/rootfs"
)

var when = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// root is a small root file system with one of everything; its lower layer has
// a file that the upper one removes.
func root(t *testing.T) *rootfs.View {
	t.Helper()
	return view(t, layer(t,
		tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755},
		tar.Header{Typeflag: tar.TypeDir, Name: "dev/", Mode: 0o755},
		tar.Header{Typeflag: tar.TypeChar, Name: "dev/null", Mode: 0o666, Devmajor: 1, Devminor: 3},
		tar.Header{Typeflag: tar.TypeReg, Name: "gone", Mode: 0o644},
		tar.Header{Typeflag: tar.TypeDir, Name: "usr/", Mode: 0o555, Gid: 7},
		tar.Header{Typeflag: tar.TypeReg, Name: "usr/ping", Mode: 0o4755, Size: 4, PAXRecords: map[string]string{"SCHILY.xattr.user.note": "x\x00y"}},
		tar.Header{Typeflag: tar.TypeLink, Name: "usr/ping6", Linkname: "usr/ping"},
		tar.Header{Typeflag: tar.TypeReg, Name: "usr/secret", Mode: 0o600, Uid: 1000, Gid: 1001, Size: 4},
	), layer(t,
		tar.Header{Typeflag: tar.TypeReg, Name: ".wh.gone"},
		tar.Header{Typeflag: tar.TypeFifo, Name: "pipe", Mode: 0o620},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "sbin", Mode: 0o777, Linkname: "usr/sbin"},
	))
}

func layer(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range entries {
		h.ModTime, h.Format = when, tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, strings.Repeat("b", int(h.Size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func view(t *testing.T, tars ...[]byte) *rootfs.View {
	t.Helper()
	cache := rootfs.NewCache(16 << 20)
	var layers []*rootfs.Layer
	for i, data := range tars {
		var blob bytes.Buffer
		if _, err := layerfmt.Encode(&blob, bytes.NewReader(data), layerfmt.Options{Jobs: 1}); err != nil {
			t.Fatal(err)
		}
		at, size := bytes.NewReader(blob.Bytes()), int64(blob.Len())
		index, err := layerfmt.ReadTail(at, size, nil)
		if err != nil {
			t.Fatal(err)
		}
		l, err := rootfs.OpenLayer(fmt.Sprint("layer", i), at, size, index, cache)
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, l)
	}
	v, err := rootfs.NewView("sha256:"+strings.Repeat("0", 64), layers)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestTarHoldsTheMergedRoot(t *testing.T) {
	var one, two bytes.Buffer
	for _, to := range []*bytes.Buffer{&one, &two} {
		if err := export.Tar(to, root(t)); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("the same root gave two different tars")
	}
	const want = `5 ./ 0755 0:0
5 ./dev/ 0755 0:0
3 ./dev/null 0666 0:0 1,3
6 ./pipe 0620 0:0
2 ./sbin 0777 0:0 -> usr/sbin
5 ./usr/ 0555 0:7
0 ./usr/ping 04755 0:0 "bbbb" user.note="x\x00y"
1 ./usr/ping6 04755 0:0 -> ./usr/ping
0 ./usr/secret 0600 1000:1001 "bbbb"
`
	if got := readBack(t, &one); got != want {
		t.Errorf("the tar holds\n%swant\n%s", got, want)
	}
}

func readBack(t *testing.T, r io.Reader) string {
	t.Helper()
	var b strings.Builder
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return b.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.Equal(when) {
			t.Errorf("%s has the time %s", h.Name, h.ModTime)
		}
		fmt.Fprintf(&b, "%c %s %#o %d:%d", h.Typeflag, h.Name, h.Mode, h.Uid, h.Gid)
		body, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		switch h.Typeflag {
		case tar.TypeReg:
			fmt.Fprintf(&b, " %q", body)
		case tar.TypeLink, tar.TypeSymlink:
			fmt.Fprintf(&b, " -> %s", h.Linkname)
		case tar.TypeChar:
			fmt.Fprintf(&b, " %d,%d", h.Devmajor, h.Devminor)
		}
		if note, ok := h.PAXRecords["SCHILY.xattr.user.note"]; ok {
			fmt.Fprintf(&b, " user.note=%q", note)
		}
		b.WriteByte('\n')
	}
}

func TestFolderHasOwnersModesAndLinks(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("skipped: owners need root")
	}
	to := filepath.Join(t.TempDir(), "root")
	if err := export.Dir(to, root(t)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"dev/null":   "20666 0:0 links 1",
		"pipe":       "10620 0:0 links 1",
		"usr":        "40555 0:7 links 2",
		"usr/ping":   "104755 0:0 links 2",
		"usr/secret": "100600 1000:1001 links 1",
	} {
		var st syscall.Stat_t
		if err := syscall.Lstat(filepath.Join(to, name), &st); err != nil {
			t.Error(err)
			continue
		}
		if got := fmt.Sprintf("%o %d:%d links %d", st.Mode, st.Uid, st.Gid, st.Nlink); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
		if info, err := os.Lstat(filepath.Join(to, name)); err != nil || info.ModTime().Unix() != when.Unix() {
			t.Errorf("%s has another time: %v", name, err)
		}
	}
	if target, err := os.Readlink(filepath.Join(to, "sbin")); target != "usr/sbin" {
		t.Errorf("sbin leads to %q: %v", target, err)
	}
	if _, err := os.Lstat(filepath.Join(to, "gone")); err == nil {
		t.Error("a file that an upper layer removed is there")
	}
}
