package recipes

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// NodeSet is a set of nodes as an operator writes it: names, ranges and globs
// with commas between them, "n[1-10],m[3,5],login*". The zero value matches
// nothing.
type NodeSet struct {
	names map[string]bool
	globs []string
}

// ParseNodeSet reads a node set. Ranges keep their zeros: "n[01-10]" holds n01
// and not n1. Beside ranges, "*" and "?" stand for any letters.
func ParseNodeSet(s string) (NodeSet, error) {
	set := NodeSet{names: map[string]bool{}}
	for _, item := range splitOutside(s) {
		item = strings.TrimSpace(item)
		if item == "" {
			return NodeSet{}, fmt.Errorf("the node set %s has an empty element: write names with commas between them, such as n[1-10],login", clip(s))
		}
		names, err := expand(item, 10)
		if err != nil {
			return NodeSet{}, fmt.Errorf("the node set %s: %w", clip(s), err)
		}
		set.add(names)
		if len(set.names)+len(set.globs) > maxNames {
			return NodeSet{}, fmt.Errorf("the node set %s stands for more than %d names: use \"*\"", clip(s), maxNames)
		}
	}
	return set, nil
}

func (set *NodeSet) add(names []string) {
	for _, n := range names {
		if strings.ContainsAny(n, "*?\\") {
			set.globs = append(set.globs, strings.ReplaceAll(n, `\`, `\\`))
		} else {
			set.names[n] = true
		}
	}
}

// splitOutside cuts at the commas that stand outside brackets.
func splitOutside(s string) []string {
	var out []string
	start, depth := 0, 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '[':
			depth++
		case ']':
			depth--
		case ',':
			if depth <= 0 {
				out, start = append(out, s[start:i]), i+1
			}
		}
	}
	return append(out, s[start:])
}

// Match says whether a node is in the set.
func (set NodeSet) Match(name string) bool {
	if set.names[name] {
		return true
	}
	for _, g := range set.globs {
		if ok, err := path.Match(g, name); ok && err == nil {
			return true
		}
	}
	return false
}

// Lacks lists what of a set matches none of these nodes, sorted: a name that was
// mistyped, most likely.
func (set NodeSet) Lacks(nodes []string) []string {
	have := map[string]bool{}
	for _, n := range nodes {
		have[n] = true
	}
	var out []string
	for name := range set.names {
		if !have[name] {
			out = append(out, name)
		}
	}
	for _, g := range set.globs {
		matches := func(n string) bool { ok, err := path.Match(g, n); return ok && err == nil }
		if !slices.ContainsFunc(nodes, matches) {
			out = append(out, g)
		}
	}
	slices.Sort(out)
	return out
}

// Select returns the recipe's nodes that a set written as text matches, in the
// recipe's order. An empty text means every node; a set that matches none is
// an error, since it is most likely misspelt.
func (r *Recipe) Select(set string) ([]string, error) {
	match := func(string) bool { return true }
	if set != "" {
		s, err := ParseNodeSet(set)
		if err != nil {
			return nil, err
		}
		match = s.Match
	}
	var out []string
	for i := range r.Nodes {
		if match(r.Nodes[i].Name) {
			out = append(out, r.Nodes[i].Name)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("the node set %s matches no node of the recipe", clip(set))
	}
	return out, nil
}

// Node returns a node by its name, or nil.
func (r *Recipe) Node(name string) *Node {
	for i := range r.Nodes {
		if r.Nodes[i].Name == name {
			return &r.Nodes[i]
		}
	}
	return nil
}
