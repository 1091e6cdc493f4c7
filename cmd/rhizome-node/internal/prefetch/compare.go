package prefetch

import (
	"archive/tar"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"rhizome/serve/node/nodeapi"
)

// Change is one path that is not as the server had it.
type Change struct {
	Path string
	// Removed takes it away with all below; Meta leaves the bytes. Link is the
	// path of another name for the same file, which comes earlier.
	Removed, Meta bool
	Link          string
	Entry         Entry
}

// Changes finds what is not as it came, below the tops: the paths that were
// leased. Every file is read: a file that is mapped into memory can change
// without its times (tmpfs). The order is that of paths, so that folders come
// before what is in them.
func Changes(root *os.Root, old Listing, tops []string) ([]Change, error) {
	s := scan{root: root, now: map[string]*Entry{}, inodes: map[uint64]string{}}
	for _, top := range tops {
		if err := s.walk(top); err != nil {
			return nil, fmt.Errorf("looking for changes: %w", err)
		}
	}
	c := comparison{old: old, now: s.now, oldGroups: groups(old), nowGroups: groups(s.now)}
	return c.all(), nil
}

// scan is what is there now.
type scan struct {
	root   *os.Root
	now    Listing
	inodes map[uint64]string
}

func (s *scan) walk(p string) error {
	e, ino, links, err := statOf(s.root, p)
	if err != nil {
		return err
	}
	if e.Type == 0 {
		return nil // a socket
	}
	e.First = p
	s.now[p] = &e
	if e.Type != tar.TypeDir && links > 1 {
		if first, again := s.inodes[ino]; again {
			s.now[p] = s.now[first]
			return nil
		}
		s.inodes[ino] = p
	}
	switch e.Type {
	case tar.TypeDir:
		return s.folder(p)
	case tar.TypeReg:
		e.Sum, err = digest(s.root, p)
	case tar.TypeSymlink:
		e.Target, err = s.root.Readlink(p)
	}
	return err
}

func (s *scan) folder(p string) error {
	d, err := s.root.Open(p)
	if err != nil {
		return err
	}
	names, err := d.Readdirnames(-1)
	d.Close()
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if err := s.walk(path.Join(p, name)); err != nil {
			return err
		}
	}
	return nil
}

func digest(root *os.Root, p string) (sum [sha256.Size]byte, err error) {
	f, err := root.Open(p)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return sum, err
	}
	h.Sum(sum[:0])
	return sum, nil
}

// groups gives for each path that is one of several names of a file all of
// them, as one text.
func groups(l Listing) map[string]string {
	byFirst := map[*Entry][]string{}
	for p, e := range l {
		byFirst[e] = append(byFirst[e], p)
	}
	out := map[string]string{}
	for _, names := range byFirst {
		slices.Sort(names)
		for _, p := range names {
			if len(names) > 1 {
				out[p] = strings.Join(names, "\x00")
			}
		}
	}
	return out
}

type comparison struct {
	old, now             Listing
	oldGroups, nowGroups map[string]string
}

func (c *comparison) all() []Change {
	var out []Change
	for p := range c.old {
		if up := c.now[path.Dir(p)]; c.now[p] == nil && (up != nil && up.Type == tar.TypeDir || c.old[path.Dir(p)] == nil) {
			out = append(out, Change{Path: p, Removed: true})
		}
	}
	for p := range c.now {
		if ch, changed := c.one(p); changed {
			out = append(out, ch)
		}
	}
	slices.SortFunc(out, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	return out
}

// one compares a path. Names of one file go together: where their group is
// another, or the file changed, all of them are sent.
func (c *comparison) one(p string) (Change, bool) {
	e := c.now[p]
	ch := Change{Path: p, Entry: *e}
	first, _, grouped := strings.Cut(c.nowGroups[p], "\x00")
	regrouped := c.nowGroups[p] != c.oldGroups[p]
	if grouped && first != p {
		ch.Link = first
		_, changed := c.differs(first)
		return ch, changed || regrouped
	}
	meta, changed := c.differs(p)
	ch.Meta = meta && !regrouped
	return ch, changed || regrouped
}

// differs tells whether a path changed, and whether all but its bytes.
func (c *comparison) differs(p string) (meta, changed bool) {
	e, was := c.now[p], c.old[p]
	switch {
	case was == nil, was.Type != e.Type, was.Size != e.Size, was.Sum != e.Sum, was.Target != e.Target && e.Type == tar.TypeSymlink,
		was.Major != e.Major, was.Minor != e.Minor:
		return false, true
	case was.UID != e.UID, was.GID != e.GID, !was.MTime.Equal(e.MTime), was.Mode != e.Mode && e.Type != tar.TypeSymlink:
		return e.Type == tar.TypeReg, true
	}
	return false, false
}

// Write makes the tar of changes that goes back.
func Write(w io.Writer, root *os.Root, all []Change) error {
	out := tar.NewWriter(w)
	for i := range all {
		if err := writeOne(out, root, &all[i]); err != nil {
			return fmt.Errorf("sending %q: %w", all[i].Path, err)
		}
	}
	return out.Close()
}

func writeOne(out *tar.Writer, root *os.Root, c *Change) error {
	h := &tar.Header{Format: tar.FormatPAX, Typeflag: c.Entry.Type, Name: c.Path, Mode: int64(c.Entry.Mode), Uid: c.Entry.UID, Gid: c.Entry.GID,
		ModTime: c.Entry.MTime, Linkname: c.Entry.Target, Devmajor: c.Entry.Major, Devminor: c.Entry.Minor}
	switch {
	case c.Removed:
		return out.WriteHeader(&tar.Header{Format: tar.FormatPAX, Typeflag: tar.TypeReg, Name: path.Join(path.Dir(c.Path), ".wh."+path.Base(c.Path)),
			PAXRecords: map[string]string{nodeapi.PAXRemoved: "1"}})
	case c.Link != "":
		h.Typeflag, h.Linkname = tar.TypeLink, c.Link
	case c.Meta:
		h.PAXRecords = map[string]string{nodeapi.PAXMeta: "1"}
	case c.Entry.Type == tar.TypeDir:
		h.Name += "/"
	case c.Entry.Type == tar.TypeReg:
		return writeFile(out, root, h, c)
	}
	return out.WriteHeader(h)
}

func writeFile(out *tar.Writer, root *os.Root, h *tar.Header, c *Change) error {
	f, err := root.Open(c.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	h.Size = c.Entry.Size
	if err := out.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.Copy(out, io.LimitReader(f, h.Size))
	if err == nil && n != h.Size {
		err = fmt.Errorf("it became shorter while it was sent: something still writes to it")
	}
	return err
}
