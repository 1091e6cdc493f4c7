package rootfs

import (
	"encoding/hex"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// Entry is what a comparison of two views knows of one file. Two entries that
// are equal (==) are of files that nothing but times and link counts tells
// apart. The zero Entry stands for no file.
type Entry struct {
	Kind Kind
	// Mode holds the permission bits with setuid, setgid and sticky (07777).
	Mode, UID, GID uint32
	// Size is the body's length in bytes, or a symlink's text's; 0 for
	// anything else.
	Size uint64
	// Target is a symlink's text.
	Target string
	// Digest is the sha256 of a regular file's body.
	Digest [32]byte
	// Major and Minor number a device.
	Major, Minor uint32
	// Flags are FreeBSD's file flags, and Xattrs the extended attributes as
	// text, "name=hex" lines in the order of names.
	Flags, Xattrs string
}

// Change is one path that two views do not have alike. A file that only one of
// them has leaves the other Entry zero.
type Change struct {
	Path     string
	Old, New Entry
}

// What names the parts that differ, in a fixed order: "kind" alone where the
// kinds differ; else of "mode", "owner", "size", "content", "target",
// "device", "flags" and "xattrs" those that do. It is empty where only one
// side has the file.
func (c Change) What() []string {
	a, b := c.Old, c.New
	switch {
	case a.Kind == 0 || b.Kind == 0:
		return nil
	case a.Kind != b.Kind:
		return []string{"kind"}
	}
	var what []string
	for _, part := range []struct {
		name   string
		differ bool
	}{
		{"mode", a.Mode != b.Mode},
		{"owner", a.UID != b.UID || a.GID != b.GID},
		{"size", a.Size != b.Size && a.Kind == Regular},
		{"content", a.Digest != b.Digest},
		{"target", a.Target != b.Target},
		{"device", a.Major != b.Major || a.Minor != b.Minor},
		{"flags", a.Flags != b.Flags},
		{"xattrs", a.Xattrs != b.Xattrs},
	} {
		if part.differ {
			what = append(what, part.name)
		}
	}
	return what
}

// Entry describes a file for comparisons.
func (v *View) Entry(f File) (Entry, error) {
	defer runtime.KeepAlive(v)
	a, err := v.Attr(f)
	if err != nil {
		return Entry{}, err
	}
	e := Entry{Kind: a.Kind, Mode: a.Mode, UID: a.UID, GID: a.GID, Major: a.Major, Minor: a.Minor}
	switch a.Kind {
	case Regular:
		e.Size = a.Size
		e.Digest, err = v.BodyDigest(f)
	case Symlink:
		var text string
		text, err = v.Readlink(f)
		e.Size, e.Target = a.Size, strings.Clone(text)
	}
	if err != nil {
		return Entry{}, err
	}
	x, i := v.top.describer(f)
	e.Flags, e.Xattrs = strings.Clone(x.Flags(i)), xattrText(x.Xattrs(i))
	return e, nil
}

func xattrText(m map[string]string) string {
	var lines []string
	for name, value := range m {
		lines = append(lines, strconv.Quote(name)+"="+hex.EncodeToString([]byte(value))+"\n")
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// Compare lists what differs between two views, in the order of paths as a
// walk meets them. Only the indexes are read, no body. Where both views have
// the same layers (the same *Layer) at the bottom, only what the layers above
// those touch is looked at.
func Compare(older, newer *View) ([]Change, error) {
	defer runtime.KeepAlive(older)
	defer runtime.KeepAlive(newer)
	c := comparison{a: older, b: newer}
	c.shared = sharedLayers(older.layers, newer.layers)
	c.touched = map[File]bool{}
	older.top.touch(c.shared, c.touched)
	newer.top.touch(c.shared, c.touched)
	err := c.both("/", older.Root(), newer.Root())
	return c.changes, err
}

func sharedLayers(a, b []*Layer) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// touch notes the directories of the lowest layers that those from the ordinal
// shared on do anything to, and all directories on the way to them: a layer's
// path may lead through a symlink, so that it does not pass by itself through
// what lies above the directory that it changes.
func (s *stack) touch(shared int, touched map[File]bool) {
	for ; s != nil && int(s.ord) >= shared; s = s.below {
		for _, id := range s.over.keys {
			dir := fileOf(id)
			for id != 0 && !touched[dir] {
				touched[dir] = true
				up, err := s.parent(dir)
				if err != nil {
					break
				}
				dir = up
			}
		}
	}
}

type comparison struct {
	a, b    *View
	shared  int
	touched map[File]bool
	changes []Change
}

// same says whether a file of both views is one of the layers that they share,
// untouched by the layers above, with all that lies in it.
func (c *comparison) same(f, g File) bool {
	return f == g && int(f.Layer) < c.shared && !c.touched[f]
}

// both compares two files of one path.
func (c *comparison) both(p string, f, g File) error {
	if c.same(f, g) {
		return nil
	}
	a, err := c.a.Entry(f)
	if err != nil {
		return err
	}
	b, err := c.b.Entry(g)
	if err != nil {
		return err
	}
	if a != b {
		c.changes = append(c.changes, Change{Path: p, Old: a, New: b})
	}
	return c.below(p, side{c.a, f, a.Kind}, side{c.b, g, b.Kind})
}

// side is one view's file of a path.
type side struct {
	v    *View
	f    File
	kind Kind
}

// entries lists a directory; anything else holds nothing.
func (s side) entries() ([]Dirent, error) {
	if s.kind != Dir {
		return nil, nil
	}
	var list []Dirent
	err := s.v.ReadDir(s.f, 0, func(d Dirent) bool {
		list = append(list, d)
		return true
	})
	return list, err
}

// below compares what lies in two directories, name by name.
func (c *comparison) below(p string, old, new side) error {
	a, err := old.entries()
	if err != nil {
		return err
	}
	b, err := new.entries()
	if err != nil {
		return err
	}
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].Name < b[0].Name:
			err, a = c.one(under(p, a[0].Name), side{c.a, a[0].File, a[0].Kind}, true), a[1:]
		case len(a) == 0 || b[0].Name < a[0].Name:
			err, b = c.one(under(p, b[0].Name), side{c.b, b[0].File, b[0].Kind}, false), b[1:]
		default:
			err = c.both(under(p, a[0].Name), a[0].File, b[0].File)
			a, b = a[1:], b[1:]
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func under(dir, name string) string { return strings.TrimSuffix(dir, "/") + "/" + name }

// one notes a file that only one view has, and all that lies in it.
func (c *comparison) one(p string, s side, removed bool) error {
	e, err := s.v.Entry(s.f)
	if err != nil {
		return err
	}
	change := Change{Path: p, New: e}
	if removed {
		change = Change{Path: p, Old: e}
	}
	c.changes = append(c.changes, change)
	if removed {
		return c.below(p, s, side{})
	}
	return c.below(p, side{}, s)
}
