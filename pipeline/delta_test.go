package pipeline

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"rhizome/pipeline/tree"
	"rhizome/registry/imagefmt"

	"github.com/opencontainers/go-digest"
)

// system is a stage that makes a tree of files given by path and text.
type system struct {
	info  Info
	param string
	tree  func() *tree.Tree
}

func (s *system) Info() Info { return s.info }
func (s *system) Inputs(context.Context, Env) (Inputs, error) {
	return Inputs{"version": s.param}, nil
}
func (s *system) Run(context.Context, Env, []*tree.Tree) (Output, error) {
	return Output{Tree: s.tree()}, nil
}

// release is a root of 300 files that do not compress; version n has others in
// place of the first n, and a library under its own name.
func release(t *testing.T, n int) func() *tree.Tree {
	return func() *tree.Tree {
		tr := tree.New()
		add := func(e tree.Entry) {
			if err := tr.Add(e); err != nil {
				t.Error(err)
			}
		}
		add(tree.Entry{Path: "usr", Kind: tree.Dir, Mode: 0o755})
		for i := range 300 {
			seed := uint64(i)
			if i < n {
				seed += 1000 * uint64(n)
			}
			body := make([]byte, 4096)
			r := rand.New(rand.NewPCG(seed, 7))
			for j := range body {
				body[j] = byte(r.Uint32())
			}
			add(tree.Entry{Path: fmt.Sprintf("usr/lib/f%03d", i), Kind: tree.File, Mode: 0o644, Body: tree.Bytes(body)})
		}
		add(tree.Entry{Path: fmt.Sprintf("usr/lib/libc.so.%d", n), Kind: tree.File, Mode: 0o755, Body: tree.Text("libc")})
		add(tree.Entry{Path: "usr/lib/libc.so", Kind: tree.File, Mode: 0o755, Link: fmt.Sprintf("usr/lib/libc.so.%d", n)})
		return tr
	}
}

func base(t *testing.T, n int) *system {
	return &system{info: Info{Name: "debian", Kind: "test", Role: "base"}, param: fmt.Sprint(n), tree: release(t, n)}
}

// buildOn builds on a parent, in a store that may hold anything.
func buildOn(t *testing.T, m *memory, parent *Parent, stages ...Stage) (*Plan, *Runner, error) {
	t.Helper()
	env := Env{Events: func(Event) {}, Jobs: 2, Epoch: time.Unix(1700000000, 0), Parent: parent}
	p, err := (&Planner{Store: m, Env: env}).Plan(t.Context(), testRecipe(), stages)
	if err != nil {
		t.Fatal(err)
	}
	r := &Runner{Store: m, Env: env, Parallel: 2, Now: time.Now}
	return p, r, r.Run(t.Context(), p)
}

// parentOf is what a finished plan is to the next.
func parentOf(t *testing.T, m *memory, p *Plan) *Parent {
	t.Helper()
	d, err := Assemble(t.Context(), m, p)
	if err != nil {
		t.Fatal(err)
	}
	parent := &Parent{Digest: d.Digest, Layers: map[string][]Layer{}}
	for _, s := range p.Steps {
		parent.Layers[s.Info.Name] = s.Result.Layers
	}
	return parent
}

func root(t *testing.T, r *Runner, p *Plan) *tree.Tree {
	t.Helper()
	all := tree.New()
	for _, s := range p.Steps {
		l, done, err := r.read(t.Context(), s.Result.Layers)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(done)
		if err := all.Merge(l); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// Issue 4, item 5: what changed, on the parent's own layers, and the same root
// as built whole.
func TestAnUpdateIsADeltaOnItsParent(t *testing.T) {
	m := newMemory(t)
	first, _, err := buildOn(t, m, nil, base(t, 0))
	if err != nil {
		t.Fatal(err)
	}
	parent := parentOf(t, m, first)
	second, r, err := buildOn(t, m, parent, base(t, 6))
	if err != nil {
		t.Fatal(err)
	}
	fresh := newMemory(t)
	full, rf, err := buildOn(t, fresh, nil, base(t, 6))
	if err != nil {
		t.Fatal(err)
	}
	got := second.Steps[0].Result.Layers
	if len(got) != 2 || got[0].DiffID != parent.Layers["debian"][0].DiffID || got[1].Descriptor.Annotations[imagefmt.AnnotationDelta] != "1" {
		t.Fatalf("layers %+v", got)
	}
	whole := full.Steps[0].Result.Layers[0].Descriptor.Size
	if share := float64(got[1].Descriptor.Size) / float64(whole); share > 0.04 {
		t.Errorf("6 of 300 files changed, and the delta is %.0f%% of the whole (%d of %d bytes)", 100*share, got[1].Descriptor.Size, whole)
	}
	if same, err := tree.Equal(root(t, r, second), root(t, rf, full)); !same || err != nil {
		t.Errorf("parent and delta are not the root that is built whole: %v", err)
	}
	d, done, err := r.read(t.Context(), got[1:])
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	for _, e := range d.Entries() {
		if strings.HasPrefix(e.Path, "usr/lib/f") && e.Path > "usr/lib/f005" {
			t.Errorf("%s did not change, and is in the delta", e.Path)
		}
	}
	if e := d.Lookup("usr/lib/libc.so.0"); e == nil || e.Kind != tree.Whiteout {
		t.Errorf("what is gone is not hidden: %+v", e)
	}
}

// Digests do not depend on what a store happens to hold.
func TestADeltaIsTheSameFromAnyStore(t *testing.T) {
	full := newMemory(t)
	var parent *Parent
	for n := range 3 {
		p, _, err := buildOn(t, full, nil, base(t, n))
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			parent = parentOf(t, full, p)
		}
	}
	bare := newMemory(t)
	for _, l := range parent.Layers["debian"] {
		bare.blobs[l.Descriptor.Digest] = full.blobs[l.Descriptor.Digest]
	}
	var digests []digest.Digest
	for _, m := range []*memory{full, bare} {
		p, _, err := buildOn(t, m, parent, base(t, 2))
		if err != nil {
			t.Fatal(err)
		}
		d, err := Assemble(t.Context(), m, p)
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, d.Digest)
	}
	if digests[0] != digests[1] {
		t.Errorf("%s from a full store, %s from a bare one", digests[0], digests[1])
	}
}

