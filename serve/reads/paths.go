package reads

import (
	"runtime"
	"strings"

	"rhizome/registry/layerfmt"
	"rhizome/serve/rootfs"
)

// paths turns counts by file into counts by path. A file with several names
// goes by one of them. A path that leads through a symlink of a lower layer
// stays as its own layer has it: it leads to the same file.
func paths(v *rootfs.View, counted map[rootfs.File]Counts) map[string]Counts {
	out := make(map[string]Counts, len(counted))
	names := map[uint16]*naming{}
	for f, n := range counted {
		at := names[f.Layer]
		if at == nil {
			at = newNaming(v.Layers()[f.Layer].Index())
			names[f.Layer] = at
		}
		p := at.path(layerfmt.Inode(f.Inode))
		sum := out[p]
		sum.Add(n)
		out[p] = sum
	}
	runtime.KeepAlive(v)
	return out
}

// naming finds the way from an inode of a layer up to the root.
type naming struct {
	x *layerfmt.Index
	// up is the directory that an inode lies in, and at the place of its name.
	up []layerfmt.Inode
	at []int
}

func newNaming(x *layerfmt.Index) *naming {
	n := &naming{x: x, up: make([]layerfmt.Inode, x.Len()+1), at: make([]int, x.Len()+1)}
	for dir := layerfmt.Root; int(dir) <= x.Len(); dir++ {
		first, count := x.Children(dir)
		for at := first; at < first+count; at++ {
			if i := x.Dirent(at).Inode; n.up[i] == 0 {
				n.up[i], n.at[i] = dir, at
			}
		}
	}
	return n
}

// path is an inode's absolute path.
func (n *naming) path(i layerfmt.Inode) string {
	var parts []string
	for i != layerfmt.Root && int(i) < len(n.up) && n.up[i] != 0 && len(parts) < layerfmt.MaxPath {
		parts = append(parts, n.x.Dirent(n.at[i]).Name)
		i = n.up[i]
	}
	var b strings.Builder
	for k := len(parts) - 1; k >= 0; k-- {
		b.WriteByte('/')
		b.WriteString(parts[k])
	}
	if b.Len() == 0 {
		return "/"
	}
	return b.String()
}
