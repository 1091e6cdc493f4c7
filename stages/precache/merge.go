package precache

import (
	"path"

	"rhizome/pipeline/tree"
)

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

// lay merges a layer over the root. What a layer puts below a path that is a
// symlink to a directory goes where the symlink leads, as it does when layers
// are served (serve/rootfs) or unpacked.
func (r *root) lay(n int, upper *tree.Tree) error {
	real, _, was, err := r.canonical(upper)
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

// canonical is a layer with every path led through the root's symlinks; which
// symlinks those were and where they lead; and the former path of what this
// moved.
func (r *root) canonical(upper *tree.Tree) (real *tree.Tree, leads, was map[string]string, err error) {
	leads = map[string]string{}
	for _, e := range upper.Entries() {
		if !e.Implied {
			continue
		}
		at := through(leads, e.Path)
		if old := r.tree.Lookup(at); old != nil && old.Kind == tree.Symlink {
			if dir, ok := resolve(r.tree, at, nil); ok && r.tree.Lookup(dir).Kind == tree.Dir {
				leads[e.Path] = dir
			}
		}
	}
	if len(leads) == 0 {
		return upper, nil, nil, nil
	}
	real, was, err = moved(upper, leads)
	return real, leads, was, err
}

// moved is a tree whose paths go through leads.
func moved(upper *tree.Tree, leads map[string]string) (*tree.Tree, map[string]string, error) {
	out, was := tree.New(), map[string]string{}
	for _, e := range upper.Entries() {
		if _, ghost := leads[e.Path]; ghost {
			continue
		}
		c := *e
		if c.Path = through(leads, e.Path); c.Path != e.Path {
			was[c.Path] = e.Path
		}
		if c.Link != "" {
			c.Link = through(leads, c.Link)
		}
		if old := out.Lookup(c.Path); c.Implied && old != nil && old.Kind == tree.Dir {
			continue
		}
		if err := out.Add(c); err != nil {
			return nil, nil, err
		}
	}
	return out, was, nil
}

// through replaces the longest known lead of a path.
func through(leads map[string]string, p string) string {
	for at := path.Dir(p); at != "."; at = path.Dir(at) {
		if to, ok := leads[at]; ok {
			return path.Join(to, p[len(at)+1:])
		}
	}
	return p
}

// maxLinks is how many symlinks one path may lead through (Linux's own limit,
// path_resolution(7)).
const maxLinks = 40

// resolve follows the symlinks of a path, the last component's too. via hears
// of every symlink on the way. ok is false where the path leads nowhere.
func resolve(t *tree.Tree, p string, via func(string)) (string, bool) {
	at, rest := ".", split(p)
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, name)
		e := t.Lookup(next)
		switch {
		case e == nil:
			return "", false
		case e.Kind != tree.Symlink:
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", false
		}
		if via != nil {
			via(next)
		}
		if path.IsAbs(e.Target) {
			at = "."
		}
		rest = append(split(e.Target), rest...)
	}
	return at, true
}