func TestWhatDidNotChangeIsTheParentsOwn(t *testing.T) {
	m := newMemory(t)
	first, _, err := buildOn(t, m, nil, base(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	same := base(t, 1)
	same.param = "another mirror, the same packages"
	second, _, err := buildOn(t, m, parentOf(t, m, first), same)
	if err != nil {
		t.Fatal(err)
	}
	a, b := first.Steps[0].Result.Layers, second.Steps[0].Result.Layers
	if len(b) != 1 || a[0].Descriptor.Digest != b[0].Descriptor.Digest {
		t.Errorf("before %v, after %v", a, b)
	}
}

func TestTheNinthDeltaIsRefused(t *testing.T) {
	m := newMemory(t)
	p, _, err := buildOn(t, m, nil, base(t, 0))
	for n := 1; n <= MaxDeltas && err == nil; n++ {
		p, _, err = buildOn(t, m, parentOf(t, m, p), base(t, n))
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := len(p.Steps[0].Result.Layers); got != 1+MaxDeltas {
		t.Fatalf("%d layers after %d updates", got, MaxDeltas)
	}
	_, _, err = buildOn(t, m, parentOf(t, m, p), base(t, MaxDeltas+1))
	if err == nil || !strings.Contains(err.Error(), `take "parent" out of the recipe`) {
		t.Errorf("got %v", err)
	}
}

// A layer that lies over others must not hide theirs: world has the file, too.
func TestAStepOverOthersIsNoDeltaWhereItWouldHideTheirFiles(t *testing.T) {
	small := func(name string, paths ...string) *system {
		return &system{info: Info{Name: name, Kind: "test", Role: "base"}, param: strings.Join(paths, " "), tree: func() *tree.Tree {
			tr := tree.New()
			for _, p := range paths {
				if err := tr.Add(tree.Entry{Path: p, Kind: tree.File, Mode: 0o644, Body: tree.Text(name)}); err != nil {
					t.Error(err)
				}
			}
			return tr
		}}
	}
	m := newMemory(t)
	first, _, err := buildOn(t, m, nil, small("world", "etc/shared", "bin/sh"), small("distribution", "etc/shared", "etc/rc"))
	if err != nil {
		t.Fatal(err)
	}
	parent := parentOf(t, m, first)
	for paths, want := range map[string]int{"etc/rc": 1, "etc/shared etc/rc etc/new": 2} {
		p, r, err := buildOn(t, m, parent, small("world", "etc/shared", "bin/sh"), small("distribution", strings.Fields(paths)...))
		if err != nil {
			t.Fatal(err)
		}
		if got := len(p.Steps[1].Result.Layers); got != want {
			t.Errorf("%s: %d layers, want %d", paths, got, want)
		}
		if root(t, r, p).Lookup("etc/shared") == nil {
			t.Errorf("%s: the world's file is hidden", paths)
		}
	}
}

func TestAParentIsAnInput(t *testing.T) {
	m := newMemory(t)
	first, _, err := buildOn(t, m, nil, base(t, 0))
	if err != nil {
		t.Fatal(err)
	}
	parent := parentOf(t, m, first)
	kernel := base(t, 0)
	kernel.info.Name, kernel.info.Role = "kernel", "kernel"
	env := Env{Events: func(Event) {}, Parent: parent}
	p, err := (&Planner{Store: m, Env: env}).Plan(t.Context(), testRecipe(), []Stage{base(t, 0), kernel})
	if err != nil {
		t.Fatal(err)
	}
	if p.Steps[0].Hit || p.Steps[0].Why != "parent is new" || p.Steps[1].Inputs["parent"] != "" {
		t.Errorf("base %+v, kernel inputs %v", p.Steps[0], p.Steps[1].Inputs)
	}
}
