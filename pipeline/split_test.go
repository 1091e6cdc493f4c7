package pipeline

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"rhizome/pipeline/tree"
	"rhizome/recipes"
	"rhizome/registry/imagefmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// mover takes the body of one file out of whatever layer has it.
type mover struct {
	needs []string
	path  string
}

func (m mover) Info() Info {
	return Info{Name: RoleBundle, Kind: "precache", Role: RoleBundle, Needs: m.needs}
}
func (m mover) Inputs(context.Context, Env) (Inputs, error) { return Inputs{"path": m.path}, nil }
func (m mover) Run(context.Context, Env, []*tree.Tree) (Output, error) {
	panic("a stage that divides layers makes none")
}

func (m mover) Divide(_ context.Context, _ Env, layers []StepLayer) (Division, error) {
	d := Division{Bundle: tree.New(), Order: []string{m.path}, First: 1, Rest: make([]*tree.Tree, len(layers)), Facts: map[string]string{FactBundleFolders: "/usr"}}
	for i, l := range layers {
		if e := l.Tree.Lookup(m.path); e != nil {
			hot, cold := *e, *e
			cold.Body = nil
			if err := d.Bundle.Add(hot); err != nil {
				return d, err
			}
			d.Rest[i] = l.Tree
			if err := l.Tree.Add(cold); err != nil {
				return d, err
			}
		}
	}
	return d, nil
}

