package freebsd

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"rhizome/pipeline/tree"
)

// Installed turns an installation under -DNO_ROOT into a tree: attributes come
// from the METALOG, since the disk has neither owners nor setuid bits, and
// bodies stay where they lie below destdir. A path in one and not in the other
// is an error that names it, but for directories and devices that were only
// listed.
func Installed(destdir, metalog string, ids IDs) (*tree.Tree, error) {
	records, err := readMETALOG(metalog)
	if err != nil {
		return nil, err
	}
	disk, err := scan(destdir)
	if err != nil {
		return nil, err
	}
	t, err := assemble(records, disk, ids)
	if err != nil {
		return nil, fmt.Errorf("reading the installation in %q: %w", destdir, err)
	}
	return t, nil
}

func readMETALOG(file string) ([]Record, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("opening the METALOG: %w; it is written by install(1) under -DNO_ROOT: did the installation run?", err)
	}
	defer f.Close()
	records, err := ParseMETALOG(f)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", file, err)
	}
	return unique(records)
}

// unique folds paths that are listed more than once. FreeBSD's Makefiles list
// many directories, and some files, twice; the last word on size and sum
// counts, but a different owner, mode, kind, flag or target is a
// contradiction that nobody can resolve here.
func unique(records []Record) ([]Record, error) {
	at := map[string]int{}
	var out []Record
	for _, r := range records {
		i, seen := at[r.Path]
		if !seen {
			at[r.Path] = len(out)
			out = append(out, r)
			continue
		}
		if what := contradiction(out[i], r); what != "" {
			return nil, fmt.Errorf("METALOG lines %d and %d list %q with a different %s", out[i].Line, r.Line, r.Path, what)
		}
		if r.Owned || !out[i].Owned {
			out[i] = r
		}
	}
	return out, nil
}

func contradiction(a, b Record) string {
	switch {
	case a.Kind != b.Kind:
		return fmt.Sprintf("type: %s and %s", a.Kind, b.Kind)
	case a.Owned != b.Owned && a.Kind == tree.File:
		return "" // one of them is a hard link's
	case a.Mode != b.Mode:
		return fmt.Sprintf("mode: %04o and %04o", a.Mode, b.Mode)
	case a.User != b.User:
		return fmt.Sprintf("owner: %s and %s", a.User, b.User)
	case a.Group != b.Group:
		return fmt.Sprintf("group: %s and %s", a.Group, b.Group)
	case a.Flags != b.Flags:
		return fmt.Sprintf("set of flags: %q and %q", a.Flags, b.Flags)
	case a.Target != b.Target:
		return fmt.Sprintf("target: %q and %q", a.Target, b.Target)
	}
	return ""
}

// found is one path on the disk.
type found struct {
	file   string
	kind   tree.Kind
	size   int64
	target string
	inode  [2]uint64
	links  uint64
}

func scan(destdir string) (map[string]found, error) {
	disk := map[string]found{}
	err := filepath.WalkDir(destdir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		f, err := look(p, d)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(destdir, p)
		disk[filepath.ToSlash(rel)] = f
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing the installation in %q: %w", destdir, err)
	}
	return disk, nil
}

func look(p string, d fs.DirEntry) (found, error) {
	info, err := d.Info()
	if err != nil {
		return found{}, err
	}
	f := found{file: p, size: info.Size(), kind: diskKind(info.Mode())}
	if f.kind == 0 {
		return found{}, fmt.Errorf("%q is a %s, which no image can hold", p, info.Mode().Type())
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		f.inode, f.links = [2]uint64{uint64(st.Dev), uint64(st.Ino)}, uint64(st.Nlink) //nolint:unconvert // other systems count in other widths
	}
	if f.kind == tree.Symlink {
		f.target, err = os.Readlink(p)
	}
	return f, err
}

func diskKind(m fs.FileMode) tree.Kind {
	switch {
	case m.IsDir():
		return tree.Dir
	case m.IsRegular():
		return tree.File
	case m&fs.ModeSymlink != 0:
		return tree.Symlink
	case m&fs.ModeCharDevice != 0:
		return tree.CharDevice
	case m&fs.ModeDevice != 0:
		return tree.BlockDevice
	case m&fs.ModeNamedPipe != 0:
		return tree.Fifo
	}
	return 0
}

