package tree

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"path"
	"reflect"
)

// Digested is a Body whose sha256 is known without reading it.
type Digested interface {
	// SHA256 is the digest of the content; ok is false where it is not known.
	SHA256() (sum [sha256.Size]byte, ok bool)
}

// Diff returns the layer that makes upper out of lower: what is new or changed
// in kind, mode, owner, flags, attributes, device, target, links or content,
// and a whiteout for the topmost of what is gone. Merging it onto lower gives
// upper; what is the same is never in it. Neither tree may hold whiteouts;
// their hard links are normalized. Only reading a body can fail.
func Diff(lower, upper *Tree) (*Tree, error) {
	for _, t := range []*Tree{lower, upper} {
		if err := t.Normalize(); err != nil {
			return nil, err
		}
	}
	d := differ{lower: lower, upper: upper, out: New(), below: lower.groups(), above: upper.groups(), heirs: map[string]string{}, members: map[string][]string{}}
	for name, head := range d.above {
		d.members[head] = append(d.members[head], name)
	}
	for _, e := range upper.Entries() {
		if err := d.present(e); err != nil {
			return nil, err
		}
	}
	for _, e := range lower.Entries() {
		if err := d.gone(e); err != nil {
			return nil, err
		}
	}
	return d.out, d.out.Normalize()
}

// Equal says whether two trees are the same root: an implied directory is one
// of mode 0755 that belongs to root.
func Equal(a, b *Tree) (bool, error) {
	if a.Len() != b.Len() {
		return false, nil
	}
	d, err := Diff(a, b)
	return err == nil && d.Len() == 1 && d.entries["."].Implied, err
}

type differ struct {
	lower, upper, out *Tree
	// below and above name, for every path, the first name of its file.
	below, above map[string]string
	// members lists the names of each file of upper that has several.
	members map[string][]string
	// heirs says which file of upper goes on as which of lower, by their
	// first names.
	heirs map[string]string
}

// groups maps each name of a file with several names to the first.
func (t *Tree) groups() map[string]string {
	m := map[string]string{}
	for p, e := range t.entries {
		if e.Link != "" {
			m[p], m[e.Link] = e.Link, e.Link
		}
	}
	return m
}

func first(groups map[string]string, p string) string {
	if f, ok := groups[p]; ok {
		return f
	}
	return p
}

// present adds an entry of upper if lower has another or none.
func (d *differ) present(e *Entry) error {
	old := d.lower.entries[e.Path]
	if old != nil {
		same, err := d.unchanged(old, e)
		if same || err != nil {
			return err
		}
	}
	c := *e
	if old != nil && (old.Kind == Dir || old.Kind == Symlink) {
		c.Implied = false // or it would leave alone what is there
	}
	if c.Link != "" && d.out.entries[c.Link] == nil {
		return fmt.Errorf("comparing %q: the first of its links was not compared before it", e.Path)
	}
	return d.out.Add(c)
}

// unchanged says whether a path needs no entry. The names of one file go
// together: a layer cannot link to a file of a layer below.
func (d *differ) unchanged(old, e *Entry) (bool, error) {
	if e.Kind == Dir || old.Kind == Dir {
		return sameAttributes(old, e), nil
	}
	head := first(d.above, e.Path)
	if head != e.Path {
		return d.out.entries[head] == nil, nil
	}
	return d.inherits(e)
}

// inherits says whether a file of upper is, under all its names, one that
// lower has and that no other file of upper is.
func (d *differ) inherits(e *Entry) (bool, error) {
	was := first(d.below, e.Path)
	if _, taken := d.heirs[was]; taken {
		return false, nil
	}
	for _, name := range d.names(e.Path) {
		if d.lower.entries[name] == nil || first(d.below, name) != was {
			return false, nil
		}
	}
	old := d.lower.entries[was]
	if !sameAttributes(old, e) {
		return false, nil
	}
	same, err := sameBody(old.Body, e.Body)
	if err != nil {
		return false, fmt.Errorf("comparing %q: %w", e.Path, err)
	}
	if same {
		d.heirs[was] = e.Path
	}
	return same, nil
}

// names are all names of a file of upper.
func (d *differ) names(head string) []string {
	if m := d.members[head]; m != nil {
		return m
	}
	return []string{head}
}

// gone adds a whiteout where a path of lower is not in upper, unless what
// stands above it says so already.
func (d *differ) gone(e *Entry) error {
	if d.upper.entries[e.Path] != nil {
		return nil
	}
	if up := d.upper.entries[path.Dir(e.Path)]; up == nil || up.Kind != Dir {
		return nil
	}
	return d.out.Add(Entry{Path: e.Path, Kind: Whiteout})
}

func sameAttributes(a, b *Entry) bool {
	return a.Kind == b.Kind && a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID && a.Flags == b.Flags &&
		maps.Equal(a.Xattrs, b.Xattrs) && a.Target == b.Target && a.Major == b.Major && a.Minor == b.Minor
}

func sameBody(a, b Body) (bool, error) {
	size := func(b Body) int64 { return (&Entry{Body: b}).Size() }
	if size(a) != size(b) {
		return false, nil
	}
	if size(a) == 0 || identical(a, b) {
		return true, nil
	}
	if knows(a) || knows(b) {
		x, err := sum(a)
		if err != nil {
			return false, err
		}
		y, err := sum(b)
		return x == y, err
	}
	return sameBytes(a, b)
}

// identical says whether two bodies are one value; Bytes cannot be compared.
func identical(a, b Body) bool {
	return reflect.TypeOf(a).Comparable() && reflect.TypeOf(b).Comparable() && a == b
}

func knows(b Body) bool {
	d, ok := b.(Digested)
	if !ok {
		return false
	}
	_, ok = d.SHA256()
	return ok
}

func sum(b Body) (s [sha256.Size]byte, err error) {
	if d, ok := b.(Digested); ok {
		if s, ok = d.SHA256(); ok {
			return s, nil
		}
	}
	r, err := b.Open()
	if err != nil {
		return s, err
	}
	defer r.Close()
	h := sha256.New()
	_, err = io.Copy(h, r)
	h.Sum(s[:0])
	return s, err
}

// sameBytes compares two bodies of one size.
func sameBytes(a, b Body) (bool, error) {
	x, err := a.Open()
	if err != nil {
		return false, err
	}
	defer x.Close()
	y, err := b.Open()
	if err != nil {
		return false, err
	}
	defer y.Close()
	p, q := make([]byte, 64<<10), make([]byte, 64<<10)
	for left := a.Size(); left > 0; {
		n := min(left, int64(len(p)))
		if _, err := io.ReadFull(x, p[:n]); err != nil {
			return false, err
		}
		if _, err := io.ReadFull(y, q[:n]); err != nil {
			return false, err
		}
		if !bytes.Equal(p[:n], q[:n]) {
			return false, nil
		}
		left -= n
	}
	return true, nil
}
