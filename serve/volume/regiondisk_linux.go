package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"

	"rhizome/registry/durable"

	"golang.org/x/sys/unix"
)

// stageName is the folder in an export's root where commits are made ready: on
// the same file system as the tree for certain, and not to be seen by clients.
const stageName = ".rhizome"

// hides tells whether a name of this directory is not for clients.
func (o *diskObject) hides(name string) bool {
	if name != stageName {
		return false
	}
	st, err := stat(o.f.path)
	return err != nil || st.Ino == o.d.top
}

// diskStage is a folder STAGE/ID: the changes as they came, the new state of
// each unit, and from the switch on the journal.
type diskStage struct {
	d  *disk
	id string
	// all is STAGE, here STAGE/ID.
	all, here *os.Root
	spool     *os.File
	units     []stageUnit
	// added is what the new state takes on the disk, in bytes.
	added int64
	// swapped is set when the old state lies here.
	swapped bool
	step    func(string)
}

// stageUnit is a folder, or a file, that is switched as one.
type stageUnit struct {
	// Path is the export's, Staged the name in the stage, and Ino the inode of
	// what is staged: it tells afterwards whether the switch was done.
	Path   string `json:"path"`
	Staged string `json:"staged"`
	Ino    uint64 `json:"ino"`
}

// stageJournal is the file that stands in the stage when all is ready.
type stageJournal struct {
	Lease  string      `json:"lease"`
	Commit string      `json:"commit"`
	Units  []stageUnit `json:"units"`
	// Finished is set when a server that started anew found it done.
	Finished bool `json:"finished,omitempty"`
}

const journalFile = "commit.json"

