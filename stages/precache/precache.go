// Package precache divides the layers of an image into what nodes hold in
// memory and what they leave at the server: the bodies of hot files move out
// of the layers that made them into one layer of their own, the bundle, so
// that no body is stored twice. The root that all layers make together stays
// as it was. The package decides over trees and stores nothing.
package precache

import (
	"fmt"
	"maps"
	"path"

	"rhizome/pipeline/tree"
)

// Version is part of the stage's key.
const Version = 1

// Moved is the attribute that a file has in its own layer when its body lies in
// the bundle; the value is its path there. The bundle hides it, so no root
// shows it.
const Moved = "user.rhizome.moved"

// Layer is one layer of the image, as the division sees it.
type Layer struct {
	// Name is the step's, for messages.
	Name string
	Tree *tree.Tree
	// Apart says that not every node has it. Nothing is taken from it, nor
	// anything that it touches: a bundle hides what lies below it.
	Apart bool
}

// Wish says what is to be held.
type Wish struct {
	// Paths are those of the recipe, in its order: files, folders, globs. Each
	// must lead to something.
	Paths []string
	// Learned come before them, hottest first. One that leads nowhere, because
	// another version has it no more, is passed over.
	Learned []string
	// Limit is how many bytes of a node's memory the bundle may take (see
	// Cost); 0 is no limit.
	Limit int64
	// First is how many of those bytes a boot waits for in any case.
	First int64
	// Folders says that only whole folders can be held: FreeBSD's nodes mount
	// each over the one below it.
	Folders bool
}

// Division is what comes of it.
type Division struct {
	// Hot is the bundle, and Order its paths, hottest first.
	Hot   *tree.Tree
	Order []string
	// First counts those of Order that Wish.First has room for.
	First int
	// Cold stand beside the layers that were given: nil for one that stays.
	Cold []*tree.Tree
	// Folders are those to be mounted (Wish.Folders), or the topmost that hold
	// anything of the bundle.
	Folders []string
	// Private says that some of it is not for everybody to read.
	Private bool
	// Memory is what the bundle takes of a node's memory in bytes.
	Memory int64
	// Gone are learned paths that lead nowhere, Over those that the limit left
	// out, Apart those that differ between nodes.
	Gone, Over, Apart []string
}

// Cost is what an entry takes of a node's memory (tmpfs): whole pages of 4 KiB
// for its body, and 1 KiB for its inode and name.
func Cost(size int64) int64 { return (size+4095)&^4095 + 1024 }

// Divide decides what is hot, and takes it out of the layers, lowest first.
// over are trees that lie over the layers on one node or another: what they
// touch is left where it is.
func Divide(layers []Layer, over []*tree.Tree, w Wish) (*Division, error) {
	r := &root{tree: tree.New(), from: map[string]origin{}}
	for i, l := range layers {
		if l.Apart {
			over = append(over, l.Tree)
			continue
		}
		if err := r.lay(i, l.Tree); err != nil {
			return nil, fmt.Errorf("merging the layer of %q: %w", l.Name, err)
		}
	}
	if err := r.tree.Normalize(); err != nil {
		return nil, err
	}
	apart, err := touched(r, over)
	if err != nil {
		return nil, err
	}
	c := newChooser(r.tree, apart, w)
	if err := c.choose(); err != nil {
		return nil, err
	}
	d := c.division()
	d.Cold = cold(layers, r.from, c)
	return d, nil
}

// division is the bundle of what was chosen.
func (c *chooser) division() *Division {
	d := &Division{Hot: tree.New(), Order: c.order, First: c.first, Memory: c.memory, Gone: c.gone, Over: c.over, Apart: c.apartPaths()}
	for _, p := range c.order {
		d.Private = d.Private || !c.public(p)
		for at := p; ; at = path.Dir(at) {
			e := *c.root.Lookup(at)
			e.Opaque = e.Kind == tree.Dir && at != "." && !c.wish.Folders && c.whole[at]
			// The parents of a path are directories already, and a link comes
			// with its whole group: neither can be refused.
			if err := d.Hot.Add(e); err != nil {
				panic(fmt.Sprintf("adding %q to the bundle: %v", at, err))
			}
			if at == "." {
				break
			}
		}
	}
	d.Folders = c.folders()
	return d
}

// cold are the layers without the bodies that moved.
func cold(layers []Layer, from map[string]origin, c *chooser) []*tree.Tree {
	taken := make([]map[string]string, len(layers))
	for _, p := range c.order {
		e := c.root.Lookup(p)
		if e.Kind != tree.File || e.Link != "" || e.Size() == 0 {
			continue
		}
		at := from[p]
		if taken[at.layer] == nil {
			taken[at.layer] = map[string]string{}
		}
		taken[at.layer][at.path] = p
	}
	out := make([]*tree.Tree, len(layers))
	for i, t := range taken {
		if t != nil {
			out[i] = without(layers[i].Tree, t)
		}
	}
	return out
}

// without is a layer whose files gave their bodies away; their names and all
// that hides or shows by them stay.
func without(t *tree.Tree, taken map[string]string) *tree.Tree {
	heads := map[string]string{}
	for p, to := range taken {
		if e := t.Lookup(p); e.Link != "" {
			p = e.Link
		}
		heads[p] = to
	}
	return rewrite(t, func(e *tree.Entry) {
		if to, ok := heads[e.Path]; ok {
			e.Xattrs = maps.Clone(e.Xattrs)
			if e.Xattrs == nil {
				e.Xattrs = map[string]string{}
			}
			e.Xattrs[Moved], e.Body = to, nil
		}
	})
}

// Restore is a layer as it was before its bodies moved into a bundle.
func Restore(t, bundle *tree.Tree) (*tree.Tree, error) {
	var missing string
	out := rewrite(t, func(e *tree.Entry) {
		to, ok := e.Xattrs[Moved]
		if !ok {
			return
		}
		e.Xattrs = maps.Clone(e.Xattrs)
		if delete(e.Xattrs, Moved); len(e.Xattrs) == 0 {
			e.Xattrs = nil
		}
		if e.Link != "" {
			return
		}
		hot := bundle.Lookup(to)
		if hot != nil && hot.Link != "" {
			hot = bundle.Lookup(hot.Link)
		}
		if hot == nil || hot.Kind != tree.File {
			missing = to
			return
		}
		e.Body = hot.Body
	})
	if missing != "" {
		return nil, fmt.Errorf("the body of %q has moved into a precache bundle that has it not", missing)
	}
	return out, nil
}

// rewrite copies a tree and changes entries of the copy.
func rewrite(t *tree.Tree, change func(*tree.Entry)) *tree.Tree {
	out := tree.New()
	for _, e := range t.Entries() {
		c := *e
		change(&c)
		if err := out.Add(c); err != nil {
			panic(fmt.Sprintf("copying %q: %v", e.Path, err)) // it was in a tree before
		}
	}
	return out
}
