package volume

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"syscall"
)

// batch carries the changes of a region out on a copy of an overlay's records,
// by the same steps as NFS calls do, and then tells how the copy differs: as
// one transaction. Only records are copied; the overlay's own stand until that
// transaction is written down.
type batch struct {
	*overlay
	stage *overlayStage
	old   *records
	// touched are the objects, and renamed the names, that a step was about.
	touched map[uint64]bool
	renamed map[nameIn]bool
	// folders get the mode, owner and time of their change when all is in them.
	folders map[uint64]*regionChange
}

// nameIn is a name in a directory.
type nameIn struct {
	dir  uint64
	name string
}

// newBatch copies the records; the overlay's lock is held until the batch's
// steps are written down.
func newBatch(s *overlayStage) *batch {
	b := &batch{stage: s, old: s.o.records, touched: map[uint64]bool{}, renamed: map[nameIn]bool{}, folders: map[uint64]*regionChange{}}
	b.overlay = &overlay{overlayConfig: s.o.overlayConfig, bodies: s.o.bodies, base: s.o.base, records: s.o.records.clone(), draft: b.note}
	return b
}

// clone copies records. What an object's says is shared: it is replaced, and
// never written to.
func (r *records) clone() *records {
	c := &records{objects: maps.Clone(r.objects), names: make(map[uint64]map[string]entry, len(r.names)), next: r.next, image: r.image, folder: r.folder, done: r.done}
	for dir, names := range r.names {
		c.names[dir] = maps.Clone(names)
	}
	return c
}

func (b *batch) note(tx []change) {
	for _, c := range tx {
		if c.Put != nil || c.Drop {
			b.touched[c.ID] = true
		}
		if c.Dir != 0 {
			b.renamed[nameIn{c.Dir, string(c.Name)}] = true
		}
	}
}

func (b *batch) run() error {
	for i := range b.stage.in.changes {
		c := &b.stage.in.changes[i]
		if err := b.one(c); err != nil {
			return fmt.Errorf("%q: %w", c.path, err)
		}
	}
	return b.finishFolders()
}

// one carries out one change.
func (b *batch) one(c *regionChange) error {
	dir, err := b.at(path.Dir(c.path))
	if c.removed && errors.Is(err, syscall.ENOENT) {
		return nil // with a folder above it
	}
	if err != nil {
		return err
	}
	name := path.Base(c.path)
	id, err := b.find(dir, name)
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		return err
	}
	there := err == nil
	switch {
	case c.removed:
		return b.takeAway(dir, name, there)
	case c.kind == kindDir && there && b.kindAt(id) == kindDir:
		b.folders[id] = c
		return nil
	case c.link != "":
		return b.another(dir, name, there, c)
	case c.meta:
		if _, inPlace, err := b.stage.keeps(b.overlay, c); err != nil {
			return err
		} else if inPlace {
			return b.dress(id, c)
		}
	}
	if err := b.takeAway(dir, name, there); err != nil {
		return err
	}
	return b.place(dir, name, c)
}

func (b *batch) kindAt(id uint64) kind {
	s, err := b.state(id)
	if err != nil {
		return 0
	}
	if s.rec != nil {
		return s.rec.Kind
	}
	a, _ := b.base.attr(s.ref)
	return a.kind
}

// takeAway takes a name away, with all below it.
func (b *batch) takeAway(dir uint64, name string, there bool) error {
	if !there {
		return nil
	}
	id, err := b.find(dir, name)
	if err != nil {
		return err
	}
	isDir := b.kindAt(id) == kindDir
	if isDir {
		var names []string
		b.eachName(id, func(name string, _ uint64, _ kind) { names = append(names, name) })
		for _, name := range names {
			if err := b.takeAway(id, name, true); err != nil {
				return err
			}
		}
	}
	return b.object(dir).remove(name, isDir)
}

// another makes a name one more of a file that another path has.
func (b *batch) another(dir uint64, name string, there bool, c *regionChange) error {
	target, err := b.at(c.link)
	if err != nil {
		return err
	}
	if b.kindAt(target) == kindDir {
		return wrong("%q would be another name of a folder", c.path)
	}
	if id, err := b.find(dir, name); err == nil && id == target {
		return nil
	}
	if err := b.takeAway(dir, name, there); err != nil {
		return err
	}
	return b.object(dir).link(name, b.object(target))
}