// openStages opens the folder of all stages; make makes it.
func (d *disk) openStages(make bool) (*os.Root, error) {
	if make {
		if err := unix.Mkdirat(int(d.dir.Fd()), stageName, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, fmt.Errorf("making the stage of commits: %w", err)
		}
	}
	fd, err := d.beneath(stageName, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return os.OpenRoot(procPath(fd))
}

// beneath opens a path of the export, over no symlink and no mount.
func (d *disk) beneath(p string, flags uint64) (int, error) {
	how := unix.OpenHow{Flags: flags | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV}
	return retry(func() (int, error) {
		fd, err := unix.Openat2(int(d.dir.Fd()), p, &how)
		if err == unix.EAGAIN {
			err = unix.EINTR // a rename somewhere raced with it
		}
		return fd, err
	})
}

func (d *disk) newStage(lease string, step func(string)) (regionStage, error) {
	all, err := d.openStages(true)
	if err != nil {
		return nil, err
	}
	s := &diskStage{d: d, id: lease, all: all, step: step}
	if err := s.begin(); err != nil {
		s.drop()
		return nil, fmt.Errorf("making a place for the changes: %w", err)
	}
	return s, nil
}

func (s *diskStage) begin() (err error) {
	// What an earlier try left is of no use: it was not switched to.
	if err = s.all.RemoveAll(s.id); err != nil {
		return err
	}
	if err = s.all.Mkdir(s.id, 0o700); err != nil {
		return err
	}
	if s.here, err = s.all.OpenRoot(s.id); err != nil {
		return err
	}
	s.spool, err = s.here.OpenFile(spoolFile, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	return err
}

func (s *diskStage) file() *os.File { return s.spool }

// drop removes the stage. What cannot be removed now is swept when the export
// is opened next.
func (s *diskStage) drop() {
	if s.spool != nil {
		s.spool.Close()
	}
	if s.here != nil {
		if s.d.quota != nil && s.swapped {
			_ = s.here.Remove(spoolFile) // which never counted
			s.d.quota.changed(s.added - stageBlocks(s.here))
		}
		s.here.Close()
	}
	_ = s.all.RemoveAll(s.id)
	s.all.Close()
	s.spool, s.here = nil, nil
	s.d.files.forgetIdle()
}

// build makes each unit's new state and waits until it is on the disk.
func (s *diskStage) build(ctx context.Context, in stageInput) error {
	var size int64
	for i := range in.changes {
		size += in.changes[i].size
	}
	if err := s.d.quota.room(size); err != nil {
		return err
	}
	for i, unit := range in.units {
		b := &stageBuilder{diskStage: s, ctx: ctx, unit: unit, name: fmt.Sprintf("new%d", i), by: in.by}
		ino, err := b.build(in.changes)
		if err != nil {
			return err
		}
		s.units = append(s.units, stageUnit{unit, b.name, ino})
	}
	return s.flush()
}

// flush puts all of the new state on the disk: its file system's whole, since
// a unit can be a hundred thousand links.
func (s *diskStage) flush() error {
	f, err := s.here.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = retry(func() (int, error) { return 0, unix.Syncfs(int(f.Fd())) })
	return err
}

// swap writes the journal, and then switches unit after unit. With one unit,
// its switch is the one instant; with several, the journal sees to the rest.
func (s *diskStage) swap(lease, commit string) error {
	j := stageJournal{Lease: lease, Commit: commit, Units: s.units}
	s.step("ready")
	if err := s.write(&j); err != nil {
		return err
	}
	s.step("journal")
	for i, u := range j.Units {
		if err := s.exchange(u); err != nil {
			return errors.Join(err, s.undo(j.Units[:i]))
		}
		s.step("switched")
	}
	s.swapped = true
	return nil
}

// undo switches back.
func (s *diskStage) undo(units []stageUnit) error {
	var err error
	for _, u := range units {
		err = errors.Join(err, s.exchange(u))
	}
	return errors.Join(err, s.here.Remove(journalFile))
}

func (s *diskStage) write(j *stageJournal) error {
	data, err := json.Marshal(j)
	if err != nil {
		return err
	}
	f, err := s.here.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	return durable.WriteBytes(durable.OS{}, "", path.Join(procPath(int(f.Fd())), journalFile), 0o600, data)
}

// exchange puts what is staged at a unit's path, and what was there into the
// stage, in one step (renameat2(2), RENAME_EXCHANGE). The folder around keeps
// its time: nothing of it changed.
func (s *diskStage) exchange(u stageUnit) error {
	parent, err := s.d.beneath(path.Dir(u.Path), unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("opening the folder of %q: %w", u.Path, err)
	}
	defer unix.Close(parent)
	before, err := stat(parent)
	if err != nil {
		return err
	}
	here, err := s.here.Open(".")
	if err != nil {
		return err
	}
	defer here.Close()
	base := path.Base(u.Path)
	if err := unix.Renameat2(int(here.Fd()), u.Staged, parent, base, unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("exchanging %q: %w", u.Path, err)
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, before.Mtim}
	_ = unix.UtimesNanoAt(parent, "", times, unix.AT_EMPTY_PATH) // for show only
	return errors.Join(fsync(parent), here.Sync())
}

// recoverStages finishes, or undoes, what a server that died left behind.
func (d *disk) recoverStages() error {
	all, err := d.openStages(false)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer all.Close()
	f, err := all.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	for _, name := range names {
		err = errors.Join(err, d.recoverStage(all, name))
	}
	if err != nil {
		return fmt.Errorf("finishing the commit of a region: %w", err)
	}
	return nil
}

func (d *disk) recoverStage(all *os.Root, name string) error {
	data, err := all.ReadFile(path.Join(name, journalFile))
	var j stageJournal
	if err != nil || json.Unmarshal(data, &j) != nil {
		return all.RemoveAll(name) // it was not ready, or is no stage
	}
	here, err := all.OpenRoot(name)
	if err != nil {
		return err
	}
	defer here.Close()
	s := &diskStage{d: d, id: name, here: here}
	var open []stageUnit
	for _, u := range j.Units {
		if !j.Finished && !d.has(u) {
			open = append(open, u)
		}
	}
	if len(open) == len(j.Units) && !j.Finished {
		return all.RemoveAll(name)
	}
	for _, u := range open {
		if err := s.exchange(u); err != nil {
			return err
		}
	}
	return s.finish(&j)
}

// has tells whether a unit's path is what was staged.
func (d *disk) has(u stageUnit) bool {
	fd, err := d.beneath(u.Path, unix.O_PATH)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	st, err := stat(fd)
	return err == nil && st.Ino == u.Ino
}

// finish keeps of a stage only the journal, for the holder that asks what
// became of its commit.
func (s *diskStage) finish(j *stageJournal) error {
	j.Finished = true
	if err := s.write(j); err != nil {
		return err
	}
	if s.d.done == nil {
		s.d.done = map[string]string{}
	}
	s.d.done[j.Lease] = j.Commit
	var err error
	for _, u := range j.Units {
		err = errors.Join(err, s.here.RemoveAll(u.Staged))
	}
	return errors.Join(err, s.here.RemoveAll(spoolFile))
}

func (d *disk) finished(lease string) string {
	d.doneMu.Lock()
	defer d.doneMu.Unlock()
	return d.done[lease]
}

// settled forgets a commit that its holder was told of.
func (d *disk) settled(lease string) {
	d.doneMu.Lock()
	delete(d.done, lease)
	d.doneMu.Unlock()
	if all, err := d.openStages(false); err == nil {
		_ = all.RemoveAll(lease)
		all.Close()
	}
}
