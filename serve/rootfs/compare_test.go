package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
)

// changesText writes a comparison as a line a path.
func changesText(t testing.TB, a, b *View) []string {
	t.Helper()
	changes, err := Compare(a, b)
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, c := range changes {
		switch {
		case c.Old.Kind == 0:
			out = append(out, "+ "+c.Path)
		case c.New.Kind == 0:
			out = append(out, "- "+c.Path)
		default:
			out = append(out, "~ "+c.Path+" "+strings.Join(c.What(), ","))
		}
	}
	return out
}

func TestCompareNamesWhatDiffers(t *testing.T) {
	c := NewCache(0)
	base := []ent{{path: "etc/"}, {path: "etc/a", body: "one"}, {path: "etc/b", body: "b"}, {path: "etc/l", link: "a"},
		{path: "usr/"}, {path: "usr/lib/"}, {path: "usr/lib/x", body: "x"}, {path: "lib", link: "usr/lib"}}
	for _, test := range []struct {
		what     string
		old, new [][]ent
		want     []string
	}{
		{"nothing", [][]ent{base}, [][]ent{base}, []string{}},
		{"a body of the same length", nil, [][]ent{{{path: "etc/a", body: "two"}}}, []string{"~ /etc/a content"}},
		{"a body of another length", nil, [][]ent{{{path: "etc/a", body: "three"}}}, []string{"~ /etc/a size,content"}},
		{"a mode, and a directory's", nil, [][]ent{{{path: "etc/", mode: 0o700}, {path: "etc/b", body: "b", mode: 0o600}}}, []string{"~ /etc mode", "~ /etc/b mode"}},
		{"a link's target", nil, [][]ent{{{path: "etc/l", link: "b"}}}, []string{"~ /etc/l target"}},
		{"a whiteout", nil, [][]ent{{{path: "etc/.wh.a"}}}, []string{"- /etc/a"}},
		{"a directory with all in it", nil, [][]ent{{{path: "usr/.wh.lib"}}}, []string{"- /usr/lib", "- /usr/lib/x"}},
		{"a directory that becomes a file", nil, [][]ent{{{path: "usr/lib", body: "f"}}}, []string{"~ /usr/lib kind", "- /usr/lib/x"}},
		{"new files", nil, [][]ent{{{path: "opt/"}, {path: "opt/y", body: "y"}}}, []string{"+ /opt", "+ /opt/y"}},
		{"a file put there through a symlink of the base", nil, [][]ent{{{path: "lib/z", body: "z"}}}, []string{"+ /usr/lib/z"}},
		{"the same file again", nil, [][]ent{{{path: "etc/a", body: "one"}}}, []string{}},
		{"a layer less", [][]ent{{{path: "etc/n", body: "n"}}}, nil, []string{"- /etc/n"}},
	} {
		t.Run(test.what, func(t *testing.T) {
			shared := layerOf(t, c, base...)
			again := layerOf(t, c, base...)
			for how, bottom := range map[string]*Layer{"on a shared base": shared, "on a base of its own": again} {
				a, b := []*Layer{shared}, []*Layer{bottom}
				for _, l := range test.old {
					a = append(a, layerOf(t, c, l...))
				}
				for _, l := range test.new {
					b = append(b, layerOf(t, c, l...))
				}
				if got := changesText(t, viewOf(t, a...), viewOf(t, b...)); !slices.Equal(got, test.want) {
					t.Errorf("%s: %q, want %q", how, got, test.want)
				}
			}
		})
	}
}

// TestCompareLooksAtSharedLayersOnlyWhereTheyAreTouched counts: the base has
// 30,000 files, and what the two nodes' layers touch is one directory.
func TestCompareLooksAtSharedLayersOnlyWhereTheyAreTouched(t *testing.T) {
	c := NewCache(0)
	base := layerOf(t, c, manyFiles(30_000)...)
	a := viewOf(t, base, layerOf(t, c, ent{path: "d7/node", body: "1"}))
	b := viewOf(t, base, layerOf(t, c, ent{path: "d7/node", body: "2"}))
	if got := changesText(t, a, b); !slices.Equal(got, []string{"~ /d7/node content"}) {
		t.Fatal(got)
	}
	if n := testing.AllocsPerRun(3, func() { changesText(t, a, b) }); n > 1000 {
		t.Errorf("comparing takes %v allocations: more than the touched directory was read", n)
	}
}

func manyFiles(n int) []ent {
	var all []ent
	for d := range n / 100 {
		all = append(all, ent{path: fmt.Sprintf("d%d/", d)})
		for f := range 100 {
			all = append(all, ent{path: fmt.Sprintf("d%d/f%d", d, f), body: fmt.Sprint(d, f)})
		}
	}
	return all
}

// BenchmarkCompare compares two images of 30,000 files that share no layer:
// the worst case.
func BenchmarkCompare(b *testing.B) {
	c := NewCache(0)
	x, y := viewOf(b, layerOf(b, c, manyFiles(30_000)...)), viewOf(b, layerOf(b, c, manyFiles(30_000)...))
	for b.Loop() {
		if got := changesText(b, x, y); len(got) != 0 {
			b.Fatal(got)
		}
	}
}

func TestMadeByNamesTheTopmostLayerThatDescribes(t *testing.T) {
	c := NewCache(0)
	v := viewOf(t,
		layerOf(t, c, ent{path: "etc/"}, ent{path: "etc/a", body: "a"}, ent{path: "etc/b", body: "b"}, ent{path: "etc/l", link: "a"}),
		layerOf(t, c, ent{path: "etc/a", body: "A"}), // etc is only implied here
		layerOf(t, c, ent{path: "etc/", mode: 0o700}, ent{path: "etc/h", hard: "etc/b"}))
	for path, want := range map[string]int{"/": 0, "/etc": 2, "/etc/a": 1, "/etc/b": 0, "/etc/l": 0, "/etc/h": 2, "etc/../etc/a": 1} {
		if got, err := v.MadeBy(path); err != nil || got != want {
			t.Errorf("%s: layer %d, %v, want %d", path, got, err, want)
		}
	}
	if _, err := v.MadeBy("/etc/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}
