package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"rhizome/pipeline/tree"
)

// A node with too little memory takes the front of the tar and stops: what it
// has must stand by itself, and hide nothing that it has not got.
func TestTheHottestComeFirstAndADirectoryIsClosedLast(t *testing.T) {
	tr := tree.New()
	for _, e := range []tree.Entry{
		{Path: "usr", Kind: tree.Dir, Mode: 0o755},
		{Path: "usr/bin", Kind: tree.Dir, Mode: 0o755, Opaque: true},
		{Path: "usr/bin/a", Kind: tree.File, Body: tree.Text("a")},
		{Path: "usr/bin/b", Kind: tree.File, Link: "usr/bin/a"},
		{Path: "usr/bin/sub", Kind: tree.Dir, Opaque: true},
		{Path: "usr/bin/sub/z", Kind: tree.File, Body: tree.Text("z")},
		{Path: "usr/lib/libc", Kind: tree.File, Body: tree.Text("c")},
	} {
		if err := tr.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	r, err := newTarReader(tr, time.Unix(1, 0), []string{"usr/lib/libc", "usr/bin/b", "usr/bin/sub", "nowhere"})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var got []string
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, h.Name)
	}
	want := "usr/ usr/lib/libc usr/bin/ usr/bin/a usr/bin/b usr/bin/sub/ usr/bin/sub/z usr/bin/sub/.wh..wh..opq usr/bin/.wh..wh..opq"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("the tar's order is\n%s\nwant\n%s", s, want)
	}
	var blob bytes.Buffer
	if _, err := WriteFirst(&blob, tr, []string{"usr/lib/libc"}, time.Unix(1, 0), 1); err != nil {
		t.Fatal(err)
	}
	back, err := ReadTree(bytes.NewReader(blob.Bytes()), int64(blob.Len()), nil)
	if err != nil {
		t.Fatal(err)
	}
	compareTrees(t, tr, back)
}
