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
	// content is of an image's file what names its bytes.
	content string
}

// regionList is a region as it is at one time, parents before children, names
// sorted.
type regionList struct {
	x       *export
	entries []regionEntry
	// alone says that the export is held for writing already.
	alone bool
	// kinds are made by kindOf.
	kinds map[string]kind
}

// with calls fn with the export in use: for a short while each time, since a
// commit that waits for the export holds up all who come after it.
func (l *regionList) with(fn func() error) error {
	if l.alone {
		return fn()
	}
	if !l.x.enter() {
		return errElsewhere
	}
	defer l.x.leave()
	return fn()
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
		x.leave()
		if err := l.add(ctx, x, p); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// add lists one place.
func (l *regionList) add(ctx context.Context, x *export, p place) error {
	l.x = x
	var top object
	err := l.with(func() (err error) {
		top, err = p.find(x)
		return err
	})
	if err != nil {
		return err
	}
	defer top.close()
	if err := l.walk(ctx, top, p.below, p.node[1:], 0); err != nil {
		return fmt.Errorf("reading %q: %w", p.node, err)
	}
	return nil
}

func (l *regionList) walk(ctx context.Context, o object, at, node string, depth int) error {
	if depth > maxDepth {
		return wrong("%q lies more than %d folders deep", node, maxDepth)
	}
	var names []string
	err := l.with(func() (err error) {
		names, err = l.note(o, at, node)
		return err
	})
	for _, name := range names {
		if err := errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		var child object
		err = l.with(func() (err error) {
			child, err = o.lookup(name)
			return err
		})
		if err == nil {
			err = l.walk(ctx, child, path.Join(at, name), path.Join(node, name), depth+1)
			child.close()
		}
		if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ESTALE) {
			err = nil // it went away meanwhile, and the version will tell
		}
	}
	return err
}

// note adds an object, and gives the names in it.
func (l *regionList) note(o object, at, node string) (names []string, err error) {
	a, err := o.attr()
	if err != nil {
		return nil, err
	}
	e := regionEntry{export: at, node: node, id: o.id(nil), attr: a}
	switch a.kind {
	case kindSymlink:
		e.target, err = o.readlink()
	case kindDir:
		names, err = namesIn(o)
	case kindRegular:
		if x, ok := o.(*overlayObject); ok {
			e.content, err = x.content()
		}
	}
	l.entries = append(l.entries, e)
	return names, err
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
// of it, so that a file that was replaced by one of the same age is seen. So is
// an image's file's digest: in images all files are of one age. Times of status
// change are not, since hard links of ours change them.
func (l *regionList) version() string {
	h := sha256.New()
	for i := range l.entries {
		e := &l.entries[i]
		a := &e.attr
		size := a.size
		if a.kind == kindDir {
			size = 0
		}
		fmt.Fprintf(h, "%q %d %o %d %d %d %d.%09d %q %d:%d %d%s\n", e.export, a.kind, a.mode, a.uid, a.gid, size,
			a.mtime.Sec, a.mtime.Nsec, e.target, a.major, a.minor, a.fileid, e.content)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// links are the names of files that have several, by fileid.
func (l *regionList) links() map[uint64][]string {
	all := map[uint64][]string{}
	for i := range l.entries {
		if e := &l.entries[i]; e.attr.nlink > 1 && e.attr.kind != kindDir {
			all[e.attr.fileid] = append(all[e.attr.fileid], e.export)
		}
	}
	return all
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
