package precache

import (
	"maps"
	"path"

	"rhizome/pipeline/tree"
)

// apart is what lies over the shared root on one node or another.
type apart struct {
	// paths are touched themselves, below are directories of which everything
	// is. dirs are those that hold a touched name.
	paths, below, dirs map[string]bool
}

// touched gathers what trees over the root touch.
func touched(r *root, over []*tree.Tree) (*apart, error) {
	a := &apart{paths: map[string]bool{}, below: map[string]bool{}, dirs: map[string]bool{}}
	for _, t := range over {
		real, leads, _, err := r.tree.Lead(t)
		if err != nil {
			return nil, err
		}
		for _, e := range real.Entries() {
			a.touch(e, r.tree.Lookup(e.Path))
		}
		// Where another node's layers turn what a symlink leads to into a file,
		// the path through it means the symlink itself.
		for link := range leads {
			a.paths[link] = true
		}
	}
	for p := range a.paths {
		a.dirs[path.Dir(p)] = true
	}
	return a, nil
}

// touch notes one entry over what the shared root has at that path.
func (a *apart) touch(e, old *tree.Entry) {
	oldDir := old != nil && old.Kind == tree.Dir
	switch {
	case e.Kind != tree.Dir || !oldDir:
		a.paths[e.Path] = true
		a.below[e.Path] = a.below[e.Path] || oldDir
	case e.Opaque, !e.Implied && !alike(e, old):
		// The bundle's directory would show its own owner and mode.
		a.paths[e.Path], a.below[e.Path] = true, true
	}
}

func alike(a, b *tree.Entry) bool {
	return a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID && a.Flags == b.Flags && maps.Equal(a.Xattrs, b.Xattrs)
}

// has says whether a path differs between nodes.
func (a *apart) has(p string) bool {
	if a.paths[p] {
		return true
	}
	for at := path.Dir(p); ; at = path.Dir(at) {
		if a.below[at] {
			return true
		}
		if at == "." {
			return false
		}
	}
}
