package rootfs

import (
	"archive/tar"
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"rhizome/registry/layerfmt"
)

// ent is one tar entry of a test's layer.
type ent struct {
	path string // "a/" is a directory
	body string
	link string // symlink
	hard string // hard link
	mode int64
}

func (e ent) header() *tar.Header {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: e.path, Size: int64(len(e.body)), Mode: 0o644, ModTime: time.Unix(1000, 0)}
	switch {
	case strings.HasSuffix(e.path, "/"):
		h.Typeflag, h.Mode = tar.TypeDir, 0o755
	case e.link != "":
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, e.link, 0o777
	case e.hard != "":
		h.Typeflag, h.Linkname = tar.TypeLink, e.hard
	}
	if e.mode != 0 {
		h.Mode = e.mode
	}
	return h
}

func tarOf(t testing.TB, entries []ent) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if err := w.WriteHeader(e.header()); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// blobOf encodes a tar.
func blobOf(t testing.TB, stream []byte) ([]byte, layerfmt.Summary) {
	t.Helper()
	var b bytes.Buffer
	s, err := layerfmt.Encode(&b, bytes.NewReader(stream), layerfmt.Options{Jobs: 1})
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), s
}

func openLayer(t testing.TB, c *Cache, blob []byte, digest string) *Layer {
	t.Helper()
	index, err := layerfmt.ReadTail(bytes.NewReader(blob), int64(len(blob)), nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := OpenLayer(digest, bytes.NewReader(blob), int64(len(blob)), index, c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func layerOf(t testing.TB, c *Cache, entries ...ent) *Layer {
	t.Helper()
	blob, s := blobOf(t, tarOf(t, entries))
	return openLayer(t, c, blob, s.Digest.String())
}

func viewOf(t testing.TB, layers ...*Layer) *View {
	t.Helper()
	v, err := NewView("sha256:"+strings.Repeat("ab", 32), layers)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// listing writes a view as one line a path: what a client would see.
func listing(t testing.TB, v *View) []string {
	t.Helper()
	var out []string
	err := v.Walk("/", func(p string, f File, a Attr) error {
		line := fmt.Sprintf("%s %s %04o %d", p, a.Kind, a.Mode, a.Nlink)
		switch a.Kind {
		case Regular:
			body := make([]byte, a.Size)
			if n, err := v.ReadAt(f, body, 0); n != len(body) || err != nil {
				return fmt.Errorf("reading %s: %d, %w", p, n, err)
			}
			line += " " + string(body)
		case Symlink:
			text, err := v.Readlink(f)
			if err != nil {
				return err
			}
			line += " -> " + text
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
