package precache

import (
	"slices"
	"strings"
	"testing"

	"rhizome/pipeline/tree"
)

// layerOf makes a layer of lines: "usr/bin/sh 4096" is a file of so many
// bytes, "lib -> usr/lib" a symlink, "a = b" a hard link, "usr/" a folder.
func layerOf(t *testing.T, lines ...string) *tree.Tree {
	t.Helper()
	out := tree.New()
	for _, l := range lines {
		f := strings.Fields(l)
		e := tree.Entry{Path: f[0], Kind: tree.File, Mode: 0o755}
		switch {
		case strings.HasSuffix(f[0], "/"):
			e.Kind = tree.Dir
		case len(f) == 3 && f[1] == "->":
			e.Kind, e.Target = tree.Symlink, f[2]
		case len(f) == 3 && f[1] == "=":
			e.Link = f[2]
		case len(f) == 2 && f[1] == "secret":
			e.Mode, e.Body = 0o600, tree.Text("secret")
		case len(f) == 2:
			e.Body = tree.Text(strings.Repeat("x", len(f[1])))
		}
		if err := out.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func hotPaths(d *Division) string {
	var out []string
	for _, e := range d.Hot.Entries() {
		if e.Kind != tree.Dir {
			out = append(out, e.Path)
		}
	}
	return strings.Join(out, " ")
}

func TestWhatTheListMeans(t *testing.T) {
	base := layerOf(t, "bin -> usr/bin", "usr/bin/[ x", "usr/bin/sh -> dash", "usr/bin/dash xxx", "usr/bin/perl xxxx", "usr/bin/perl5 = usr/bin/perl",
		"usr/lib/a/one x", "usr/lib/a/two x", "usr/lib/b/three.so x", "usr/lib/b/empty/")
	for _, c := range []struct{ name, list, want string }{
		{"a file comes with the symlinks that lead to it", "/bin/sh", "bin usr/bin/dash usr/bin/sh"},
		{"a file has all its names or none", "/usr/bin/perl5", "usr/bin/perl usr/bin/perl5"},
		{"a folder is all below it", "/usr/lib/a", "usr/lib/a/one usr/lib/a/two"},
		{"a name is a name before it is a glob", "/usr/bin/[", "usr/bin/["},
		{"a glob", "/usr/lib/**/t*", "usr/lib/a/two usr/lib/b/three.so"},
	} {
		d, err := Divide([]Layer{{Name: "base", Tree: base}}, nil, Wish{Paths: strings.Fields(c.list)})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if got := hotPaths(d); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestAFolderThatIsThereWholeHidesWhatLiesBelow(t *testing.T) {
	base := layerOf(t, "usr/lib/a/one x", "usr/lib/a/two x", "usr/lib/a/c/deep x", "usr/lib/b/three x", "etc/conf/x x")
	own := layerOf(t, "etc/conf/hostname x")
	d, err := Divide([]Layer{{Name: "base", Tree: base}}, []*tree.Tree{own}, Wish{Paths: []string{"/usr/lib/a", "/etc/conf"}})
	if err != nil {
		t.Fatal(err)
	}
	var opaque []string
	for _, e := range d.Hot.Entries() {
		if e.Opaque {
			opaque = append(opaque, e.Path)
		}
	}
	if got := strings.Join(opaque, " "); got != "usr/lib/a usr/lib/a/c" {
		t.Errorf("opaque are %q; a node's own folder must stay open", got)
	}
	if got := strings.Join(d.Folders, " "); got != "/usr /etc" {
		t.Errorf("the bundle lies over %q", got)
	}
}

func TestTheLimitLeavesOutTheColdest(t *testing.T) {
	base := layerOf(t, "a x", "b x", "c x")
	d, err := Divide([]Layer{{Name: "base", Tree: base}}, nil, Wish{Learned: []string{"/c", "/gone", "/a", "/b"}, Limit: 2 * Cost(1)})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(d.Order, " "); got != "c a" || d.Memory != 2*Cost(1) || !slices.Equal(d.Over, []string{"b"}) || !slices.Equal(d.Gone, []string{"/gone"}) {
		t.Errorf("hot %q in %d bytes, over %v, gone %v", got, d.Memory, d.Over, d.Gone)
	}
}

func TestWhatNotEverybodyMayReadIsSaid(t *testing.T) {
	base := layerOf(t, "etc/passwd x", "etc/shadow secret")
	for list, want := range map[string]bool{"/etc/passwd": false, "/etc": true} {
		d, err := Divide([]Layer{{Name: "base", Tree: base}}, nil, Wish{Paths: []string{list}})
		if err != nil || d.Private != want {
			t.Errorf("%s: private is %v, %v", list, d.Private, err)
		}
	}
}

func TestFreeBSDHoldsWholeFolders(t *testing.T) {
	base := layerOf(t, "usr/bin/a x", "usr/bin/b x", "usr/lib/c x", "etc/rc x")
	own := layerOf(t, "etc/rc.conf x")
	d, err := Divide([]Layer{{Name: "base", Tree: base}}, []*tree.Tree{own}, Wish{Paths: []string{"/usr/lib", "/usr/bin"}, Folders: true, Limit: 3 * Cost(1)})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(d.Folders, " "); got != "/usr/lib" || hotPaths(d) != "usr/lib/c" {
		t.Errorf("folders %q, hot %q: a folder that the limit cuts must be left out", got, hotPaths(d))
	}
	for _, e := range d.Hot.Entries() {
		if e.Opaque {
			t.Errorf("%s is opaque: tarfs would show the marker as a file", e.Path)
		}
	}
	for list, want := range map[string]string{
		"/usr/bin/a": `the path "/usr/bin/a" is no folder`,
		"/etc":       `the folder "/etc" cannot be held whole, for "/etc/rc.conf" differs between nodes`,
	} {
		_, err := Divide([]Layer{{Name: "base", Tree: base}}, []*tree.Tree{own}, Wish{Paths: []string{list}, Folders: true})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", list, err)
		}
	}
}

func TestAPathThatIsNowhereIsAnError(t *testing.T) {
	layers := []Layer{{Name: "base", Tree: layerOf(t, "usr/bin/a x")}, {Name: "files", Tree: layerOf(t, "etc/some x"), Apart: true}}
	for list, want := range map[string]string{
		"/usr/bin/b": `the path "/usr/bin/b" is in no layer that all nodes have; correct it`,
		"/usr/*/q*":  `the path "/usr/*/q*" is in no layer`,
		"/etc/some":  "it is one of a node's own files, or of a stage that is not for all nodes",
	} {
		_, err := Divide(layers, nil, Wish{Paths: []string{list}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", list, err)
		}
	}
	if _, err := Divide(layers, nil, Wish{Learned: []string{"/nowhere"}}); err == nil || !strings.Contains(err.Error(), "1 path(s) are in no layer") {
		t.Errorf("a list of nothing: %v", err)
	}
}