// place makes a new object.
func (b *batch) place(dir uint64, name string, c *regionChange) error {
	id := b.next
	if c.kind == kindRegular {
		made, ok := b.stage.ids[c.path]
		if !ok {
			return errMoving
		}
		id = made
	}
	rec := newRecord(&newObject{kind: c.kind, mode: c.mode, uid: c.uid, gid: c.gid, major: c.major, minor: c.minor, target: c.target}, dir, b.now())
	rec.Atime, rec.Mtime = c.mtime, c.mtime
	if c.kind == kindSymlink {
		rec.Mode = 0o777
	}
	var tx transaction
	if _, err := b.editDir(&tx, dir); err != nil {
		return err
	}
	tx.steps = append(tx.steps, change{ID: id, Put: rec})
	b.give(&tx, dir, name, id)
	if c.kind == kindDir {
		b.folders[id] = c
	}
	return b.commit(tx.steps)
}

// dress gives an object the mode, owner and time of a change, as far as they
// are others.
func (b *batch) dress(id uint64, c *regionChange) error {
	before, err := b.attrAt(id)
	if err != nil {
		return err
	}
	var tx transaction
	rec, err := b.edit(&tx, id)
	if err != nil {
		return err
	}
	rec.change(&setAttrs{hasMode: c.mode != before.mode, mode: c.mode, hasUID: c.uid != before.uid, uid: c.uid,
		hasGID: c.gid != before.gid, gid: c.gid, hasMtime: c.mtime != before.mtime, mtime: c.mtime}, &before)
	rec.Ctime = b.now()
	return b.commit(tx.steps)
}

// finishFolders gives the folders that were worked on their times back, or
// those of their changes.
func (b *batch) finishFolders() error {
	for id := range b.touched {
		rec := b.objects[id]
		if rec == nil || rec.Gone || rec.Kind != kindDir {
			continue
		}
		copied := *rec
		copied.Own &^= ownTimes
		if was := b.old.objects[id]; was != nil && was.has(ownTimes) {
			copied.Own, copied.Atime, copied.Mtime = copied.Own|ownTimes, was.Atime, was.Mtime
		}
		if err := b.commit([]change{{ID: id, Put: &copied}}); err != nil {
			return err
		}
	}
	for id, c := range b.folders {
		if err := b.dress(id, c); err != nil {
			return err
		}
	}
	return nil
}

// steps are the transaction that makes the overlay's records what the copy is.
func (b *batch) steps() (tx []change) {
	for _, id := range slices.Sorted(maps.Keys(b.touched)) {
		rec := b.objects[id]
		if (rec == nil || rec.Gone) && (b.old.objects[id] != nil || b.old.names[id] != nil) {
			tx = append(tx, change{ID: id, Drop: true}) // and all names in it
		}
		if rec != nil {
			tx = append(tx, change{ID: id, Put: rec})
		}
	}
	for _, n := range slices.SortedFunc(maps.Keys(b.renamed), nameIn.compare) {
		if e, ok := b.names[n.dir][n.name]; ok {
			tx = append(tx, change{Dir: n.dir, Name: []byte(n.name), Entry: &e})
		} else if _, was := b.old.names[n.dir][n.name]; was {
			tx = append(tx, change{Dir: n.dir, Name: []byte(n.name), Clear: true})
		}
	}
	return tx
}

// undo takes away what the steps copied out of the image for a batch that came
// to nothing.
func (b *batch) undo() {
	for id := range b.touched {
		was := b.old.objects[id]
		if rec := b.objects[id]; id >= fromImage && rec != nil && rec.has(ownBody) && (was == nil || !was.has(ownBody)) {
			b.stage.o.dropBody(id)
		}
	}
}

func (n nameIn) compare(o nameIn) int {
	if n.dir != o.dir {
		if n.dir < o.dir {
			return -1
		}
		return 1
	}
	return strings.Compare(n.name, o.name)
}
