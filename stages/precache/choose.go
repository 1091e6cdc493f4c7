package precache

import (
	"fmt"
	"path"
	"slices"
	"sort"
	"strings"

	"rhizome/pipeline/tree"
)

// chooser decides which paths of a root are hot.
type chooser struct {
	root  *tree.Tree
	apart *apart
	wish  Wish

	children map[string][]string
	groups   map[string][]string // all names of a file, by the first
	hot      map[string]bool
	// whole are directories of which the bundle has everything.
	whole  map[string]bool
	order  []string
	memory int64
	// first counts the paths of order that a boot waits for.
	first int
	// picked are the folders that were named (Wish.Folders).
	picked           []string
	gone, over       []string
	foreign, refused map[string]bool
}

func newChooser(root *tree.Tree, a *apart, w Wish) *chooser {
	c := &chooser{root: root, apart: a, wish: w, children: map[string][]string{}, groups: map[string][]string{},
		hot: map[string]bool{}, whole: map[string]bool{}, foreign: map[string]bool{}, refused: map[string]bool{}}
	for _, e := range root.Entries() {
		if e.Path != "." {
			c.children[path.Dir(e.Path)] = append(c.children[path.Dir(e.Path)], e.Path)
		}
		if e.Link != "" {
			c.groups[e.Link] = append(c.groups[e.Link], e.Path)
		}
	}
	for head := range c.groups {
		c.groups[head] = append([]string{head}, c.groups[head]...)
	}
	return c
}

// choose takes what is wished for, hottest first, as far as the limit goes.
func (c *chooser) choose() error {
	for _, p := range c.wish.Learned {
		found, err := c.find(p)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			c.gone = append(c.gone, p)
		}
		c.takeAll(found)
	}
	for _, p := range c.wish.Paths {
		found, err := c.find(p)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return fmt.Errorf("the path %q is in no layer that all nodes have%s", p, c.hint(p))
		}
		c.takeAll(found)
	}
	if len(c.order) == 0 {
		return fmt.Errorf("nothing of the list can be held in memory: %d path(s) are in no layer, %d differ between nodes, %d are over the limit; learn it again with \"rhizome precache learn\", or name paths",
			len(c.gone), len(c.foreign), len(c.over))
	}
	for _, name := range c.children["."] {
		c.markWhole(name)
	}
	return nil
}

// hint says more of a path that leads nowhere.
func (c *chooser) hint(p string) string {
	name, err := tree.Clean(p)
	if err == nil && c.apart.has(name) {
		return ": it is one of a node's own files, or of a stage that is not for all nodes; take it out of the list"
	}
	return "; correct it, or take it out of the list"
}