// assemble lays records and disk side by side.
func assemble(records []Record, disk map[string]found, ids IDs) (*tree.Tree, error) {
	t, listed, owners := tree.New(), map[string]bool{}, linkOwners(records, disk)
	for _, r := range records {
		listed[r.Path] = true
		e, err := entry(r, disk, ids)
		if err != nil {
			return nil, fmt.Errorf("METALOG line %d: %w", r.Line, err)
		}
		if owner, ok := owners[disk[r.Path].inode]; ok && e.Kind == tree.File && owner != r.Path {
			e.Link, e.Body = owner, nil
		}
		if err := t.Add(e); err != nil {
			return nil, fmt.Errorf("METALOG line %d: %w", r.Line, err)
		}
	}
	if err := unlisted(t, disk, listed); err != nil {
		return nil, err
	}
	return t, t.Normalize()
}

// linkOwners picks of each group of hard links the path whose record counts:
// the first that names an owner, since the others lack setuid bits and flags.
func linkOwners(records []Record, disk map[string]found) map[[2]uint64]string {
	owners, owned := map[[2]uint64]string{}, map[[2]uint64]bool{}
	for _, r := range records {
		f := disk[r.Path]
		if r.Kind != tree.File || f.links < 2 {
			continue
		}
		if _, ok := owners[f.inode]; !ok || r.Owned && !owned[f.inode] {
			owners[f.inode], owned[f.inode] = r.Path, r.Owned
		}
	}
	return owners
}

func entry(r Record, disk map[string]found, ids IDs) (tree.Entry, error) {
	e := tree.Entry{Path: r.Path, Kind: r.Kind, Mode: r.Mode, Flags: r.Flags, Target: r.Target, Major: r.Major, Minor: r.Minor}
	var err error
	if e.UID, err = ids.User(r.User); err != nil {
		return e, fmt.Errorf("%q: %w", r.Path, err)
	}
	if e.GID, err = ids.Group(r.Group); err != nil {
		return e, fmt.Errorf("%q: %w", r.Path, err)
	}
	f, ok := disk[r.Path]
	if err := agrees(r, f, ok); err != nil {
		return e, err
	}
	if r.Kind == tree.File && f.size > 0 {
		e.Body = tree.DiskFile{Name: f.file, Length: f.size}
	}
	return e, nil
}

// agrees says where a record and the disk contradict each other. Directories
// of optional parts are listed without being made, and devices cannot be made
// without root.
func agrees(r Record, f found, ok bool) error {
	switch {
	case !ok && (r.Kind == tree.File || r.Kind == tree.Symlink):
		return fmt.Errorf("%q is listed as a %s but is not on the disk; remove the step's work folder and build again", r.Path, r.Kind)
	case !ok || isDevice(r.Kind):
		return nil
	case r.Kind != f.kind:
		return fmt.Errorf("%q is listed as a %s but is a %s on the disk", r.Path, r.Kind, f.kind)
	case r.Kind == tree.Symlink && r.Target != f.target:
		return fmt.Errorf("%q is listed as a link to %q but leads to %q on the disk", r.Path, r.Target, f.target)
	case r.Kind == tree.File && r.Size >= 0 && r.Size != f.size:
		return fmt.Errorf("%q is listed with %d bytes but has %d on the disk", r.Path, r.Size, f.size)
	case r.Kind == tree.File && r.SHA256 != "":
		return sumAgrees(r, f)
	}
	return nil
}

func isDevice(k tree.Kind) bool {
	return k == tree.CharDevice || k == tree.BlockDevice || k == tree.Fifo
}

func sumAgrees(r Record, f found) error {
	sum, err := sha256File(f.file)
	if err != nil {
		return err
	}
	if sum != r.SHA256 {
		return fmt.Errorf("%q is listed with sha256 %s but has %s on the disk", r.Path, r.SHA256, sum)
	}
	return nil
}

// unlisted names what lies on the disk and in no record. A directory that
// holds something listed is there by implication.
func unlisted(t *tree.Tree, disk map[string]found, listed map[string]bool) error {
	var extra []string
	for p, f := range disk {
		if p == "." || listed[p] || f.kind == tree.Dir && t.Lookup(p) != nil {
			continue
		}
		extra = append(extra, p)
	}
	if len(extra) == 0 {
		return nil
	}
	return fmt.Errorf("%s on the disk but not in the METALOG, so the owner and mode are unknown: was something installed there by hand, or by a Makefile that ignores NO_ROOT?", some(extra))
}

// some quotes the first few of many names, in order.
func some(names []string) string {
	sortPaths(names)
	const most = 5
	quoted := make([]string, 0, most)
	for _, n := range names[:min(most, len(names))] {
		quoted = append(quoted, fmt.Sprintf("%q", n))
	}
	s := strings.Join(quoted, ", ")
	if len(names) > most {
		s += fmt.Sprintf(" and %d more", len(names)-most)
	}
	if len(names) == 1 {
		return s + " is"
	}
	return s + " are"
}
