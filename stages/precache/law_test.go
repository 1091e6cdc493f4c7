package precache

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"rhizome/pipeline/layer"
	"rhizome/pipeline/tree"
	"rhizome/registry/layerfmt"
	"rhizome/serve/rootfs"
)

var epoch = time.Unix(1700000000, 0)

// randomLayer makes a layer of few names, so that layers meet in every way:
// links that lose a name, folders over files, whiteouts, paths through
// symlinks of lower layers.
func randomLayer(r *rand.Rand, lowest bool) *tree.Tree {
	t := tree.New()
	names := []string{"a", "b", "c", "a/x", "a/y", "b/x", "b/x/z", "c/x", "a/d/e", "a/d/f"}
	var files []string
	for range 3 + r.IntN(9) {
		e := tree.Entry{Path: names[r.IntN(len(names))], Mode: []uint32{0o755, 0o644, 0o600}[r.IntN(3)], UID: uint32(r.IntN(2))}
		switch r.IntN(8) {
		case 0:
			e.Kind = tree.Dir
			e.Opaque = !lowest && r.IntN(4) == 0
		case 1:
			e.Kind, e.Target = tree.Symlink, []string{"a", "b", "/c", "nowhere"}[r.IntN(4)]
		case 2:
			if e.Kind = tree.Whiteout; lowest {
				e.Kind = tree.Fifo
			}
		case 3, 4:
			e.Kind = tree.File
			if len(files) > 0 {
				e.Link = files[r.IntN(len(files))]
			}
		default:
			e.Kind, e.Body = tree.File, tree.Text([]string{"", "one", "two", strings.Repeat("three", 2000)}[r.IntN(4)])
		}
		t = try(t, e)
		files = nil
		for _, f := range t.Entries() {
			if f.Kind == tree.File {
				files = append(files, f.Path)
			}
		}
	}
	return t
}

// try adds an entry, unless the tree would not be one afterwards.
func try(t *tree.Tree, e tree.Entry) *tree.Tree {
	after := rewrite(t, func(*tree.Entry) {})
	if e.Link == e.Path || after.Add(e) != nil || after.Normalize() != nil {
		return t
	}
	return after
}

