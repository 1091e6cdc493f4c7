// Package store keeps everything that rhizome has on a disk: images, seekable
// copies of foreign layers, pins, secrets, the cache of build steps. Two
// processes may use one store at once, and a crash at any instant leaves it as
// it was or repairs at the next start; docs/store.md has each folder and file.
package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"rhizome/registry/durable"
	"rhizome/registry/layout"
)

// The store's folders.
const (
	dirImages  = "oci"
	dirDerived = "derived"
	dirPins    = "pins"
	dirSecrets = "secrets"
	dirPersist = "persist"
	dirEvents  = "events"
	dirReads   = "reads"
	dirCache   = "cache"
	dirHistory = "history"
	dirMounts  = "mounts"
	dirTemp    = "tmp"
	dirPartial = "tmp/partial"
	dirLeases  = "tmp/leases"
	dirLocks   = "tmp/locks"
)

// schema is the version of the store's own files; it rises when an older
// program could misread what a newer one writes.
const schema = 1

// Options are what a store needs beside its folder. The zero value works.
type Options struct {
	// FS changes the disk; nil is the real one.
	FS durable.FS
	// Now is the clock; nil is the system's.
	Now func() time.Time
	// Who is written into the logs of tags and pins: "user@host".
	Who string
	Log *slog.Logger
}

// Store is a store in a folder. Its methods are safe for many goroutines and
// many processes.
type Store struct {
	dir    string
	fs     durable.FS
	now    func() time.Time
	who    string
	log    *slog.Logger
	images *layout.Layout
	// readOnly says that nothing may be changed.
	readOnly bool
}

// DefaultDir is where the store lies unless somebody says otherwise: the
// system's state folder for root (FHS, section 5.8; hier(7) on FreeBSD), else
// the user's data folder (XDG Base Directory Specification), or "" where the user
// has none.
func DefaultDir(getenv func(string) string, uid int, goos string) string {
	if uid == 0 && goos == "freebsd" {
		return "/var/db/rhizome"
	}
	if uid == 0 {
		return "/var/lib/rhizome"
	}
	if data := getenv("XDG_DATA_HOME"); filepath.IsAbs(data) {
		return filepath.Join(data, "rhizome")
	}
	if home := getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "share", "rhizome")
	}
	return ""
}

func newStore(dir string, o Options) *Store {
	s := &Store{dir: dir, fs: o.FS, now: o.Now, who: o.Who, log: o.Log}
	if s.fs == nil {
		s.fs = durable.OS{}
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s
}

// makeFolders makes what is missing. Nobody else may look in: layers hold
// /etc/shadow of the nodes.
func (s *Store) makeFolders() error {
	for _, d := range []string{"", dirDerived, dirPins, dirSecrets, dirPersist, dirEvents, dirReads, dirCache,
		dirHistory, dirMounts, dirTemp, dirPartial, dirLeases, dirLocks} {
		if err := s.fs.MkdirAll(s.path(d), 0o700); err != nil {
			return durable.Hint(err)
		}
	}
	return nil
}

type schemaFile struct {
	Schema int `json:"schema"`
}

func (s *Store) checkSchema() error {
	data, err := os.ReadFile(s.path("version.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return durable.Hint(err)
	}
	var v schemaFile
	if err := json.Unmarshal(data, &v); err != nil {
		return fmt.Errorf("reading its version from %q: %w", s.path("version.json"), err)
	}
	if v.Schema > schema {
		return fmt.Errorf("a newer rhizome wrote it (schema %d; this one knows %d): upgrade this program", v.Schema, schema)
	}
	return nil
}

func (s *Store) writeSchema() error {
	if _, err := os.Stat(s.path("version.json")); err == nil {
		return nil
	}
	return s.writeJSON("version.json", schemaFile{schema})
}

// Dir is the store's folder, absolute.
func (s *Store) Dir() string { return s.dir }

// Images is the OCI layout that holds all blobs.
func (s *Store) Images() *layout.Layout { return s.images }

// TempDir is where files grow before they have a name; what a process that
// died left there is swept after a day.
func (s *Store) TempDir() string { return s.path(dirTemp) }

// PartialDir is where half-pulled blobs wait for the rest.
func (s *Store) PartialDir() string { return s.path(dirPartial) }

func (s *Store) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

// writeJSON replaces a file of the store, atomically.
func (s *Store) writeJSON(name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("writing %q: %w", s.path(name), err)
	}
	return durable.WriteBytes(s.fs, s.path(dirTemp), s.path(name), 0o600, append(data, '\n'))
}

// readJSON reads a file of the store; a missing one is fs.ErrNotExist.
func (s *Store) readJSON(name string, v any) error {
	data, err := os.ReadFile(s.path(name))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("reading %q: %w: put back a copy of it, or remove it", s.path(name), err)
	}
	return nil
}

// Names lists what a folder of the store holds whose name ends so, sorted. It is
// no glob: the store's own path may hold letters that mean something to one, and
// a folder that cannot be read is not an empty one.
func (s *Store) Names(folder, suffix string) ([]string, error) {
	entries, err := os.ReadDir(s.path(folder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing a folder of the store: %w", durable.Hint(err))
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), suffix) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// PersistDir makes and returns the folder of a node's writable export.
func (s *Store) PersistDir(cluster, node string) (string, error) {
	return s.nodeDir(dirPersist, cluster, node, 0o755)
}

// SecretsDir makes and returns the folder of a node's secrets, mode 0700. What
// lies in it is never pushed.
func (s *Store) SecretsDir(cluster, node string) (string, error) {
	return s.nodeDir(dirSecrets, cluster, node, 0o700)
}

// EventsDir makes and returns the folder of a cluster's boot timelines.
func (s *Store) EventsDir(cluster string) (string, error) {
	return s.nodeDir(dirEvents, cluster, "", 0o700)
}

// ReadsDir makes and returns the folder of what the nodes of a cluster read.
func (s *Store) ReadsDir(cluster string) (string, error) {
	return s.nodeDir(dirReads, cluster, "", 0o700)
}

func (s *Store) nodeDir(kind, cluster, node string, mode fs.FileMode) (string, error) {
	if err := errors.Join(checkName("cluster", cluster), checkNode(node)); err != nil {
		return "", err
	}
	dir := s.path(kind, cluster, node)
	if s.readOnly {
		return dir, nil
	}
	if err := s.fs.MkdirAll(dir, mode); err != nil {
		return "", fmt.Errorf("making the folder %q: %w", dir, durable.Hint(err))
	}
	return dir, nil
}

func checkNode(node string) error {
	if node == "" {
		return nil
	}
	return checkName("node", node)
}

// checkName keeps names that become file names inside their folder.
func checkName(what, name string) error {
	if name == "" || name == "." || name == ".." || len(name) > 200 || strings.ContainsAny(name, "/\x00") {
		return &NameError{what, name, "it may not be empty, \".\" or \"..\", longer than 200 bytes, or hold a slash"}
	}
	return nil
}
