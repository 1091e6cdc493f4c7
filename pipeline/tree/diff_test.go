package tree

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

func mustAdd(t testing.TB, tr *Tree, entries ...Entry) *Tree {
	t.Helper()
	for _, e := range entries {
		if err := tr.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	return tr
}

// listing is a tree as text, a line an entry, for messages.
func listing(t testing.TB, tr *Tree) string {
	t.Helper()
	var b strings.Builder
	for _, e := range tr.Entries() {
		body := ""
		if x, ok := e.Body.(Text); ok {
			body = string(x)
		}
		fmt.Fprintf(&b, "%s %s %o %d:%d link=%q target=%q xattrs=%v opaque=%v implied=%v body=%q\n",
			e.Path, e.Kind, e.Mode, e.UID, e.GID, e.Link, e.Target, e.Xattrs, e.Opaque, e.Implied, body)
	}
	return b.String()
}

func clone(t testing.TB, tr *Tree) *Tree {
	t.Helper()
	c := New()
	for p, e := range tr.entries {
		x := *e
		c.entries[p] = &x
	}
	return c
}

// randomTree makes a root of few names, so that two of them meet in every way:
// files over folders, links that change sides, modes that differ.
func randomTree(t testing.TB, r *rand.Rand) *Tree {
	tr := New()
	names := []string{"a", "b", "c", "a/x", "a/y", "b/x", "b/x/z", "c/x"}
	var files []string
	for range 3 + r.IntN(8) {
		p := names[r.IntN(len(names))]
		e := Entry{Path: p, Mode: []uint32{0o755, 0o644}[r.IntN(2)], UID: uint32(r.IntN(2))}
		switch r.IntN(6) {
		case 0:
			e.Kind = Dir
		case 1:
			e.Kind, e.Target = Symlink, names[r.IntN(2)]
		case 2:
			e.Kind, e.Major = CharDevice, uint32(r.IntN(2))
		case 3:
			e.Kind = File
			if len(files) > 0 {
				e.Link = files[r.IntN(len(files))]
			}
		default:
			e.Kind, e.Body = File, Text([]string{"one", "two", "three"}[r.IntN(3)])
		}
		try(tr, e)
		files = nil
		for q, f := range tr.entries {
			if f.Kind == File {
				files = append(files, q)
			}
		}
	}
	return tr
}

// try adds an entry unless the tree would not be one afterwards.
func try(tr *Tree, e Entry) {
	before := map[string]*Entry{}
	for p, x := range tr.entries {
		before[p] = x
	}
	if e.Link == e.Path {
		e.Link = ""
	}
	if tr.Add(e) != nil || tr.Normalize() != nil {
		tr.entries = before
	}
}

// The law of Diff: laid over the lower tree it gives the upper one, and there
// is nothing in it when the two are the same.
func TestALowerTreeWithItsDifferenceIsTheUpperOne(t *testing.T) {
	for seed := range uint64(4000) {
		r := rand.New(rand.NewPCG(seed, 1))
		lower, upper := randomTree(t, r), randomTree(t, r)
		before, want := listing(t, lower), listing(t, upper)
		d, err := Diff(lower, upper)
		if err != nil {
			t.Fatal(seed, err)
		}
		got := clone(t, lower)
		if err := got.Merge(d); err != nil {
			t.Fatal(seed, err)
		}
		if same, err := Equal(got, upper); !same || err != nil {
			t.Fatalf("seed %d, %v:\nlower\n%s\nupper\n%s\ndiff\n%s\nmerged\n%s", seed, err, before, want, listing(t, d), listing(t, got))
		}
		if d, err := Diff(upper, got); err != nil || d.Len() != 1 {
			t.Fatalf("seed %d: equal trees differ by\n%s%v", seed, listing(t, d), err)
		}
	}
}

// The law of Stack: two layers made one hide and show the same.
func TestAStackOfLayersIsTheLayersInOrder(t *testing.T) {
	for seed := range uint64(4000) {
		r := rand.New(rand.NewPCG(seed, 2))
		base, one, two := randomTree(t, r), randomTree(t, r), randomTree(t, r)
		a, err := Diff(base, one)
		if err != nil {
			t.Fatal(seed, err)
		}
		b, err := Diff(one, two)
		if err != nil {
			t.Fatal(seed, err)
		}
		if r.IntN(3) == 0 {
			for _, e := range b.entries {
				e.Opaque = e.Kind == Dir && !e.Implied && e.Path != "." && r.IntN(2) == 0
			}
		}
		want := clone(t, base)
		stack := clone(t, a)
		for _, err := range []error{want.Merge(a), want.Merge(b), stack.Stack(b)} {
			if err != nil {
				t.Fatal(seed, err)
			}
		}
		got := clone(t, base)
		if err := got.Merge(stack); err != nil {
			t.Fatal(seed, err)
		}
		if same, err := Equal(got, want); !same || err != nil {
			t.Fatalf("seed %d, %v:\nbase\n%s\nfirst\n%s\nsecond\n%s\nstack\n%s\nwant\n%s\ngot\n%s", seed, err,
				listing(t, base), listing(t, a), listing(t, b), listing(t, stack), listing(t, want), listing(t, got))
		}
	}
}

func TestWhatAnUpdateChangesIsAllThatADifferenceHolds(t *testing.T) {
	lower := mustAdd(t, New(),
		Entry{Path: "etc", Kind: Dir, Mode: 0o755}, Entry{Path: "etc/same", Kind: File, Mode: 0o644, Body: Bytes("s")},
		Entry{Path: "etc/mode", Kind: File, Mode: 0o644}, Entry{Path: "etc/text", Kind: File, Mode: 0o644, Body: Text("old")},
		Entry{Path: "usr/lib/libx.so.1", Kind: File, Mode: 0o644, Body: Text("one")},
		Entry{Path: "usr/share/gone/deep/file", Kind: File, Mode: 0o644},
		Entry{Path: "usr/cap", Kind: File, Mode: 0o755, Xattrs: map[string]string{"security.capability": "a"}},
	)
	upper := mustAdd(t, New(),
		Entry{Path: "etc", Kind: Dir, Mode: 0o755}, Entry{Path: "etc/same", Kind: File, Mode: 0o644, Body: Text("s")},
		Entry{Path: "etc/mode", Kind: File, Mode: 0o600}, Entry{Path: "etc/text", Kind: File, Mode: 0o644, Body: Text("new")},
		Entry{Path: "usr/lib/libx.so.2", Kind: File, Mode: 0o644, Body: Text("one")},
		Entry{Path: "usr/share", Kind: Dir, Mode: 0o755},
		Entry{Path: "usr/cap", Kind: File, Mode: 0o755, Xattrs: map[string]string{"security.capability": "b"}},
	)
	d, err := Diff(lower, upper)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range d.Entries() {
		if !e.Implied {
			got = append(got, e.Path+" "+e.Kind.String())
		}
	}
	want := "etc/mode file; etc/text file; usr/cap file; usr/lib/libx.so.1 whiteout; usr/lib/libx.so.2 file; usr/share/gone whiteout"
	if s := strings.Join(got, "; "); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
}

func TestAFileOutlivesTheNameItWasLinkedTo(t *testing.T) {
	lower := mustAdd(t, New(), Entry{Path: "a", Kind: File, Body: Text("body")}, Entry{Path: "b", Kind: File, Link: "a"}, Entry{Path: "c", Kind: File, Link: "a"})
	upper := mustAdd(t, New(), Entry{Path: "a", Kind: File, Body: Text("other")})
	if err := lower.Merge(upper); err != nil {
		t.Fatal(err)
	}
	b, c := lower.Lookup("b"), lower.Lookup("c")
	if b.Link != "" || b.Body != Text("body") || c.Link != "b" {
		t.Errorf("b %+v, c %+v", b, c)
	}
}

// A layer whose file lies below a path that is a symlink in the root, /lib of a
// merged Debian, puts it where the symlink leads. A folder in the symlink's place
// once hid the loader and every library from scripts that ran over the root.
func TestAFileBelowASymlinkOfTheRootGoesWhereItLeads(t *testing.T) {
	root := func() *Tree {
		return mustAdd(t, New(),
			Entry{Path: "usr/lib/ld.so", Kind: File, Mode: 0o755}, Entry{Path: "usr/lib/gone", Kind: File, Mode: 0o644},
			Entry{Path: "lib", Kind: Symlink, Target: "usr/lib"}, Entry{Path: "lib64", Kind: Symlink, Target: "/lib"},
			Entry{Path: "away", Kind: Symlink, Target: "nowhere"})
	}
	over := mustAdd(t, New(),
		Entry{Path: "lib/firmware/x", Kind: File, Mode: 0o644, Body: Text("x")}, Entry{Path: "lib/firmware/y", Kind: File, Link: "lib/firmware/x"},
		Entry{Path: "lib/gone", Kind: Whiteout}, Entry{Path: "lib64/z", Kind: File, Mode: 0o644}, Entry{Path: "away/w", Kind: File, Mode: 0o644})
	for name, lay := range map[string]func(*Tree) error{
		"merged":  func(r *Tree) error { return r.Merge(over) },
		"stacked": func(r *Tree) error { return r.Stack(over) },
	} {
		r := root()
		if err := lay(r); err != nil {
			t.Fatal(name, err)
		}
		if e := r.Lookup("lib"); e.Kind != Symlink {
			t.Errorf("%s: /lib is a %s now", name, e.Kind)
		}
		for p, want := range map[string]Kind{"usr/lib/ld.so": File, "usr/lib/firmware/x": File, "usr/lib/z": File, "away/w": File} {
			if e := r.Lookup(p); e == nil || e.Kind != want {
				t.Errorf("%s: %s is %+v", name, p, e)
			}
		}
		if e := r.Lookup("usr/lib/firmware/y"); e == nil || e.Link != "usr/lib/firmware/x" {
			t.Errorf("%s: the hard link is %+v", name, e)
		}
		if e := r.Lookup("usr/lib/gone"); e != nil && e.Kind != Whiteout {
			t.Errorf("%s: what was taken away is %+v", name, e)
		}
	}
}

// A folder in the place of a symlink is said to be one, or the symlink would stay.
func TestAFolderThatTakesASymlinksPlaceIsInTheDifference(t *testing.T) {
	lower := mustAdd(t, New(), Entry{Path: "b", Kind: Dir, Mode: 0o755}, Entry{Path: "a", Kind: Symlink, Target: "b"})
	upper := mustAdd(t, New(), Entry{Path: "b", Kind: Dir, Mode: 0o755}, Entry{Path: "a/x", Kind: File, Mode: 0o644})
	d, err := Diff(lower, upper)
	if err != nil {
		t.Fatal(err)
	}
	if e := d.Lookup("a"); e.Kind != Dir || e.Implied {
		t.Errorf("a is %+v", e)
	}
}
