package tree

// Merge lays the entries of another tree over this one, by the rules of
// layers: a whiteout removes, an opaque directory empties first, an implied
// directory changes nothing that is there, be it a symlink to a directory (see
// Lead). A file that loses the name it was
// linked to lives on under its others.
func (t *Tree) Merge(upper *Tree) error { return t.lay(upper, t.mergeEntry) }

// Stack makes one layer of two: this tree is a layer, upper the one above it,
// and what they hide of layers further below stays hidden. Merging the stack
// onto any tree gives what merging both in order gives.
func (t *Tree) Stack(upper *Tree) error { return t.lay(upper, t.stackEntry) }

func (t *Tree) lay(upper *Tree, one func(*Entry) error) error {
	groups := t.links()
	upper, _, _, err := t.Lead(upper)
	if err != nil {
		return err
	}
	for _, e := range upper.Entries() {
		if err := one(e); err != nil {
			return err
		}
	}
	for _, g := range groups {
		t.heal(g)
	}
	return nil
}

func (t *Tree) mergeEntry(e *Entry) error {
	old := t.entries[e.Path]
	if e.Kind == Whiteout {
		t.drop(e.Path)
		return nil
	}
	if e.Kind == Dir && e.Opaque {
		t.removeBelow(e.Path)
	}
	if e.Implied && old != nil && old.Kind == Dir {
		return nil
	}
	c := *e
	c.Opaque = false
	return t.Add(c)
}

// stackEntry differs from mergeEntry in that it keeps what hides.
func (t *Tree) stackEntry(e *Entry) error {
	old := t.entries[e.Path]
	c := *e
	switch {
	case e.Kind == Whiteout:
		t.drop(e.Path)
	case e.Kind == Dir && old != nil && old.Kind == Dir:
		if e.Opaque {
			t.removeBelow(e.Path)
		}
		if e.Implied {
			c = *old
		}
		c.Opaque = e.Opaque || old.Opaque
	case e.Kind == Dir && old != nil:
		// What lies below this layer was hidden by what stood here.
		c.Opaque, c.Implied = true, false
	}
	return t.Add(c)
}

// drop is Remove for a clean path, and quick for what is no directory.
func (t *Tree) drop(p string) {
	e := t.entries[p]
	if e == nil || p == "." {
		return
	}
	if e.Kind == Dir {
		t.removeBelow(p)
	}
	delete(t.entries, p)
}

// links lists the groups of hard links as they are now, each with the entry
// that carries the body first.
func (t *Tree) links() [][]*Entry {
	at := map[string]int{}
	var groups [][]*Entry
	for _, e := range t.Entries() {
		if e.Link == "" {
			continue
		}
		root, err := t.linkRoot(e)
		if err != nil {
			continue // Normalize reports it
		}
		i, ok := at[root]
		if !ok {
			i = len(groups)
			at[root] = i
			groups = append(groups, []*Entry{t.entries[root]})
		}
		groups[i] = append(groups[i], e)
	}
	return groups
}

// heal gives a group whose first name is gone, or is another file now, to the
// names that are left.
func (t *Tree) heal(group []*Entry) {
	head := group[0]
	if t.entries[head.Path] == head {
		return
	}
	var first *Entry
	for _, e := range group[1:] {
		if t.entries[e.Path] != e {
			continue
		}
		c := *head
		c.Path = e.Path
		if first == nil {
			first = &c
		} else {
			c.Link, c.Body = first.Path, nil
		}
		t.entries[e.Path] = &c
	}
}