func TestTheBundleTakesItsPlaceInTheImage(t *testing.T) {
	m, w := newMemory(t), &workshop{}
	node := w.stage("node:n1", "its own")
	build := func(path string) *Plan {
		w.ran = nil
		p, err := build(t, m, w.stage("base", "a"), w.stage("files", "b"), mover{[]string{"base", "files"}, path}, node)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := build("base")
	if len(w.ran) != 3 {
		t.Fatalf("ran %v", w.ran)
	}
	p.Recipe.Nodes[0].Root = "precache"
	p.Recipe.Nodes = append(p.Recipe.Nodes, recipes.Node{Name: "n2", Root: "nfs"})
	index, err := Assemble(t.Context(), m, p)
	if err != nil {
		t.Fatal(err)
	}
	for i, bundle := range []string{p.Steps[2].Result.Facts[FactBundle], ""} {
		manifest, n := manifestOf(t, m, index, i)
		if n.Bundle != bundle || bundle != "" && !slices.Equal(n.BundleFolders, []string{"/usr"}) {
			t.Errorf("node %s holds the bundle %q in %v", n.Name, n.Bundle, n.BundleFolders)
		}
		var roles []string
		for _, l := range manifest.Layers {
			roles = append(roles, l.Annotations[imagefmt.AnnotationStage])
		}
		if want := []string{"base", "files", "precache", "node:n1"}; !slices.Equal(roles, want) {
			t.Errorf("the layers are %v, want %v", roles, want)
		}
		if l := manifest.Layers[0]; l.Digest == p.Steps[0].Result.Layers[0].Descriptor.Digest || l.Annotations[imagefmt.AnnotationMoved] == "" {
			t.Errorf("the image has the whole base, whose file lies in the bundle as well")
		}
		if l := manifest.Layers[2]; l.Annotations[imagefmt.AnnotationFirstSize] == "" || !strings.HasPrefix(l.Annotations[imagefmt.AnnotationFirstDigest], "sha256:") {
			t.Errorf("the bundle does not say where its first part ends: %v", l.Annotations)
		}
		if manifest.Layers[1].Digest != p.Steps[1].Result.Layers[0].Descriptor.Digest {
			t.Errorf("a layer that gave nothing is another")
		}
	}
	if build("files"); len(w.ran) != 0 {
		t.Errorf("another list ran the stages %v again", w.ran)
	}
}

func manifestOf(t *testing.T, m *memory, index ocispec.Descriptor, i int) (ocispec.Manifest, imagefmt.Node) {
	t.Helper()
	var idx ocispec.Index
	var manifest ocispec.Manifest
	var config ocispec.Image
	read := func(d ocispec.Descriptor, into any) {
		if err := json.NewDecoder(bytes.NewReader(m.blobs[d.Digest])).Decode(into); err != nil {
			t.Fatal(err)
		}
	}
	read(index, &idx)
	read(idx.Manifests[i], &manifest)
	read(manifest.Config, &config)
	_, n, err := imagefmt.Parse(config.Config.Labels)
	if err != nil {
		t.Fatal(err)
	}
	return manifest, n
}

// A parent's layers are divided; what is compared with them is not.
func TestADeltaIsMadeOnLayersThatAreWholeAgain(t *testing.T) {
	m := newMemory(t)
	divider := mover{[]string{"debian"}, "usr/lib/f299"}
	first, _, err := buildOn(t, m, nil, base(t, 0), divider)
	if err != nil {
		t.Fatal(err)
	}
	shelf, err := newShelf(first)
	if err != nil {
		t.Fatal(err)
	}
	parent := parentOf(t, m, first)
	parent.Layers["debian"] = shelf.of(first.Steps[0])
	bundle := first.Steps[1].Result.Layers[0]
	env := Env{Events: func(Event) {}, Jobs: 2, Epoch: time.Unix(1700000000, 0), Parent: parent}
	build := func() (*Plan, error) {
		p, err := (&Planner{Store: m, Env: env}).Plan(t.Context(), testRecipe(), []Stage{base(t, 3), divider})
		if err != nil {
			t.Fatal(err)
		}
		return p, (&Runner{Store: m, Env: env, Now: time.Now}).Run(t.Context(), p)
	}
	if _, err := build(); err == nil {
		t.Error("a parent without its bundle was taken for whole")
	}
	parent.Bundles = map[digest.Digest]Layer{bundle.DiffID: bundle}
	env.Restore = func(rest, hot *tree.Tree) (*tree.Tree, error) {
		e := *rest.Lookup(divider.path)
		e.Body = hot.Lookup(divider.path).Body
		return rest, rest.Add(e)
	}
	p, err := build()
	if err != nil {
		t.Fatal(err)
	}
	got := p.Steps[0].Result.Layers
	if len(got) != 2 || got[0].DiffID != first.Steps[0].Result.Layers[0].DiffID {
		t.Errorf("the delta lies on %+v, and the parent's step made %s", got, first.Steps[0].Result.Layers[0].DiffID)
	}
}

// A version of another date has the parent's layers where nothing changed, also
// when their hot files lay in a bundle: to the byte, times included.
func TestWhatDidNotChangeKeepsItsDateThroughABundle(t *testing.T) {
	m := newMemory(t)
	divider := mover{[]string{"debian"}, "usr/lib/f299"}
	first, _, err := buildOn(t, m, nil, base(t, 0), divider)
	if err != nil {
		t.Fatal(err)
	}
	shelf, err := newShelf(first)
	if err != nil {
		t.Fatal(err)
	}
	parent, bundle := parentOf(t, m, first), first.Steps[1].Result.Layers[0]
	parent.Layers["debian"] = shelf.of(first.Steps[0])
	parent.Bundles = map[digest.Digest]Layer{bundle.DiffID: bundle}
	env := Env{Events: func(Event) {}, Jobs: 2, Epoch: time.Unix(1800000000, 0), Parent: parent}
	env.Restore = func(rest, hot *tree.Tree) (*tree.Tree, error) {
		e := *rest.Lookup(divider.path)
		e.Body = hot.Lookup(divider.path).Body
		return rest, rest.Add(e)
	}
	p, err := (&Planner{Store: m, Env: env}).Plan(t.Context(), testRecipe(), []Stage{base(t, 0), divider})
	if err == nil {
		err = (&Runner{Store: m, Env: env, Now: time.Now}).Run(t.Context(), p)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got, want := p.Steps[0].Result.Layers[0].DiffID, first.Steps[0].Result.Layers[0].DiffID; got != want {
		t.Errorf("the unchanged layer is %s, and was %s", got, want)
	}
	second, err := newShelf(p)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := second.of(p.Steps[0])[0].DiffID, parent.Layers["debian"][0].DiffID; got != want {
		t.Errorf("what the bundle leaves of it is %s, and was %s", got, want)
	}
}
