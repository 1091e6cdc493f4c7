package recipes

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// LockVersion is the version of the lock format that is read and written.
const LockVersion = 1

// maxLock bounds a lock file: about fifty thousand packages, in bytes.
const maxLock = 16 << 20

// LockFile is the path of the lock file that belongs to a recipe: beside it,
// or in the current folder for a shipped one.
func (r *Recipe) LockFile() string {
	return strings.TrimSuffix(r.File, ".yaml") + ".lock.yaml"
}

// ReadLock reads a lock file strictly. Where there is none, the error wraps
// fs.ErrNotExist.
func ReadLock(file string) (*Lock, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("reading the lock file %q: %w", file, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxLock+1))
	if err != nil {
		return nil, fmt.Errorf("reading the lock file %q: %w", file, err)
	}
	return ParseLock(file, data)
}

// ParseLock reads the text of a lock file. A lock that was edited by hand into
// something unsafe (a path that leads out of a mirror, a sum that is none) is
// refused.
func ParseLock(file string, data []byte) (*Lock, error) {
	remedy := "make it anew with \"rhizome lock\""
	if len(data) > maxLock {
		return nil, fmt.Errorf("reading the lock file %q: it has more than %d bytes: %s", file, maxLock, remedy)
	}
	d := &decoder{file: file}
	if root, err := lockTree(data); err != nil {
		return nil, fmt.Errorf("reading the lock file %q: %w: %s", file, err, remedy)
	} else if !d.plain(root, 0) {
		return nil, d.findings.Err()
	}
	var l Lock
	if err := yaml.Load(data, &l, yaml.WithKnownFields(), yaml.WithUniqueKeys()); err != nil {
		return nil, fmt.Errorf("reading the lock file %q: %w: %s", file, err, remedy)
	}
	if err := l.check(); err != nil {
		return nil, fmt.Errorf("reading the lock file %q: %w: %s", file, err, remedy)
	}
	return &l, nil
}

func lockTree(data []byte) (*yaml.Node, error) {
	var doc yaml.Node
	if err := yaml.Load(data, &doc); err != nil {
		return nil, err
	}
	if len(doc.Content) != 1 {
		return nil, errors.New("it is empty")
	}
	return doc.Content[0], nil
}

func (l *Lock) check() error {
	if l.Version != LockVersion {
		return fmt.Errorf("its version is %d, and this rhizome reads %d", l.Version, LockVersion)
	}
	for name, set := range l.Sets {
		for _, p := range set.Packages {
			if err := p.check(); err != nil {
				return fmt.Errorf("set %q: %w", name, err)
			}
		}
	}
	for ref, d := range l.Images {
		if !sha256Text.MatchString(d) {
			return fmt.Errorf("image %q: %s is no digest", ref, clip(d))
		}
	}
	for ref, commit := range l.Commits {
		if strings.Trim(commit, "0123456789abcdef") != "" || len(commit) != 40 && len(commit) != 64 {
			return fmt.Errorf("repository %q: %s is no commit", ref, clip(commit))
		}
	}
	return nil
}

func (p LockedPackage) check() error {
	switch {
	case p.Name == "" || p.Version == "":
		return fmt.Errorf("a package has no name or no version: %q %q", p.Name, p.Version)
	case strings.ContainsAny(p.Name+p.Version+p.Arch, "/ \n\x00"):
		return fmt.Errorf("a package is named %q %q %q, which holds a blank or a slash", p.Name, p.Version, p.Arch)
	case !sha256Hex.MatchString(p.SHA256):
		return fmt.Errorf("package %q: %s is no sha256", p.Name, clip(p.SHA256))
	case p.Size < 0:
		return fmt.Errorf("package %q: its size is %d", p.Name, p.Size)
	case p.File != "" && (!fs.ValidPath(p.File) || path.Clean(p.File) != p.File):
		return fmt.Errorf("package %q: the path %s does not stay below a mirror", p.Name, clip(p.File))
	}
	return nil
}

// Encode writes a lock as YAML. The same lock always gives the same bytes:
// packages are in the order of their names.
func (l *Lock) Encode() ([]byte, error) {
	out := *l
	out.Sets = make(map[string]PackageSet, len(l.Sets))
	for name, set := range l.Sets {
		set.Packages = slices.SortedFunc(slices.Values(set.Packages), func(a, b LockedPackage) int {
			return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Arch, b.Arch), cmp.Compare(a.Version, b.Version))
		})
		out.Sets[name] = set
	}
	if err := out.check(); err != nil {
		return nil, err
	}
	body, err := yaml.Dump(out)
	if err != nil {
		return nil, err
	}
	return append([]byte("# Written by \"rhizome lock\"; build obeys it. Keep it beside the recipe, in git.\n"), body...), nil
}

// WriteLock puts a lock file in place in one step: under a temporary name,
// synced, then renamed, so that a crash leaves the old file or the new one.
func WriteLock(file string, l *Lock) error {
	data, err := l.Encode()
	if err != nil {
		return fmt.Errorf("writing the lock file %q: %w", file, err)
	}
	if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, data) {
		return nil
	}
	if err := replace(file, data); err != nil {
		return fmt.Errorf("writing the lock file %q: %w", file, err)
	}
	return nil
}

func replace(file string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	defer func() {
		f.Close()
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	// A temporary file is private; a lock file lies in git for all to read.
	if err = f.Chmod(0o644); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), file); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(file))
}

// syncFolder makes a rename last through a crash.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
