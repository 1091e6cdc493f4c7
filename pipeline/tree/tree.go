// Package tree holds a root file system as a value: paths with their owner,
// mode, flags, extended attributes, devices and hard links, apart from any
// disk. A stage makes a Tree; package pipeline/layer turns it into a layer.
package tree

import (
	"fmt"
	"io"
	"io/fs"
	"path"
	"sort"
	"strings"
)

// Kind says what an entry is.
type Kind uint8

// The kinds of entry a layer can carry. Sockets are left out on purpose: they
// belong to a running process, never to an image.
const (
	Dir Kind = iota + 1
	File
	Symlink
	CharDevice
	BlockDevice
	Fifo
	// Whiteout hides the same path of the layers below (OCI image-spec,
	// layer.md, "Whiteouts").
	Whiteout
)

var kindNames = [...]string{"?", "directory", "file", "symlink", "character device", "block device", "fifo", "whiteout"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", k)
}

// Body is the content of a regular file. Open may be called more than once;
// every reader it returns yields exactly Size bytes.
type Body interface {
	Open() (io.ReadCloser, error)
	Size() int64
}

// Entry is one path of a tree.
type Entry struct {
	// Path is slash-separated, relative and clean; "." is the root.
	Path string
	Kind Kind
	// Mode holds the permission bits with setuid, setgid and sticky (07777).
	Mode uint32
	UID  uint32
	GID  uint32
	// Flags are FreeBSD file flags as chflags(1) names them, comma-separated
	// and sorted, such as "schg". Kept as SCHILY.fflags.
	Flags string
	// Xattrs maps the full name ("security.capability") to its value.
	Xattrs map[string]string
	// Major and Minor number a device.
	Major, Minor uint32
	// Target is a symlink's text, kept as it is.
	Target string
	// Link is the path of the file that this one is a hard link to; the other
	// fields are then those of that file. The group's first path in order is
	// the one that carries the body (see Tree.Normalize).
	Link string
	// Opaque marks a directory that hides everything below it in the layers
	// under this one (OCI image-spec, layer.md, "Opaque Whiteout").
	Opaque bool
	// Implied marks a directory that nothing described: it was made because
	// something lies in it. An upper layer's implied directory leaves a lower
	// layer's owner and mode alone, so it is not written to the layer.
	Implied bool
	// Body is the content of a File without Link; nil is an empty file.
	Body Body
}

// Size is the length of the entry's body in bytes.
func (e *Entry) Size() int64 {
	if e.Body == nil {
		return 0
	}
	return e.Body.Size()
}

// Tree is a set of entries by path. The zero value is not usable; call New.
type Tree struct {
	entries map[string]*Entry
}

// New returns a tree that holds nothing but an implied root.
func New() *Tree {
	t := &Tree{entries: map[string]*Entry{}}
	t.entries["."] = &Entry{Path: ".", Kind: Dir, Mode: 0o755, Implied: true}
	return t
}

// Clean turns "/etc/rc.conf", "./etc/rc.conf" or "etc/rc.conf/" into
// "etc/rc.conf". It refuses a path that leads out of the root, an empty one,
// and one with a NUL.
func Clean(p string) (string, error) {
	if p == "" || strings.ContainsRune(p, 0) {
		return "", fmt.Errorf("path %q is empty or holds a NUL byte", p)
	}
	for _, part := range strings.Split(p, "/") {
		if part == ".." {
			return "", fmt.Errorf("path %q leads out of the root through \"..\"", p)
		}
	}
	c := strings.TrimPrefix(path.Clean("/"+p), "/")
	if c == "" {
		c = "."
	}
	return c, nil
}

// Add puts an entry into the tree, in place of an earlier one at that path,
// and makes the directories above it where nothing described them.
func (t *Tree) Add(e Entry) error {
	p, err := Clean(e.Path)
	if err != nil {
		return err
	}
	e.Path = p
	if p == "." && e.Kind != Dir {
		return fmt.Errorf("the root cannot be a %s", e.Kind)
	}
	if err := t.imply(path.Dir(p), p); err != nil {
		return err
	}
	if old := t.entries[p]; old != nil && old.Kind == Dir && e.Kind != Dir {
		t.removeBelow(p)
	}
	t.entries[p] = &e
	return nil
}

