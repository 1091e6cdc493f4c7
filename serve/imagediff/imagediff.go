// Package imagediff says what differs between two cluster images: nodes, what
// they are told, kernels, packages and files. It reads the layers' indexes,
// and of bodies only the package database, where that differs.
package imagediff

import (
	"fmt"
	"slices"

	"rhizome/registry/imagefmt"
	"rhizome/serve/rootfs"
)

// Node is one node of an image, opened.
type Node struct {
	Cluster imagefmt.Cluster
	Node    imagefmt.Node
	View    *rootfs.View
}

// Field is one value that differs; "" is none.
type Field struct {
	// Name is a path of JSON names: "boot.cmdline", "network.dns.0".
	Name string `json:"name"`
	Old  string `json:"old"`
	New  string `json:"new"`
	// Nodes lists the nodes it differs for; for the cluster's it is empty.
	Nodes []string `json:"nodes,omitempty"`
}

// File is one path that differs.
type File struct {
	Path string `json:"path"`
	// Change is "added", "removed" or "changed".
	Change string `json:"change"`
	// What names the parts that changed, as rootfs.Change.What does.
	What  []string `json:"what,omitempty"`
	Old   *Entry   `json:"old,omitempty"`
	New   *Entry   `json:"new,omitempty"`
	Nodes []string `json:"nodes"`
}

// Entry is a file on one side.
type Entry struct {
	Kind   string `json:"kind"`
	Mode   string `json:"mode"`
	UID    uint32 `json:"uid"`
	GID    uint32 `json:"gid"`
	Size   uint64 `json:"size"`
	Target string `json:"target,omitempty"`
	Digest string `json:"digest,omitempty"`
	Device string `json:"device,omitempty"`
	Flags  string `json:"flags,omitempty"`
	Xattrs string `json:"xattrs,omitempty"`
}

// Report is everything that differs.
type Report struct {
	// NodesAdded and NodesRemoved are names; nothing else is said of them.
	NodesAdded   []string `json:"nodesAdded,omitempty"`
	NodesRemoved []string `json:"nodesRemoved,omitempty"`
	// Cluster holds what all nodes share, Data what each is told.
	Cluster []Field `json:"cluster,omitempty"`
	Data    []Field `json:"data,omitempty"`
	// Kernels are files that boot the node: the name is "kernel" or "initrd",
	// the values path and digest.
	Kernels []Field `json:"kernels,omitempty"`
	// Packages are by name and architecture, "bash:amd64"; values are versions.
	Packages []Field `json:"packages,omitempty"`
	Files    []File  `json:"files,omitempty"`
}

// Empty says whether the two are alike.
func (r *Report) Empty() bool {
	return len(r.NodesAdded)+len(r.NodesRemoved)+len(r.Cluster)+len(r.Data)+len(r.Kernels)+len(r.Packages)+len(r.Files) == 0
}

// Compare compares two images node by node, by the nodes' names.
func Compare(older, newer []Node) (*Report, error) {
	b := builder{fields: [3]map[value][]string{{}, {}, {}}, files: map[rootfs.Change][]string{}}
	before, after := byName(older), byName(newer)
	r := &Report{}
	for _, n := range older {
		other, ok := after[n.Node.Name]
		if !ok {
			r.NodesRemoved = append(r.NodesRemoved, n.Node.Name)
			continue
		}
		if err := b.node(n, other); err != nil {
			return nil, fmt.Errorf("comparing node %q: %w", n.Node.Name, err)
		}
	}
	for _, n := range newer {
		if _, ok := before[n.Node.Name]; !ok {
			r.NodesAdded = append(r.NodesAdded, n.Node.Name)
		}
	}
	slices.Sort(r.NodesAdded)
	slices.Sort(r.NodesRemoved)
	if len(older) > 0 && len(newer) > 0 {
		for _, v := range compareFields(older[0].Cluster, newer[0].Cluster) {
			r.Cluster = append(r.Cluster, Field{Name: v.name, Old: v.old, New: v.new})
		}
	}
	r.Data, r.Kernels, r.Packages = sorted(b.fields[data]), sorted(b.fields[kernels]), sorted(b.fields[packages])
	r.Files = sortedFiles(b.files)
	return r, nil
}

func byName(nodes []Node) map[string]Node {
	m := map[string]Node{}
	for _, n := range nodes {
		m[n.Node.Name] = n
	}
	return m
}

// The kinds of field that a builder gathers.
const (
	data = iota
	kernels
	packages
)

// value is a Field without its nodes.
type value struct{ name, old, new string }

// builder gathers what differs, with the nodes that it differs for: most of an
// image's changes are the same on all of its nodes.
type builder struct {
	fields [3]map[value][]string
	files  map[rootfs.Change][]string
}

func (b *builder) node(old, new Node) error {
	name := new.Node.Name
	b.add(data, name, compareFields(old.Node, new.Node))
	boots, err := compareKernels(old, new)
	if err != nil {
		return err
	}
	b.add(kernels, name, boots)
	changes, err := rootfs.Compare(old.View, new.View)
	if err != nil {
		return err
	}
	for _, c := range changes {
		b.files[c] = append(b.files[c], name)
	}
	installed, err := comparePackages(old.View, new.View)
	b.add(packages, name, installed)
	return err
}

func (b *builder) add(kind int, node string, values []value) {
	for _, v := range values {
		b.fields[kind][v] = append(b.fields[kind][v], node)
	}
}
