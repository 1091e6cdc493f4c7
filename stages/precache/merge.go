package precache

import "rhizome/pipeline/tree"

// origin is where an entry of the merged root comes from.
type origin struct {
	layer int
	// path is the entry's own in that layer, which may lead through a symlink
	// of a lower one.
	path string
}

// root is what layers make together, with where each entry comes from.
type root struct {
	tree *tree.Tree
	from map[string]origin
}

// lay merges a layer over the root.
func (r *root) lay(n int, upper *tree.Tree) error {
	real, _, was, err := r.tree.Lead(upper)
	if err != nil {
		return err
	}
	if err := r.tree.Merge(real); err != nil {
		return err
	}
	for _, e := range real.Entries() {
		if e.Implied || e.Kind == tree.Whiteout {
			continue
		}
		at := origin{n, e.Path}
		if p, moved := was[e.Path]; moved {
			at.path = p
		}
		r.from[e.Path] = at
	}
	return nil
}
