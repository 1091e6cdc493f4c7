package imagediff

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"rhizome/serve/rootfs"
)

func sorted(values map[value][]string) []Field {
	var out []Field
	for v, nodes := range values {
		slices.Sort(nodes)
		out = append(out, Field{Name: v.name, Old: v.old, New: v.new, Nodes: nodes})
	}
	slices.SortFunc(out, func(a, b Field) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), slices.Compare(a.Nodes, b.Nodes), cmp.Compare(a.Old, b.Old), cmp.Compare(a.New, b.New))
	})
	return out
}

func sortedFiles(changes map[rootfs.Change][]string) []File {
	var out []File
	for c, nodes := range changes {
		slices.Sort(nodes)
		f := File{Path: c.Path, Change: "changed", What: c.What(), Old: entry(c.Old), New: entry(c.New), Nodes: nodes}
		if f.Old == nil {
			f.Change = "added"
		} else if f.New == nil {
			f.Change = "removed"
		}
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b File) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), slices.Compare(a.Nodes, b.Nodes))
	})
	return out
}

func entry(e rootfs.Entry) *Entry {
	if e.Kind == 0 {
		return nil
	}
	out := &Entry{Kind: e.Kind.String(), Mode: fmt.Sprintf("%04o", e.Mode), UID: e.UID, GID: e.GID, Size: e.Size,
		Target: e.Target, Flags: e.Flags, Xattrs: strings.TrimSpace(e.Xattrs)}
	switch e.Kind {
	case rootfs.Regular:
		out.Digest = fmt.Sprintf("sha256:%x", e.Digest)
	case rootfs.Char, rootfs.Block:
		out.Device = fmt.Sprintf("%d,%d", e.Major, e.Minor)
	}
	return out
}