func (t *Tree) imply(dir, why string) error {
	for {
		e := t.entries[dir]
		if e != nil && e.Kind == Dir {
			return nil
		}
		if e != nil {
			return fmt.Errorf("adding %q: %q is a %s, not a directory", why, dir, e.Kind)
		}
		t.entries[dir] = &Entry{Path: dir, Kind: Dir, Mode: 0o755, Implied: true}
		dir = path.Dir(dir)
	}
}

func (t *Tree) removeBelow(p string) {
	prefix := p + "/"
	for k := range t.entries {
		if strings.HasPrefix(k, prefix) {
			delete(t.entries, k)
		}
	}
}

// Remove takes a path, and all below it, out of the tree. Removing what is not
// there does nothing; the root itself stays.
func (t *Tree) Remove(p string) {
	p, err := Clean(p)
	if err != nil || p == "." {
		return
	}
	t.removeBelow(p)
	delete(t.entries, p)
}

// Lookup returns the entry at a path, or nil. It follows no links.
func (t *Tree) Lookup(p string) *Entry {
	c, err := Clean(p)
	if err != nil {
		return nil
	}
	return t.entries[c]
}

// Len counts the entries, the root included.
func (t *Tree) Len() int { return len(t.entries) }

// Entries returns all entries in the order a layer lists them: a directory
// before what lies in it, siblings by the bytes of their names.
func (t *Tree) Entries() []*Entry {
	all := make([]*Entry, 0, len(t.entries))
	for _, e := range t.entries {
		all = append(all, e)
	}
	sort.Slice(all, func(i, j int) bool { return Less(all[i].Path, all[j].Path) })
	return all
}

// Less orders two clean paths as Entries does: component by component, so that
// "a/b" comes before "a-b", with the root first.
func Less(a, b string) bool {
	if a == "." || b == "." {
		return a == "." && b != "."
	}
	for i := 0; i < len(a) && i < len(b); i++ {
		if a[i] != b[i] {
			return rank(a[i]) < rank(b[i])
		}
	}
	return len(a) < len(b)
}

func rank(c byte) int {
	if c == '/' {
		return -1
	}
	return int(c)
}

// Normalize makes every hard-link group's first path in order carry the body,
// with the others pointing to it, and reports a link whose target is missing
// or no file. A layer's bytes depend on this order alone.
func (t *Tree) Normalize() error {
	groups := map[string][]string{}
	for _, e := range t.Entries() {
		if e.Link == "" {
			continue
		}
		root, err := t.linkRoot(e)
		if err != nil {
			return err
		}
		groups[root] = append(groups[root], e.Path)
	}
	for root, names := range groups {
		t.relink(root, names)
	}
	return nil
}

func (t *Tree) linkRoot(e *Entry) (string, error) {
	at := e
	for hops := 0; at.Link != ""; hops++ {
		target := t.Lookup(at.Link)
		if target == nil {
			return "", fmt.Errorf("hard link %q: its target %q is not in the tree", e.Path, at.Link)
		}
		if target.Kind == Dir || target.Kind == Whiteout || hops > 64 {
			return "", fmt.Errorf("hard link %q: %q is a %s, which nothing can link to", e.Path, target.Path, target.Kind)
		}
		at = target
	}
	return at.Path, nil
}

func (t *Tree) relink(root string, names []string) {
	all := append([]string{root}, names...)
	sort.Slice(all, func(i, j int) bool { return Less(all[i], all[j]) })
	owner := *t.entries[root]
	for i, p := range all {
		e := owner
		e.Path = p
		if i > 0 {
			e.Link, e.Body = all[0], nil
		}
		t.entries[p] = &e
	}
}

// Perm is the entry's mode as io/fs writes it, for listings.
func (e *Entry) Perm() fs.FileMode {
	m := fs.FileMode(e.Mode & 0o777)
	for bit, f := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if e.Mode&bit != 0 {
			m |= f
		}
	}
	switch e.Kind {
	case Dir:
		m |= fs.ModeDir
	case Symlink:
		m |= fs.ModeSymlink
	case CharDevice:
		m |= fs.ModeDevice | fs.ModeCharDevice
	case BlockDevice:
		m |= fs.ModeDevice
	case Fifo:
		m |= fs.ModeNamedPipe
	}
	return m
}
