package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"rhizome/registry/durable"
	"rhizome/registry/layout"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

var (
	// ours are the names in a store's folder.
	ours = []string{dirImages, dirDerived, dirPins, dirSecrets, dirPersist, dirEvents, dirReads, dirCache, dirHistory,
		dirMounts, dirTemp, "cow", "lock", "origins.json"}
	// anybodys are names that file systems put into their root.
	anybodys = []string{"lost+found", ".snapshot", ".snapshots", ".zfs"}
)

// Open opens the store in dir, makes it when there is none, and clears away
// what a process that died left behind. A folder that holds anything else is
// refused: a mistyped name must not fill somebody's home with folders.
func Open(dir string, o Options) (*Store, error) {
	return opened(dir, o, func(s *Store) error {
		var none *NoStoreError
		if err := s.there(); errors.As(err, &none) && none.Holds != "" {
			return fmt.Errorf("it holds other things (%q, say) and is no store: name a new or an empty folder with --store", none.Holds)
		} else if err != nil && none == nil {
			return err
		} else if none == nil {
			return s.change()
		}
		return s.open()
	})
}

// OpenToChange is Open for a store that must be there already; a *NoStoreError
// says that there is none.
func OpenToChange(dir string, o Options) (*Store, error) {
	return opened(dir, o, func(s *Store) error {
		if err := s.there(); err != nil {
			return err
		}
		return s.change()
	})
}

// OpenExisting is OpenToChange, or OpenReadOnly where this user may not write.
func OpenExisting(dir string, o Options) (*Store, error) {
	return opened(dir, o, func(s *Store) error {
		if err := s.there(); err != nil {
			return err
		}
		if s.writable() != nil {
			return s.look()
		}
		return s.open()
	})
}

// OpenReadOnly opens a store that is there already, to look into it: nothing in
// it is made, swept, marked as used or locked for longer than a look. Methods
// that would change it fail. A *NoStoreError says that there is no store.
func OpenReadOnly(dir string, o Options) (*Store, error) {
	return opened(dir, o, func(s *Store) error {
		if err := s.there(); err != nil {
			return err
		}
		return s.look()
	})
}

// None is the store of a folder in which there is none: nothing is found in it,
// and nothing can be put there.
func None(dir string, o Options) (*Store, error) { return opened(dir, o, (*Store).look) }

func opened(dir string, o Options, open func(*Store) error) (*Store, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the store %q: %w", dir, err)
	}
	s := newStore(abs, o)
	err = open(s)
	var none *NoStoreError
	if err != nil && !errors.As(err, &none) { // that has the folder in its sentence
		err = fmt.Errorf("opening the store %q: %w", abs, err)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// writable says why this user cannot make files in the store's folder: access(2)
// knows of read-only file systems and of access lists, too.
func (s *Store) writable() error { return unix.Access(s.dir, unix.W_OK|unix.X_OK) }

// change opens a store that is there.
func (s *Store) change() error {
	if err := s.writable(); err != nil {
		return fmt.Errorf("it cannot be written to: %w", durable.Hint(err))
	}
	return s.open()
}

// open makes what is missing.
func (s *Store) open() (err error) {
	if err := s.checkSchema(); err != nil {
		return err
	}
	if err := s.makeFolders(); err != nil {
		return err
	}
	if s.images, err = layout.Open(s.path(dirImages), layout.Options{FS: s.fs, Temp: s.path(dirTemp), Lock: s.path("lock")}); err != nil {
		return err
	}
	if err := s.writeSchema(); err != nil {
		return err
	}
	s.sweep()
	return nil
}

func (s *Store) look() (err error) {
	s.fs, s.readOnly = durable.ReadOnly{}, true
	if err := s.checkSchema(); err != nil {
		return err
	}
	s.images, err = layout.Open(s.path(dirImages), layout.Options{FS: s.fs, Temp: s.path(dirTemp), Lock: s.path("lock"), ReadOnly: true})
	return err
}

// there says whether the store's folder is a store: nil, a *NoStoreError, or why
// that cannot be known.
func (s *Store) there() error {
	for _, marker := range []string{s.path(dirImages, ocispec.ImageLayoutFile), s.path("version.json")} {
		_, err := os.Stat(marker)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, syscall.ENOTDIR):
			return errNoFolder
		case !errors.Is(err, fs.ErrNotExist):
			return durable.Hint(err)
		}
	}
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return &NoStoreError{Dir: s.dir}
	}
	if err != nil {
		return durable.Hint(err)
	}
	return judge(s.dir, entries)
}

// judge says what a folder without a marker is: a store that a crash left
// half-made, an empty folder, or somebody else's.
func judge(dir string, entries []fs.DirEntry) error {
	begun := false
	for _, e := range entries {
		switch {
		case slices.Contains(ours, e.Name()):
			begun = true
		case !slices.Contains(anybodys, e.Name()):
			return &NoStoreError{Dir: dir, Holds: e.Name()}
		}
	}
	if begun {
		return nil
	}
	return &NoStoreError{Dir: dir, Empty: true}
}
