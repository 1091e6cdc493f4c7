package layer

import (
	"path"

	"rhizome/pipeline/tree"
)

// item is one step of writing a tar: an entry, or the file beside it that
// makes it an opaque directory.
type item struct {
	entry  *tree.Entry
	marker bool
}

// sorted is a layer's own order: a directory before what lies in it, siblings
// by the bytes of their names.
func sorted(t *tree.Tree) []item {
	var items []item
	for _, e := range t.Entries() {
		items = append(items, item{entry: e})
		if e.Opaque {
			items = append(items, item{e, true})
		}
	}
	return items
}

// ordered puts some paths first.
func ordered(t *tree.Tree, first []string) []item {
	o := orderer{tree: t, seen: map[string]bool{}}
	for _, p := range first {
		o.add(t.Lookup(p))
	}
	for _, e := range t.Entries() {
		o.add(e)
	}
	return o.withMarkers()
}

type orderer struct {
	tree    *tree.Tree
	seen    map[string]bool
	entries []*tree.Entry
}

// add takes an entry after what it needs: the directories that lead to it, and
// the file it is a link to. A path that is not in the tree adds nothing.
func (o *orderer) add(e *tree.Entry) {
	if e == nil || o.seen[e.Path] {
		return
	}
	o.seen[e.Path] = true
	if e.Path != "." {
		o.add(o.tree.Lookup(path.Dir(e.Path)))
	}
	if e.Link != "" {
		o.add(o.tree.Lookup(e.Link))
	}
	o.entries = append(o.entries, e)
}

// withMarkers puts each opaque directory's marker behind the last entry below
// it, the inner directory's first.
func (o *orderer) withMarkers() []item {
	last := map[string]int{}
	for i, e := range o.entries {
		for p := e.Path; p != "."; p = path.Dir(p) {
			last[p] = i
		}
	}
	var items []item
	for i, e := range o.entries {
		items = append(items, item{entry: e})
		for p := e.Path; p != "."; p = path.Dir(p) {
			if d := o.tree.Lookup(p); d.Opaque && last[p] == i {
				items = append(items, item{d, true})
			}
		}
	}
	return items
}
