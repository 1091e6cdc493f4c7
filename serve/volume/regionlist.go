package volume

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"
	"syscall"
)

// regionEntry is an object of a region.
type regionEntry struct {
	// export is the path as the export has it, node as the node has it; both
	// without a slash at the ends.
	export, node string
	id           []byte
	attr         attr
	target       string
}

// regionList is a region as it is at one time, parents before children, names
// sorted.
type regionList struct {
	x       *export
	entries []regionEntry
	// kinds are made by kindOf.
	kinds map[string]kind
}

// kindOf is the kind of what the export has at a path, or 0.
func (l *regionList) kindOf(p string) kind {
	if l.kinds == nil {
		l.kinds = map[string]kind{}
		for i := range l.entries {
			l.kinds[l.entries[i].export] = l.entries[i].attr.kind
		}
	}
	return l.kinds[p]
}

// maxDepth is how many folders deep a region may be.
const maxDepth = 256

// list reads what a region has. Places of several exports are one after
// another; x is that of the last.
func (r *Regions) list(ctx context.Context, n *Node, at []place) (*regionList, error) {
	l := &regionList{}
	for _, p := range at {
		x, err := r.v.use(n, p.spec)
		if err != nil {
			return nil, fmt.Errorf("leasing %q: %w", p.node, err)
		}
		err = l.add(ctx, x, p)
		x.leave()
		if err != nil {
			return nil, err
		}
	}
	return l, nil
}

// add lists one place; the export is in use.
func (l *regionList) add(ctx context.Context, x *export, p place) error {
	l.x = x
	o, err := p.find(x)
	if err != nil {
		return err
	}
	defer o.close()
	if err := l.walk(ctx, o, p.below, p.node[1:], 0); err != nil {
		return fmt.Errorf("reading %q: %w", p.node, err)
	}
	return nil
}

func (l *regionList) walk(ctx context.Context, o object, at, node string, depth int) error {
	a, err := o.attr()
	if err != nil {
		return err
	}
	e := regionEntry{export: at, node: node, id: o.id(nil), attr: a}
	if a.kind == kindSymlink {
		if e.target, err = o.readlink(); err != nil {
			return err
		}
	}
	l.entries = append(l.entries, e)
	if a.kind != kindDir {
		return nil
	}
	if depth > maxDepth {
		return wrong("%q lies more than %d folders deep", node, maxDepth)
	}
	names, err := namesIn(o)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		child, err := o.lookup(name)
		if errors.Is(err, syscall.ENOENT) {
			continue // it went away meanwhile, and the version will tell
		}
		if err == nil {
			err = l.walk(ctx, child, path.Join(at, name), path.Join(node, name), depth+1)
			child.close()
		}
		if err != nil && !errors.Is(err, syscall.ESTALE) {
			return err
		}
	}
	return nil
}

// namesIn lists a directory, sorted.
func namesIn(o object) ([]string, error) {
	var names []string
	err := o.list(0, func(d dirent) bool {
		if !isDots(d.name) {
			names = append(names, d.name)
		}
		return true
	})
	slices.Sort(names)
	return names, err
}

// version is a digest of all that the region is, but for the bytes in files:
// those cannot change without time and size but on purpose. The inode is part
// of it, so that a file that was replaced by one of the same age is seen. Times
// of status change are not, since hard links of ours change them.
func (l *regionList) version() string {
	h := sha256.New()
	for i := range l.entries {
		e := &l.entries[i]
		a := &e.attr
		size := a.size
		if a.kind == kindDir {
			size = 0
		}
		fmt.Fprintf(h, "%q %d %o %d %d %d %d.%09d %q %d:%d %d\n", e.export, a.kind, a.mode, a.uid, a.gid, size,
			a.mtime.Sec, a.mtime.Nsec, e.target, a.major, a.minor, a.fileid)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// bytes sums the files' sizes, each once.
func (l *regionList) bytes() (sum int64) {
	seen := map[uint64]bool{}
	for i := range l.entries {
		a := &l.entries[i].attr
		if a.kind == kindRegular && (a.nlink < 2 || !seen[a.fileid]) {
			seen[a.fileid] = true
			sum += int64(a.size)
		}
	}
	return sum
}
