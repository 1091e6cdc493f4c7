package doctor

import (
	"errors"
	"io/fs"

	"rhizome/cmd/rhizome/internal/units"
)

// Disk is the file system that a folder lies on.
type Disk struct {
	// Free is what this user may still write, Total the whole, in bytes.
	Free, Total int64
	// Inodes and InodesFree are numbers of files; 0 where the system has no
	// bound.
	Inodes, InodesFree uint64
	ReadOnly           bool
}

// Store is what was found of the store's folder.
type Store struct {
	Dir string
	// Missing says that there is none yet: the first build or pull makes it.
	Missing bool
	// Unwritable is why this user cannot write there, Unreadable why the store
	// cannot be opened.
	Unwritable, Unreadable error
	Mode                   fs.FileMode
	Disk                   Disk
	// Leftovers are bytes in tmp/ that interrupted work left.
	Leftovers int64
	// Dangling are sentences about names and pins that mean nothing here.
	Dangling []string
}

const (
	// lowSpace is when a disk counts as nearly full: serve writes events,
	// secrets and what nodes write, and a pull writes whole layers.
	lowSpace  = 1 << 30
	lowInodes = 10_000
)

// Check judges the store.
func (s Store) Check() []Finding {
	f := findings{what: AboutHost}
	if s.Unwritable != nil {
		f.fail("run as the store's owner, or name another store with --store", "the store %q cannot be written to: %v", s.Dir, s.Unwritable)
	}
	if s.Unreadable != nil && (s.Unwritable == nil || !errors.Is(s.Unreadable, fs.ErrPermission)) {
		f.fail("", "%v", s.Unreadable)
	}
	// Layers hold /etc/shadow of the nodes.
	if s.Mode.Perm()&0o077 != 0 && !s.Missing {
		f.warn("chmod 700 "+s.Dir, "others may look into the store %q (mode %04o), which holds the nodes' passwords and keys", s.Dir, s.Mode.Perm())
	}
	s.space(&f)
	for _, d := range s.Dangling {
		f.fail("`rhizome verify REF --repair` fetches what is missing or damaged; `rhizome untag` and another pin drop the name", "%s", d)
	}
	return f.all
}

func (s Store) space(f *findings) {
	d := s.Disk
	if d.ReadOnly {
		f.fail("mount it writable, or name another store with --store", "the store %q lies on a file system that is mounted read-only", s.Dir)
		return
	}
	if d.Total > 0 && d.Free < lowSpace {
		remedy := "`rhizome gc` removes what nothing needs"
		if s.Leftovers > 0 {
			remedy += "; " + units.Bytes(s.Leftovers) + " in tmp/ are left of interrupted work, and go at the next start when they are old enough"
		}
		f.warn(remedy, "the disk of the store %q has %s free of %s", s.Dir, units.Bytes(d.Free), units.Bytes(d.Total))
	}
	if d.Inodes > 0 && d.InodesFree < lowInodes {
		f.warn("remove small files there, or name another store with --store", "the disk of the store %q has room for %d more files alone, whatever their size", s.Dir, d.InodesFree)
	}
}
