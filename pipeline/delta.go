package pipeline

import (
	"context"
	"fmt"
	"maps"
	"strconv"

	"rhizome/pipeline/tree"
	"rhizome/registry/imagefmt"

	"github.com/opencontainers/go-digest"
)

// MaxDeltas is how many delta layers may lie on a whole one. Each is one more
// place to look for every file.
const MaxDeltas = 8

// Parent is an earlier version of a cluster image. A base or a set of packages
// that differs from the parent's becomes a layer of what changed, on the
// parent's own layers; one that does not is the parent's.
type Parent struct {
	// Digest is the index's.
	Digest digest.Digest
	// Layers are those of each step, the lowest first, by the step's name.
	Layers map[string][]Layer
	// Bundles are the layers that hold bodies of others, by DiffID.
	Bundles map[digest.Digest]Layer
}

// deltable says whether a step's layer may become a delta: what is large and
// changes in parts.
func deltable(i Info) bool {
	return (i.Role == "base" || i.Role == "packages") && !i.Whole
}

// layers are the parent's of a step; none where the parent has none.
func (p *Parent) layers(i Info) []Layer {
	if p == nil || !deltable(i) {
		return nil
	}
	return p.Layers[i.Name]
}

// inputs adds the parent to what a step depends on. A step that lies over
// others without reading them can be other than one that lies lowest.
func (p *Parent) inputs(s *Step, in Inputs) Inputs {
	if p == nil || !deltable(s.Info) {
		return in
	}
	out := maps.Clone(in)
	if out == nil {
		out = Inputs{}
	}
	out["parent"] = p.Digest.String()
	if !s.lowest && len(s.needs) == 0 {
		out["parent"] += ", over other steps"
	}
	return out
}

// verdict is what becomes of a step that has layers in the parent.
type verdict int

const (
	whole verdict = iota
	unchanged
	delta
)

// decide says what becomes of a step, from how many deltas the parent has of
// it, what changed, the step's whole tree, and whether it is known what lies
// below.
func decide(depth int, changed, now *tree.Tree, belowKnown bool) (verdict, error) {
	switch {
	case empty(changed):
		return unchanged, nil
	case !belowKnown && !addsOnly(changed, now):
		return whole, nil
	case depth >= MaxDeltas:
		return whole, fmt.Errorf("the parent has %d delta layers of it already, and %d is the most: take \"parent\" out of the recipe to build it whole, and name that image as the parent from then on", depth, MaxDeltas)
	}
	return delta, nil
}

func empty(t *tree.Tree) bool {
	return t.Len() == 1 && t.Lookup(".").Implied
}

// addsOnly says that a delta is right whatever lies below the step. A whiteout
// would hide a lower step's file of the same name, too, and a directory that
// only leads to files must leave a lower step's owner and mode alone.
func addsOnly(changed, now *tree.Tree) bool {
	for _, e := range changed.Entries() {
		if e.Kind == tree.Whiteout {
			return false
		}
		if n := now.Lookup(e.Path); e.Kind == tree.Dir && !e.Implied && n != nil && n.Implied {
			return false
		}
	}
	return true
}

// keepDelta stores what a step's tree changes of the parent's layers of the
// same step, and returns those layers with it on top.
func (r *Runner) keepDelta(ctx context.Context, s *Step, t *tree.Tree, below []*tree.Tree, was []Layer) ([]Layer, error) {
	was, err := r.restore(ctx, was)
	if err != nil {
		return nil, fmt.Errorf("reading the parent %s: %w", r.Env.Parent.Digest, err)
	}
	old, done, err := r.read(ctx, was)
	if err != nil {
		return nil, fmt.Errorf("reading the parent %s: %w", r.Env.Parent.Digest, err)
	}
	defer done()
	changed, err := difference(below, old, t)
	if err != nil {
		return nil, fmt.Errorf("comparing it with the parent %s: %w", r.Env.Parent.Digest, err)
	}
	v, err := decide(len(was)-1, changed, t, s.lowest || len(below) > 0)
	switch {
	case err != nil:
		return nil, err
	case v == unchanged:
		return was, nil
	case v == delta:
		l, err := r.write(ctx, changed)
		if err != nil {
			return nil, err
		}
		l.Descriptor.Annotations[imagefmt.AnnotationDelta] = strconv.Itoa(len(was))
		return append(append([]Layer{}, was...), l), nil
	}
	l, err := r.write(ctx, t)
	return []Layer{l}, err
}

// difference is what one layer changes of another in the roots that they make
// with what lies below both.
func difference(below []*tree.Tree, old, now *tree.Tree) (*tree.Tree, error) {
	roots := [2]*tree.Tree{}
	for i, top := range []*tree.Tree{old, now} {
		roots[i] = tree.New()
		for _, l := range append(append([]*tree.Tree{}, below...), top) {
			if err := roots[i].Merge(l); err != nil {
				return nil, err
			}
		}
	}
	return tree.Diff(roots[0], roots[1])
}
