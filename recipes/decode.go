package recipes

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// A mapping is the table of the keys that one kind of YAML mapping may have.
// The decoder and the reference documentation both go by it.
type mapping[T any] struct {
	// title names the mapping in messages ("a kernel stage") and in docs.
	title string
	intro string
	keys  []key[T]
	// short is the key that a plain text stands for, where the whole mapping
	// may be written as one.
	short string
	pos   func(*T) *Pos
}

// A key is one row of the table.
type key[T any] struct {
	name string
	// shape is the type in words; def, doc and example go into the docs.
	shape, def, doc, example string
	required                 bool
	set                      setter[T]
}

// A setter reads a YAML value into its field, or reports why it cannot.
type setter[T any] func(d *decoder, n *yaml.Node, into *T)

type placer interface{ place(key string, at Pos) }

// decode fills a value from a YAML mapping and reports unknown, repeated and
// missing keys.
func (m mapping[T]) decode(d *decoder, n *yaml.Node, into *T) {
	if m.pos != nil {
		*m.pos(into) = d.pos(n)
	}
	if n.Kind == yaml.ScalarNode && n.Tag != "!!null" && m.short != "" {
		n = &yaml.Node{Kind: yaml.MappingNode, Line: n.Line, Column: n.Column, Content: []*yaml.Node{
			{Kind: yaml.ScalarNode, Tag: "!!str", Value: m.short, Line: n.Line, Column: n.Column}, n}}
	}
	if n.Kind != yaml.MappingNode && !null(n) {
		d.fail(n, fmt.Sprintf("%s is a mapping of keys and values, not %s", m.title, shapeOf(n)), "its keys are "+m.names())
		return
	}
	seen := map[string]int{}
	outer := d.key
	for i := 0; i+1 < len(n.Content); i += 2 {
		m.pair(d, n.Content[i], n.Content[i+1], seen, into)
	}
	d.key = outer
	for _, k := range m.keys {
		if _, ok := seen[k.name]; k.required && !ok {
			d.fail(n, fmt.Sprintf("%s has no %q", m.title, k.name), "add "+k.example)
		}
	}
}

func (m mapping[T]) pair(d *decoder, name, value *yaml.Node, seen map[string]int, into *T) {
	if name.Kind != yaml.ScalarNode {
		d.fail(name, fmt.Sprintf("a key is a word, not %s", shapeOf(name)), "")
		return
	}
	i := slices.IndexFunc(m.keys, func(k key[T]) bool { return k.name == name.Value })
	if i < 0 {
		d.fail(name, fmt.Sprintf("unknown key %s in %s", clip(name.Value), m.title), m.suggest(name.Value))
		return
	}
	if line, ok := seen[name.Value]; ok {
		d.fail(name, fmt.Sprintf("the key %q is repeated; line %d has it already", name.Value, line), "keep one of the two")
		return
	}
	seen[name.Value] = name.Line
	if p, ok := any(into).(placer); ok {
		p.place(name.Value, d.pos(value))
	}
	d.key = name.Value
	m.keys[i].set(d, value, into)
}

func (m mapping[T]) names() string {
	names := make([]string, len(m.keys))
	for i, k := range m.keys {
		names[i] = k.name
	}
	return strings.Join(names, ", ")
}

// suggest names the key that a typing error most likely meant, or all keys.
func (m mapping[T]) suggest(wrong string) string {
	best, least := "", 1+len(wrong)/3
	for _, k := range m.keys {
		if dist := distance(wrong, k.name); dist <= least {
			best, least = k.name, dist-1
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	return "the keys here are " + m.names()
}

// distance is the number of letters to insert, drop, change or swap with their
// neighbour to turn one word into the other (optimal string alignment).
func distance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	var before, last []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+differ(a[i-1], b[j-1]))
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}

func differ(a, b byte) int {
	if a == b {
		return 0
	}
	return 1
}

func null(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func shapeOf(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case null(n):
		return "nothing"
	}
	return "the value " + clip(n.Value)
}

// clip quotes a value for a message, shortened where somebody put a book there.
func clip(s string) string {
	if len(s) > 80 {
		s = strings.ToValidUTF8(s[:77], "") + "..."
	}
	return strconv.Quote(s)
}