// blob is a tree as a layer that is served.
func blob(t *testing.T, tr *tree.Tree, order []string) *rootfs.Layer {
	t.Helper()
	var b bytes.Buffer
	write := layer.Write
	if order != nil {
		write = nil
	}
	var err error
	if write != nil {
		_, err = write(&b, tr, epoch, 1)
	} else {
		_, err = layer.WriteFirst(&b, tr, order, epoch, 1)
	}
	if err != nil {
		t.Fatal(err)
	}
	index, err := layerfmt.ReadTail(bytes.NewReader(b.Bytes()), int64(b.Len()), nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := rootfs.OpenLayer(fmt.Sprint(b.Len()), bytes.NewReader(b.Bytes()), int64(b.Len()), index, rootfs.NewCache(8<<20))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// show is all that a client can see of a view, but for numbers.
func show(t *testing.T, v *rootfs.View) string {
	t.Helper()
	var b strings.Builder
	err := v.Walk("/", func(p string, f rootfs.File, a rootfs.Attr) error {
		e, err := v.Entry(f)
		a.FileID = 0
		fmt.Fprintf(&b, "%s %+v %x %s %s\n", p, a, e.Digest[:4], e.Target, e.Xattrs)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func listing(tr *tree.Tree) string {
	var b strings.Builder
	for _, e := range tr.Entries() {
		fmt.Fprintf(&b, "  %s %s %o %d link=%q target=%q opaque=%v implied=%v size=%d %v\n", e.Path, e.Kind, e.Mode, e.UID, e.Link, e.Target, e.Opaque, e.Implied, e.Size(), e.Xattrs)
	}
	return b.String()
}

// stack is a case of the law: layers, those that only some nodes have among
// them, a node's own on top, and what is wished for.
type stack struct {
	layers []Layer
	own    *tree.Tree
	wish   Wish
}

func randomStack(r *rand.Rand) stack {
	s := stack{own: randomLayer(r, false)}
	for i := range 1 + r.IntN(4) {
		s.layers = append(s.layers, Layer{Name: fmt.Sprint(i), Tree: randomLayer(r, i == 0), Apart: i > 0 && r.IntN(4) == 0})
	}
	wishes := []string{"/a", "/b", "/a/x", "/b/x/z", "/*/x", "/**", "/a/d", "/c", "/gone"}
	for range 1 + r.IntN(3) {
		s.wish.Learned = append(s.wish.Learned, wishes[r.IntN(len(wishes))])
	}
	if r.IntN(4) == 0 {
		s.wish.Limit = int64(1 + r.IntN(20000))
	}
	return s
}

// The law: whatever is moved into the bundle, every node's root stays as it
// was; and a bundle that is laid over a node's root changes nothing of it.
func TestARootIsTheSameWithAndWithoutItsBundle(t *testing.T) {
	divided := 0
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 3))
		s := randomStack(r)
		d, err := Divide(s.layers, []*tree.Tree{s.own}, s.wish)
		if err != nil {
			continue // nothing of the list is there
		}
		divided++
		for _, withApart := range []bool{true, false} {
			before, after, ok := views(t, s, d, withApart)
			if !ok {
				continue
			}
			was, is := show(t, before), show(t, after)
			over, err := rootfs.NewView("sha256:3", append(append([]*rootfs.Layer{}, before.Layers()...), blob(t, d.Hot, d.Order)))
			if err != nil {
				t.Fatal(seed, err)
			}
			if laid := show(t, over); was != is || was != laid {
				for _, l := range s.layers {
					t.Logf("layer %s apart=%v\n%s", l.Name, l.Apart, listing(l.Tree))
				}
				t.Fatalf("seed %d: the wish %+v\nown\n%s\nhot\n%s\nwas\n%s\nis\n%s\nlaid over the node's root\n%s", seed, s.wish, listing(s.own), listing(d.Hot), was, is, laid)
			}
		}
		restored(t, seed, s, d)
	}
	if divided < 100 {
		t.Errorf("only %d of the cases had anything to divide", divided)
	}
}

// views are a node's root without and with the bundle.
func views(t *testing.T, s stack, d *Division, withApart bool) (before, after *rootfs.View, ok bool) {
	t.Helper()
	var plain, split []*rootfs.Layer
	for i, l := range s.layers {
		if l.Apart && !withApart {
			continue
		}
		plain = append(plain, blob(t, l.Tree, nil))
		cold := l.Tree
		if d.Cold[i] != nil {
			cold = d.Cold[i]
		}
		split = append(split, blob(t, cold, nil))
	}
	split = append(split, blob(t, d.Hot, d.Order))
	own := blob(t, s.own, nil)
	before, err := rootfs.NewView("sha256:1", append(plain, own))
	if err != nil {
		return nil, nil, false // three ways into one directory, say: no image at all
	}
	if after, err = rootfs.NewView("sha256:2", append(split, own)); err != nil {
		t.Fatal(err)
	}
	return before, after, true
}

// restored checks that a divided layer can be made whole, and that no body
// lies in two places.
func restored(t *testing.T, seed uint64, s stack, d *Division) {
	t.Helper()
	for i, cold := range d.Cold {
		if cold == nil {
			continue
		}
		whole, err := Restore(cold, d.Hot)
		if err != nil {
			t.Fatal(seed, err)
		}
		if same, err := tree.Equal(whole, s.layers[i].Tree); !same || err != nil {
			t.Fatalf("seed %d: %v: layer %d was\n%s\nand is restored as\n%s", seed, err, i, listing(s.layers[i].Tree), listing(whole))
		}
		for _, e := range cold.Entries() {
			if e.Xattrs[Moved] != "" && e.Size() > 0 {
				t.Fatalf("seed %d: the body of %s is in layer %d and in the bundle", seed, e.Path, i)
			}
		}
	}
}
