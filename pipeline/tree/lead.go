package tree

import (
	"path"
	"strings"
)

// Lead gives a layer as it lies over this tree: what it puts below a path that
// nothing describes and that is a symlink to a directory here goes where the
// symlink leads, and the symlink stays, as it does when layers are served
// (serve/rootfs) or unpacked. A file at lib/firmware/x must not put a folder in
// the place of a merged root's /lib.
//
// leads are those symlinks and where they lead, was the former path of what was
// moved. Where there are none, the layer itself is returned.
func (t *Tree) Lead(upper *Tree) (real *Tree, leads, was map[string]string, err error) {
	if !t.leads(upper) {
		return upper, nil, nil, nil
	}
	leads = map[string]string{}
	for _, e := range upper.Entries() {
		if !e.Implied {
			continue
		}
		at := through(leads, e.Path)
		if old := t.entries[at]; old != nil && old.Kind == Symlink {
			if dir, ok := t.Resolve(at, nil); ok && t.entries[dir].Kind == Dir {
				leads[e.Path] = dir
			}
		}
	}
	if len(leads) == 0 {
		return upper, nil, nil, nil
	}
	real, was, err = upper.moved(leads)
	return real, leads, was, err
}

// leads says quickly whether any implied directory of a layer is a symlink here.
func (t *Tree) leads(upper *Tree) bool {
	for p, e := range upper.entries {
		if old := t.entries[p]; e.Implied && old != nil && old.Kind == Symlink {
			return true
		}
	}
	return false
}

// moved is the tree with its paths led through leads, and the former path of
// what this moved.
func (t *Tree) moved(leads map[string]string) (*Tree, map[string]string, error) {
	out, was := New(), map[string]string{}
	for _, e := range t.Entries() {
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
		if old := out.entries[c.Path]; c.Implied && old != nil && old.Kind == Dir {
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

// Resolve follows the symlinks of a path, the last component's too. via hears
// of every symlink on the way; it may be nil. ok is false where the path leads
// nowhere.
func (t *Tree) Resolve(p string, via func(link string)) (at string, ok bool) {
	at, rest := ".", components(p)
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, name)
		e := t.entries[next]
		switch {
		case e == nil:
			return "", false
		case e.Kind != Symlink:
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
		rest = append(components(e.Target), rest...)
	}
	return at, true
}

func components(p string) []string {
	return strings.FieldsFunc(p, func(r rune) bool { return r == '/' })
}
