package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// overlayStage makes a commit of a region of an overlay ready.
//
// An overlay keeps what was changed as records in a journal, one transaction on
// a line, and a line that was cut never was: so the whole commit is one line,
// and its last byte on the disk is the one instant between old and new. No
// folder is made anew, nothing is exchanged, and no second journal is needed,
// as a disk has it: who asks what became of a commit finds its id in the same
// line. Content cannot lie in a line. It is written before to bodies of numbers
// that no object has: a crash leaves them without a record, and the next start
// takes them away. A file with new bytes is therefore a new object, as it is in
// a disk's region: who reads the old one by its handle is told that it is
// stale, and never gets half of each.
type overlayStage struct {
	o *overlay
	// spool has no name, so that nothing of it is left when the server dies.
	spool *os.File
	in    stageInput
	// ids are the numbers of the files that are made, by path.
	ids map[string]uint64
	// links are the region's names of files that have several, by number.
	links   map[uint64][]string
	swapped bool
	step    func(string)
}

func (o *overlay) newStage(_ string, step func(string)) (regionStage, error) {
	f, err := os.CreateTemp(filepath.Join(o.dir, "bodies"), spoolFile+".*")
	if err == nil {
		err = os.Remove(f.Name())
	}
	if err != nil {
		return nil, fmt.Errorf("making a place for the changes: %w", err)
	}
	return &overlayStage{o: o, spool: f, ids: map[string]uint64{}, step: step}, nil
}

// spoolFile is the name of the changes as they came.
const spoolFile = "changes.tar"

func (s *overlayStage) file() *os.File { return s.spool }

// build writes all content, and waits until it is on the disk.
func (s *overlayStage) build(ctx context.Context, in stageInput) error {
	s.in, s.links = in, in.old.links()
	for i := range in.changes {
		if err := ctx.Err(); err != nil {
			return err
		}
		c := &in.changes[i]
		if err := s.prepare(c); err != nil {
			return fmt.Errorf("%q: %w", c.path, err)
		}
	}
	if err := s.o.syncBodies(s.ids); err != nil {
		return err
	}
	s.step("flushed")
	return nil
}

// prepare makes the body of a file that gets one: with the bytes that came, or
// with those of the old file.
func (s *overlayStage) prepare(c *regionChange) error {
	if len(c.xattrs) > 0 {
		return wrong("%q has extended attributes, which this export cannot keep", c.path)
	}
	if c.removed || c.link != "" || c.kind != kindRegular {
		return nil
	}
	if !c.meta {
		return s.write(c, io.NewSectionReader(s.spool, c.offset, c.size), c.size)
	}
	s.o.mu.RLock()
	id, inPlace, err := s.keeps(s.o, c)
	s.o.mu.RUnlock()
	if err != nil || inPlace {
		return err
	}
	old := s.o.object(id)
	a, err := old.attr()
	if err != nil {
		return err
	}
	return s.write(c, io.NewSectionReader(objectReader{old}, 0, int64(a.size)), int64(a.size))
}

// write makes a body under a number of its own. One of no bytes needs none.
func (s *overlayStage) write(c *regionChange, from io.Reader, size int64) error {
	if err := s.o.quota.room(size); err != nil {
		return err
	}
	id := s.o.reserveID()
	s.ids[c.path] = id
	if size == 0 {
		return nil
	}
	f, err := os.OpenFile(s.o.bodyPath(id), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyN(f, from, size)
	s.o.quota.changed(blocks(int(f.Fd())))
	if err != nil {
		return err
	}
	s.step("built")
	return os.Chtimes(f.Name(), c.mtime.time(), c.mtime.time())
}

// reserveID gives a number that no object gets before the server starts anew.
func (o *overlay) reserveID() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.next++
	return o.next - 1
}

// keeps tells which object a change that leaves the bytes is about, and whether
// it can be made on it: not where another name of it, that stays as it is,
// would change too, nor where the time changes, which the body has and not the
// journal. o.mu is held.
func (s *overlayStage) keeps(o *overlay, c *regionChange) (id uint64, inPlace bool, err error) {
	if id, err = o.at(c.path); err != nil {
		return 0, false, err
	}
	a, err := o.attrAt(id)
	if err != nil {
		return 0, false, err
	}
	if a.kind != kindRegular {
		return 0, false, wrong("%q is no file whose bytes could stay", c.path)
	}
	if rec := o.objects[id]; rec != nil && rec.has(ownBody) && a.mtime != c.mtime {
		return id, false, nil
	}
	return id, a.nlink < 2 || s.changesAll(id, int(a.nlink), c), nil
}

// changesAll tells whether all names of a file are the region's, and go with a
// change.
func (s *overlayStage) changesAll(id uint64, names int, c *regionChange) bool {
	for _, name := range s.links[id] {
		if other := s.in.by[name]; other == nil || other != c && other.link != c.path {
			return false
		}
	}
	return len(s.links[id]) == names
}

// swap writes the line. It returns when that is on the disk; where that is not
// sure, the journal is broken, and what became of the commit is known when the
// server is started again.
func (s *overlayStage) swap(lease, commit string) error {
	if err := s.apply(lease, commit); err != nil {
		return err
	}
	s.step("written")
	if err := s.o.sync(); err != nil {
		return err
	}
	s.step("synced")
	return nil
}

func (s *overlayStage) apply(lease, commit string) error {
	o := s.o
	o.mu.Lock()
	defer o.mu.Unlock()
	b := newBatch(s)
	err := b.run()
	if err == nil {
		s.step("ready")
		err = o.commitRemoval(append(b.steps(), change{Lease: lease, Commit: commit}))
	}
	if errors.Is(err, errLong) {
		err = wrong("%w", err)
	}
	if err != nil {
		b.undo()
		return err
	}
	s.swapped = true
	o.trash = append(o.trash, b.trash...)
	o.lists.forgetAll()
	return nil
}

// drop takes away what was made for nothing. What became of an old state goes
// with the sync that made the new one last.
func (s *overlayStage) drop() {
	s.spool.Close()
	if s.swapped {
		return
	}
	for _, id := range s.ids {
		s.o.dropBody(id)
	}
	clear(s.ids)
}

// finished is the commit that a lease's line says was done. One that is not on
// the disk for certain is none.
func (o *overlay) finished(lease string) string {
	if o.sync() != nil {
		return ""
	}
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.done[lease]
}

// settled forgets it. Where that cannot be written down, it costs some bytes.
func (o *overlay) settled(lease string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, known := o.done[lease]; known {
		_ = o.commit([]change{{Lease: lease}})
	}
}

// at finds the object at a path of the export; o.mu is held.
func (o *overlay) at(p string) (id uint64, err error) {
	id = rootID
	for name := range strings.SplitSeq(p, "/") {
		if name == "" || name == "." {
			continue
		}
		if id, err = o.find(id, name); err != nil {
			return 0, err
		}
	}
	return id, nil
}