// find turns a path of the list into paths of the root: the symlinks that lead
// there, and where they lead. A name is taken as it stands before it is taken
// as a glob: there is a program named "[".
func (c *chooser) find(p string) ([]string, error) {
	name, err := tree.Clean(p)
	if err != nil {
		return nil, err
	}
	if c.wish.Folders {
		return c.findFolder(p, name)
	}
	if found := c.follow(name); found != nil || !strings.ContainsAny(name, `*?[\`) {
		return found, nil
	}
	var found []string
	for _, e := range c.root.Entries() {
		if match(name, e.Path) {
			found = append(found, c.follow(e.Path)...)
		}
	}
	return found, nil
}

// follow gives the symlinks of a path and what they lead to; nil where it
// leads nowhere. A symlink that dangles is all there is to hold.
func (c *chooser) follow(name string) []string {
	var found []string
	at, ok := c.root.Resolve(name, func(link string) { found = append(found, link) })
	if !ok {
		if e := c.root.Lookup(name); e != nil && e.Kind == tree.Symlink {
			return []string{name}
		}
		return nil
	}
	return append(found, at)
}

// findFolder is find where only whole folders can be held.
func (c *chooser) findFolder(p, name string) ([]string, error) {
	e := c.root.Lookup(name)
	if e == nil {
		return nil, nil
	}
	if e.Kind != tree.Dir || name == "." {
		return nil, fmt.Errorf("the path %q is no folder: FreeBSD nodes hold whole folders in memory; name the folder that it lies in", p)
	}
	if other := c.firstApart(name); other != "" {
		return nil, fmt.Errorf("the folder %q cannot be held whole, for \"/%s\" differs between nodes; name the folders beside it", p, other)
	}
	c.picked = append(c.picked, name)
	return []string{name}, nil
}

// firstApart finds what differs between nodes at or below a path.
func (c *chooser) firstApart(p string) string {
	if c.apart.has(p) {
		return p
	}
	var first []string
	for other := range c.apart.paths {
		if strings.HasPrefix(other, p+"/") {
			first = append(first, other)
		}
	}
	if len(first) == 0 {
		return ""
	}
	sort.Strings(first)
	return first[0]
}

func (c *chooser) takeAll(paths []string) {
	for _, p := range paths {
		if c.wish.Folders && !c.fits(p) {
			c.over = append(c.over, p)
			c.picked = slices.DeleteFunc(c.picked, func(f string) bool { return f == p })
			continue
		}
		c.takeTree(p)
	}
}

// takeTree takes a path and all below it.
func (c *chooser) takeTree(p string) {
	c.take(p)
	for _, child := range c.children[p] {
		c.takeTree(child)
	}
}

// take makes a path hot, with all names of its file.
func (c *chooser) take(p string) {
	if p == "." || c.hot[p] || c.refused[p] {
		return
	}
	names := c.names(p)
	for _, n := range names {
		if c.apart.has(n) {
			c.foreign[p] = true
			return
		}
	}
	cost := c.cost(p)
	if c.wish.Limit > 0 && c.memory+cost > c.wish.Limit {
		c.refused[p] = true
		c.over = append(c.over, p)
		return
	}
	c.memory += cost
	for _, n := range names {
		c.hot[n] = true
		c.order = append(c.order, n)
	}
	if c.memory <= c.wish.First {
		c.first = len(c.order)
	}
}

// names are all names of the file at a path, the first of them first.
func (c *chooser) names(p string) []string {
	head := p
	if e := c.root.Lookup(p); e.Link != "" {
		head = e.Link
	}
	if g := c.groups[head]; g != nil {
		return g
	}
	return []string{p}
}

func (c *chooser) cost(p string) int64 { return Cost(c.root.Lookup(c.names(p)[0]).Size()) }

// fits says whether a whole folder goes into what is left of the limit.
func (c *chooser) fits(p string) bool {
	return c.wish.Limit == 0 || c.memory+c.treeCost(p) <= c.wish.Limit
}

func (c *chooser) treeCost(p string) int64 {
	n := int64(0)
	if !c.hot[p] {
		n = c.cost(p)
	}
	for _, child := range c.children[p] {
		n += c.treeCost(child)
	}
	return n
}

// markWhole says whether all at and below a path is in the bundle, on every
// node.
func (c *chooser) markWhole(p string) bool {
	if c.apart.has(p) {
		return false
	}
	if c.root.Lookup(p).Kind != tree.Dir {
		return c.hot[p]
	}
	whole := len(c.children[p]) > 0 || c.hot[p]
	for _, child := range c.children[p] {
		// Every child is looked at: each has directories of its own to mark.
		whole = c.markWhole(child) && whole
	}
	c.whole[p] = whole && !c.apart.dirs[p]
	return c.whole[p]
}

// folders are where a node lays the bundle.
func (c *chooser) folders() []string {
	var out []string
	add := func(p string) {
		if p = "/" + p; !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	for _, p := range c.picked {
		add(p)
	}
	for _, p := range c.order {
		if first, _, below := strings.Cut(p, "/"); !c.wish.Folders && (below || c.root.Lookup(p).Kind == tree.Dir) {
			add(first)
		}
	}
	return out
}

// public says whether everybody may read a path.
func (c *chooser) public(p string) bool {
	if e := c.root.Lookup(p); e.Kind == tree.File && e.Mode&0o004 == 0 {
		return false
	}
	for at := path.Dir(p); at != "."; at = path.Dir(at) {
		if c.root.Lookup(at).Mode&0o001 == 0 {
			return false
		}
	}
	return true
}

func (c *chooser) apartPaths() []string {
	var out []string
	for p := range c.foreign {
		out = append(out, p)
	}
	sort.Strings(out)
	return out
}
