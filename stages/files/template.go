package files

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"path"
	"strconv"
	"strings"
	"text/template"

	"rhizome/pipeline/tree"
	"rhizome/recipes"
)

// suffix marks a template; it is taken off the name.
const suffix = ".tmpl"

// maxTemplate bounds a template's text and what becomes of it, in bytes. Loops
// in loops over thousands of nodes grow without anybody noticing.
const maxTemplate = 16 << 20

// ClusterView is what the templates of a files stage see. The stage's layer is the
// same on every node, so nothing of a single node is here.
type ClusterView struct {
	// Cluster is the recipe's name.
	Cluster  string
	OS, Arch string
	Network  recipes.Network
	Nodes    []Member
}

// Member is a node as others see it.
type Member struct {
	Name    string
	Address netip.Addr
	MACs    []string
	// MAC is the first of MACs.
	MAC string
}

// NodeView is what the templates of a node's own files see: the node, and the
// cluster around it.
type NodeView struct {
	ClusterView
	Member
	Kernel, Root, Etc, Persist string
}

// ClusterValues takes the values for a files stage out of a recipe.
func ClusterValues(r *recipes.Recipe) ClusterView {
	c := ClusterView{Cluster: r.Name, OS: r.OS, Arch: r.Arch, Network: r.Network}
	for i := range r.Nodes {
		c.Nodes = append(c.Nodes, member(&r.Nodes[i]))
	}
	return c
}

// NodeValues takes the values for one node's files; c is the recipe's
// ClusterValues, handed in because all nodes share it.
func NodeValues(c ClusterView, n *recipes.Node) NodeView {
	return NodeView{ClusterView: c, Member: member(n), Kernel: n.Kernel, Root: n.Root, Etc: n.Etc, Persist: n.Persist}
}

func member(n *recipes.Node) Member {
	m := Member{Name: n.Name, Address: n.Address, MACs: n.MACs}
	if len(m.MACs) > 0 {
		m.MAC = m.MACs[0]
	}
	return m
}

// expand reads a template and returns what it becomes. The error names the
// file, the line and the column, as text/template has them.
func expand(fsys fs.FS, name string, values any) (tree.Body, error) {
	text, err := fs.ReadFile(fsys, name)
	if err != nil {
		return nil, err
	}
	if len(text) > maxTemplate {
		return nil, fmt.Errorf("the template %q has %d bytes; a template has at most %d", name, len(text), maxTemplate)
	}
	t, err := template.New(name).Option("missingkey=error").Funcs(functions()).Parse(string(text))
	if err != nil {
		return nil, sentence(err)
	}
	// A template that calls itself runs for hours before text/template gives
	// up; one file needs no others.
	if len(t.Templates()) > 1 {
		return nil, fmt.Errorf("%s: {{define}} and {{block}} are not available here", name)
	}
	var out bounded
	if err := t.Execute(&out, values); err != nil {
		return nil, sentence(err)
	}
	return tree.Text(out.String()), nil
}

// sentence turns `template: motd.tmpl:3:5: executing "motd.tmpl" at <.Nme>:
// ...` into something that begins with the place.
func sentence(err error) error {
	return errors.New(strings.TrimPrefix(err.Error(), "template: "))
}

// bounded is a text that refuses to grow beyond maxTemplate.
type bounded struct{ strings.Builder }

// Write appends, or reports that the template makes too much.
func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxTemplate {
		return 0, fmt.Errorf("the template makes more than %d bytes", maxTemplate)
	}
	return b.Builder.Write(p)
}

var _ io.Writer = (*bounded)(nil)

// functions are what templates may call beside the language's own. Each is in
// docs/recipes.md.
func functions() template.FuncMap {
	return template.FuncMap{
		"join":       func(sep string, list []string) string { return strings.Join(list, sep) },
		"split":      func(sep, s string) []string { return strings.Split(s, sep) },
		"lower":      strings.ToLower,
		"upper":      strings.ToUpper,
		"trim":       strings.TrimSpace,
		"replace":    func(old, new, s string) string { return strings.ReplaceAll(s, old, new) },
		"indent":     indent,
		"quote":      strconv.Quote,
		"shquote":    shquote,
		"default":    fallback,
		"hasPrefix":  func(prefix, s string) bool { return strings.HasPrefix(s, prefix) },
		"hasSuffix":  func(suffix, s string) bool { return strings.HasSuffix(s, suffix) },
		"basename":   path.Base,
		"netmask":    recipes.Netmask,
		"broadcast":  recipes.Broadcast,
		"prefixlen":  netip.Prefix.Bits,
		"networkID":  func(p netip.Prefix) netip.Addr { return p.Masked().Addr() },
		"macdashes":  func(mac string) string { return strings.ReplaceAll(mac, ":", "-") },
		"fqdn":       fqdn,
		"selectName": selectName,
	}
}

func indent(spaces int, s string) string {
	if spaces < 0 || spaces > 64 {
		return s
	}
	return strings.ReplaceAll(s, "\n", "\n"+strings.Repeat(" ", spaces))
}

// shquote makes one word of a POSIX shell (IEEE 1003.1, 2.2.2).
func shquote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func fallback(def string, value any) string {
	s := fmt.Sprint(value)
	if s == "" || s == "invalid IP" || s == "invalid Prefix" || s == "0" || value == nil {
		return def
	}
	return s
}

func fqdn(domain, name string) string {
	if domain == "" {
		return name
	}
	return name + "." + domain
}

// selectName keeps the nodes that a node set names.
func selectName(set string, list []Member) ([]Member, error) {
	s, err := recipes.ParseNodeSet(set)
	if err != nil {
		return nil, err
	}
	var out []Member
	for _, m := range list {
		if s.Match(m.Name) {
			out = append(out, m)
		}
	}
	return out, nil
}
