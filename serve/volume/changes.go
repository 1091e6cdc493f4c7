package volume

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"syscall"
)

// Change is something a node changed in a copy-on-write export.
type Change struct {
	// Path is absolute in the node's root.
	Path string `json:"path"`
	// What is "added", "changed", "mode" (owner, mode or times alone),
	// "removed" or "moved": the image has it elsewhere.
	What string `json:"what"`
	// Size is the content's, in bytes.
	Size int64 `json:"size"`
	// Clash is a sentence where a later image changed the same.
	Clash string `json:"clash,omitempty"`

	id, dir uint64
	name    string
}

// Tree is one copy-on-write export of a node, as it lies on the disk.
type Tree struct {
	// Dir is its folder, Path the folder of the image it lies over, and Image
	// the digest of the manifest that it was laid over last.
	Dir   string `json:"-"`
	Path  string `json:"path"`
	Image string `json:"image"`
	// Changes are sorted by path.
	Changes []Change `json:"changes"`
}

// Trees reads what a node changed out of its state folder. It takes no lock: a
// server may go on.
func Trees(state string) ([]Tree, error) {
	dirs, err := os.ReadDir(filepath.Join(state, "changes"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading a node's changes: %w", err)
	}
	var all []Tree
	for _, d := range dirs {
		dir := filepath.Join(state, "changes", d.Name())
		r, err := readRecords(dir)
		if err != nil {
			return nil, fmt.Errorf("reading a node's changes in %q: %w", dir, err)
		}
		t := Tree{Dir: dir, Path: r.folder, Image: r.image, Changes: r.changes()}
		for i, c := range t.Changes {
			if info, err := os.Stat(filepath.Join(dir, "bodies", bodyName(c.id))); err == nil && c.What != "removed" {
				t.Changes[i].Size = info.Size()
			}
		}
		all = append(all, t)
	}
	return all, nil
}

// Drop forgets all that a node changed in its copy-on-write exports: it has
// the image's files again when it mounts them next. A server that has them
// open must be stopped first (BusyError).
func Drop(state string) error {
	if _, err := os.Stat(state); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	release, err := own(state)
	if err != nil {
		return err
	}
	defer release()
	if err := os.RemoveAll(filepath.Join(state, "changes")); err != nil {
		return fmt.Errorf("dropping a node's changes: %w", err)
	}
	return syncDir(state)
}

// changes lists what records say, by path.
func (r *records) changes() []Change {
	w := changeWalk{r: r, seen: map[uint64]bool{}}
	if rec := r.objects[rootID]; rec != nil && rec.Base != "" {
		w.object(r.folder, rootID, 0, "", rec)
	}
	w.walk(rootID, r.folder)
	slices.SortFunc(w.found, func(a, b Change) int { return cmp.Compare(a.Path, b.Path) })
	return w.found
}

// changeWalk goes down the names that the node made or kept: every record has
// one, up to the root.
type changeWalk struct {
	r     *records
	found []Change
	seen  map[uint64]bool
}

func (w *changeWalk) walk(dir uint64, at string) {
	if w.seen[dir] {
		return
	}
	w.seen[dir] = true
	for _, name := range slices.Sorted(maps.Keys(w.r.names[dir])) {
		e, p := w.r.names[dir][name], path.Join(at, name)
		rec := w.r.objects[e.ID]
		switch {
		case e.ID == 0:
			w.found = append(w.found, Change{Path: p, What: "removed", Clash: e.Clash, dir: dir, name: name})
		case rec != nil:
			w.object(p, e.ID, dir, name, rec)
			if rec.Kind == kindDir {
				w.walk(e.ID, p)
			}
		}
	}
}

func (w *changeWalk) object(p string, id, dir uint64, name string, rec *record) {
	c := Change{Path: p, Clash: cmp.Or(rec.Clash, w.r.names[dir][name].Clash), id: id, dir: dir, name: name}
	switch {
	case rec.Gone:
		return
	case id < fromImage && rec.Kind != kindDir && w.r.names[dir][name].Base != "":
		c.What = "changed" // in place of the image's
	case id < fromImage:
		c.What = "added"
	case id != rootID && id != imageID(dir, name) && (rec.Kind == kindDir || rec.Nlink < 2):
		c.What = "moved"
	case rec.has(ownBody):
		c.What = "changed"
	case rec.has(ownMode|ownOwner) || rec.has(ownTimes) && rec.Kind != kindDir:
		c.What = "mode"
	default:
		return // it only holds names
	}
	w.found = append(w.found, c)
}

// hostTimed are a file's times.
type hostTimed struct{ atime, mtime, ctime moment }

// hostSpace is statfs(2).
func hostSpace(dir string) (space, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return space{}, err
	}
	size := uint64(st.Bsize)
	return space{uint64(st.Blocks) * size, uint64(st.Bfree) * size, uint64(max(st.Bavail, 0)) * size, uint64(st.Files), uint64(max(st.Ffree, 0))}, nil
}
