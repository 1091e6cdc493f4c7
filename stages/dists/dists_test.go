package dists

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rhizome/pipeline/layer"
	"rhizome/pipeline/tree"
)

// release makes a folder of sets as a FreeBSD release has them.
func release(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	base := tree.New()
	add(t, base,
		tree.Entry{Path: "sbin/init", Kind: tree.File, Mode: 0o500, Flags: "schg", Body: tree.Text("init")},
		tree.Entry{Path: "usr/bin/passwd", Kind: tree.File, Mode: 0o4555, Body: tree.Text("passwd")},
		tree.Entry{Path: "usr/bin/yppasswd", Kind: tree.File, Link: "usr/bin/passwd"},
		tree.Entry{Path: "etc/motd", Kind: tree.File, Mode: 0o644, Body: tree.Text("of base")})
	kernel := tree.New()
	add(t, kernel, tree.Entry{Path: "boot/kernel/kernel", Kind: tree.File, Mode: 0o555, Body: tree.Text(strings.Repeat("k", 100_000))})
	var manifest string
	for name, tr := range map[string]*tree.Tree{"base": base, "kernel": kernel} {
		manifest += writeSet(t, dir, name, tr)
	}
	write(t, filepath.Join(dir, "MANIFEST"), manifest)
	return dir
}

func add(t testing.TB, tr *tree.Tree, entries ...tree.Entry) {
	t.Helper()
	for _, e := range entries {
		if err := tr.Add(e); err != nil {
			t.Fatal(err)
		}
	}
}

func write(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func writeSet(t testing.TB, dir, name string, tr *tree.Tree) string {
	t.Helper()
	if err := tr.Normalize(); err != nil {
		t.Fatal(err)
	}
	var tar bytes.Buffer
	if err := layer.WriteTar(&tar, tr, time.Unix(0, 0)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("xz", "--stdout")
	cmd.Stdin = &tar
	out, err := cmd.Output()
	if err != nil {
		t.Skip("skipped: xz is not installed: ", err)
	}
	write(t, filepath.Join(dir, name+".txz"), string(out))
	return fmt.Sprintf("%s.txz\t%s\t%d\t%s\t\"A set\"\ton\n", name, sumText(out), tr.Len(), name)
}

func TestSetsBecomeOneTreeWithFlagsAndLinks(t *testing.T) {
	d := Dists{From: release(t), Sets: []string{"base", "kernel"}}
	got, err := d.Tree(t.Context(), Env{Work: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if e := got.Lookup("sbin/init"); e == nil || e.Flags != "schg" || e.Mode != 0o500 {
		t.Errorf("sbin/init is %+v, want mode 0500 and schg", e)
	}
	if e := got.Lookup("usr/bin/yppasswd"); e == nil || e.Link != "usr/bin/passwd" || e.Mode != 0o4555 {
		t.Errorf("usr/bin/yppasswd is %+v, want a hard link of mode 4555", e)
	}
	if e := got.Lookup("boot/kernel/kernel"); e == nil || e.Size() != 100_000 {
		t.Errorf("the kernel is %+v, want 100,000 bytes", e)
	}
}

func TestTheLibraryAndXZReadTheSame(t *testing.T) {
	dir := release(t)
	var ours, theirs bytes.Buffer
	file := filepath.Join(dir, "kernel.txz")
	if err := decompressHere(t.Context(), file, &ours); err != nil {
		t.Fatal(err)
	}
	if err := decompress(t.Context(), file, &theirs); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(ours.Bytes(), theirs.Bytes()) {
		t.Error("xz(1) and the library decompress the same file to different bytes")
	}
}

func TestInputsNameSumsAndNoPlaces(t *testing.T) {
	a, b := release(t), release(t)
	one, err := Dists{From: a, Sets: []string{"base"}}.Inputs(t.Context(), Env{})
	if err != nil {
		t.Fatal(err)
	}
	two, err := Dists{From: b, Sets: []string{"base"}}.Inputs(t.Context(), Env{})
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(one) != fmt.Sprint(two) || strings.Contains(fmt.Sprint(one), a) {
		t.Errorf("the same set in two folders has the inputs %v and %v", one, two)
	}
}

func TestWrongSetsAreRefused(t *testing.T) {
	damaged := release(t)
	write(t, filepath.Join(damaged, "base.txz"), "not what it was")
	unlisted := release(t)
	broken := release(t)
	write(t, filepath.Join(broken, "MANIFEST"), "base.txz no-sum\n")
	for name, c := range map[string]struct {
		d    Dists
		want string
	}{
		"damaged set":      {Dists{From: damaged, Sets: []string{"base"}}, "but the MANIFEST says"},
		"other manifest":   {Dists{From: unlisted, Sets: []string{"base"}, Manifest: strings.Repeat("0", 64)}, "the recipe wants 0000"},
		"unlisted set":     {Dists{From: unlisted, Sets: []string{"games"}}, `lists no set "games"; it has base, kernel`},
		"no set":           {Dists{From: unlisted}, "no release set is named"},
		"broken manifest":  {Dists{From: broken, Sets: []string{"base"}}, "MANIFEST line 1"},
		"no folder":        {Dists{From: "/nonexistent", Sets: []string{"base"}}, "no such file"},
		"network, no hand": {Dists{From: "https://example.org/sets", Sets: []string{"base"}}, "nothing here fetches"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.d.Tree(t.Context(), Env{Work: t.TempDir()})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestASetIsFetchedOnceAndNeverHalf(t *testing.T) {
	dir, cache := release(t), t.TempDir()
	fetched := 0
	get := func(_ context.Context, url string) (io.ReadCloser, error) {
		fetched++
		return os.Open(filepath.Join(dir, filepath.Base(url)))
	}
	d := Dists{From: "https://example.org/sets/", Sets: []string{"base"}}
	for range 2 {
		if _, err := d.Tree(t.Context(), Env{Work: t.TempDir(), Cache: cache, Get: get}); err != nil {
			t.Fatal(err)
		}
	}
	if fetched != 3 { // MANIFEST twice, the set once
		t.Errorf("%d fetches, want 3", fetched)
	}
	broken := func(_ context.Context, url string) (io.ReadCloser, error) {
		f, err := os.Open(filepath.Join(dir, filepath.Base(url)))
		if err == nil && strings.HasSuffix(url, ".txz") {
			return struct {
				io.Reader
				io.Closer
			}{io.LimitReader(f, 20), f}, nil
		}
		return f, err
	}
	empty := t.TempDir()
	if _, err := d.Tree(t.Context(), Env{Work: t.TempDir(), Cache: empty, Get: broken}); err == nil {
		t.Error("a set that came half was used")
	}
	if left, _ := os.ReadDir(empty); len(left) != 0 {
		t.Errorf("a broken fetch left %v", left)
	}
}

func TestCancellingStopsUnpacking(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Dists{From: release(t), Sets: []string{"base"}}.Tree(ctx, Env{Work: t.TempDir()})
	if err == nil || ctx.Err() == nil {
		t.Errorf("got %v, want a cancelled context's error", err)
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add("base.txz\t" + strings.Repeat("a", 64) + "\t1\tbase\n")
	f.Fuzz(func(t *testing.T, text string) {
		sets, err := ParseManifest(text)
		if err != nil {
			return
		}
		for name, s := range sets {
			if len(s.SHA256) != 64 || strings.ContainsAny(s.File, "/\\") || name == "" && s.File != ".txz" {
				t.Errorf("%q gives the set %q: %+v", text, name, s)
			}
		}
	})
}
