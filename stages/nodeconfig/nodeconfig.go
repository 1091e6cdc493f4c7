// Package nodeconfig makes what a diskless node needs to know about itself:
// its name, its identity, its file systems, its network. Two trees come of it.
// Common is the same on every node (hosts, resolv.conf) and is stored once;
// Build is the small layer of one node.
package nodeconfig

import (
	"crypto/sha256"
	"fmt"
	"path"
	"strings"

	"rhizome/pipeline/tree"
	"rhizome/recipes"
)

// Version is raised whenever this package makes other files of the same recipe.
const Version = 2

// Common makes the files that all nodes share. The names of all nodes are
// here, not in each node's layer: a thousand copies of a thousand lines would
// be the largest part of the image.
func Common(r *recipes.Recipe) (*tree.Tree, error) {
	w := newWriter()
	w.text("etc/hosts", hosts(r))
	w.text("etc/resolv.conf", resolvConf(r.Network))
	return w.done("what all nodes share")
}

// Build makes the files of one node.
func Build(r *recipes.Recipe, n *recipes.Node) (*tree.Tree, error) {
	w := newWriter()
	switch r.OS {
	case "freebsd":
		freebsd(w, r, n)
	default:
		linux(w, r, n)
	}
	return w.done(fmt.Sprintf("the configuration of node %q", n.Name))
}

// writer puts files into a tree and keeps the first error.
type writer struct {
	tree *tree.Tree
	err  error
}

func newWriter() *writer { return &writer{tree: tree.New()} }

func (w *writer) text(p, content string) {
	w.add(tree.Entry{Path: p, Kind: tree.File, Mode: 0o644, Body: tree.Text(content)})
}

// mountPoint makes the folder that something is mounted on. It must be there:
// on a read-only root nothing can make it at boot, and a failed mount stops
// systemd in its emergency mode.
func (w *writer) mountPoint(p string, mode uint32) {
	w.add(tree.Entry{Path: p, Kind: tree.Dir, Mode: mode})
}

func (w *writer) add(e tree.Entry) {
	if w.err == nil {
		w.err = w.tree.Add(e)
	}
}

func (w *writer) done(what string) (*tree.Tree, error) {
	if w.err != nil {
		return nil, fmt.Errorf("making %s: %w", what, w.err)
	}
	return w.tree, nil
}

// hosts is hosts(5): the loopback, the server, every node. A node's own name is
// bound to its real address, so that daemons listen where others reach them.
func hosts(r *recipes.Recipe) string {
	var b strings.Builder
	b.WriteString("# Made by rhizome from the recipe; change it there.\n")
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	if r.Node(serverName) == nil {
		fmt.Fprintf(&b, "%s\t%s\n", r.Network.Server, named(serverName, r.Network.Domain))
	}
	for i := range r.Nodes {
		fmt.Fprintf(&b, "%s\t%s\n", r.Nodes[i].Address, named(r.Nodes[i].Name, r.Network.Domain))
	}
	return b.String()
}

// serverName is what nodes call the machine that serves them, unless a node
// has that name.
const serverName = "rhizome"

func named(name, domain string) string {
	if domain == "" {
		return name
	}
	return name + "." + domain + " " + name
}

// resolvConf is resolv.conf(5). It is made even where there is no name server:
// what mmdebstrap or FreeBSD's rc would leave there is the build host's, or
// cannot be written.
func resolvConf(n recipes.Network) string {
	var b strings.Builder
	b.WriteString("# Made by rhizome from the recipe; change it there.\n")
	if n.Domain != "" {
		fmt.Fprintf(&b, "search %s\n", n.Domain)
	}
	for _, a := range n.DNS {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	return b.String()
}

// MachineID is the node's identity as machine-id(5) wants it: 32 hexadecimal
// digits of a UUID. It is derived from the names of cluster and node, so that
// it is one per node, stays through versions, and is known before a boot.
func MachineID(cluster, node string) string {
	sum := sha256.Sum256([]byte("rhizome machine-id\x00" + cluster + "\x00" + node))
	id := sum[:16]
	// RFC 9562, section 5.8: version 8, custom; and the variant.
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return fmt.Sprintf("%x", id)
}

// hostUUID is MachineID with the dashes that hostid(8) wants.
func hostUUID(cluster, node string) string {
	id := MachineID(cluster, node)
	return strings.Join([]string{id[:8], id[8:12], id[12:16], id[16:20], id[20:]}, "-")
}

// memory is one tmpfs of a node.
type memory struct {
	on, size string
	mode     uint32
}

// tmpfsOf lays the recipe's tmpfs over the usual ones. A size of "none" takes
// one away.
func tmpfsOf(usual []memory, n *recipes.Node) []memory {
	out := append([]memory{}, usual...)
	for _, kv := range n.Tmpfs {
		on, at := path.Clean(kv.Key), -1
		for i := range out {
			if out[i].on == on {
				at = i
			}
		}
		if at < 0 {
			out, at = append(out, memory{on: on, mode: 0o755}), len(out)
		}
		out[at].size = strings.ToLower(kv.Value)
	}
	kept := out[:0]
	for _, m := range out {
		if m.size != "none" {
			kept = append(kept, m)
		}
	}
	return kept
}

// fstab is fstab(5): the tmpfs, then the recipe's own lines. The root is not in
// it: the kernel has mounted it, and a line for it would have it mounted again.
func fstab(w *writer, usual []memory, n *recipes.Node) {
	var b strings.Builder
	b.WriteString("# Made by rhizome from the recipe; change it there.\n")
	for _, m := range fstabMemory(w, usual, n) {
		options := fmt.Sprintf("rw,nosuid,mode=%04o", m.mode)
		if m.size != "" {
			options += ",size=" + m.size
		}
		fmt.Fprintf(&b, "tmpfs\t%s\ttmpfs\t%s\t0\t0\n", m.on, options)
		w.mountPoint(m.on, m.mode)
	}
	for _, l := range n.Fstab {
		f := recipes.FstabFields(l.Text)
		fmt.Fprintln(&b, strings.TrimSpace(l.Text))
		if len(f) >= 2 && path.IsAbs(f[1]) {
			w.userMount(unescaped(f[1]))
		}
	}
	w.text("etc/fstab", b.String())
}

// unescaped is a field of fstab(5) as mount(8) reads it: a blank within a name is
// written as a backslash and three octal digits.
func unescaped(field string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(field)
}

// fstabMemory is what is laid by fstab: nothing, where the early script does it.
func fstabMemory(w *writer, usual []memory, n *recipes.Node) []memory {
	if !n.Early {
		return tmpfsOf(usual, n)
	}
	early(w, n)
	return nil
}

// userMount makes the mount point of a line that the recipe gives, unless it
// lies on a tmpfs or is one already.
func (w *writer) userMount(on string) {
	if w.err != nil || w.tree.Lookup(on) != nil && !w.tree.Lookup(on).Implied {
		return
	}
	w.mountPoint(on, 0o755)
}

// persist makes the place of the node's writable export; the early script
// mounts it.
func persist(w *writer, n *recipes.Node) {
	if n.Persist != "" {
		w.userMount(n.Persist)
	}
}
