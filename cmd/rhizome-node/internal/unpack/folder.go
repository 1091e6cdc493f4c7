package unpack

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxLinks is how many symlinks one path may lead through (ELOOP on Linux).
const maxLinks = 40

// folder finds the folder that a path leads to, and makes what is missing.
// Symlinks are followed within Dir, as the merged view at the server does for
// folders that a layer only implies.
func (l *laying) folder(parts []string) (string, error) {
	at, left, links := l.Dir, append([]string(nil), parts...), 0
	for len(left) > 0 {
		p := left[0]
		left = left[1:]
		switch p {
		case "", ".":
			continue
		case "..":
			if at != l.Dir {
				at = filepath.Dir(at)
			}
			continue
		}
		next := filepath.Join(at, p)
		info, err := os.Lstat(next)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if err := os.Mkdir(next, 0o755); err != nil {
				return "", err
			}
		case err != nil:
			return "", err
		case info.Mode()&fs.ModeSymlink != 0:
			if links++; links > maxLinks {
				return "", errors.New("too many symlinks on the way")
			}
			to, err := os.Readlink(next)
			if err != nil {
				return "", err
			}
			if filepath.IsAbs(to) {
				at = l.Dir
			}
			left = append(strings.Split(to, "/"), left...)
			if len(left) > maxPath {
				return "", errors.New("too long a way through symlinks")
			}
			continue
		case !info.IsDir():
			return "", fmt.Errorf("there is a file in the way of the folder %q", p)
		}
		at = next
	}
	return at, nil
}

// marker obeys a whiteout: name is the marker's, rest what follows ".wh.".
func (l *laying) marker(dir, name, rest string) error {
	switch {
	case name == opaque && l.Overlay:
		return markOpaque(dir)
	case name == opaque:
		return l.clear(dir)
	case rest == "" || rest == "." || rest == "..":
		return errors.New("a whiteout of nothing")
	case l.Overlay:
		return errors.New("a whiteout, which a bundle does not have")
	}
	at := filepath.Join(dir, rest)
	if !l.mine[at] {
		return l.remove(at)
	}
	if info, err := os.Lstat(at); err != nil || !info.IsDir() {
		return err
	}
	return l.clear(at)
}

// remove takes something away, and all that is remembered of what lies in it:
// later something else may be reached by the same path.
func (l *laying) remove(at string) error {
	within := func(p string) bool { return p == at || strings.HasPrefix(p, at+"/") }
	l.times = slices.DeleteFunc(l.times, func(s stamped) bool { return within(s.at) })
	maps.DeleteFunc(l.mine, func(p string, _ bool) bool { return within(p) })
	return os.RemoveAll(at)
}

// clear takes away what lower layers put into a folder.
func (l *laying) clear(dir string) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		at := filepath.Join(dir, e.Name())
		switch {
		case !l.mine[at]:
			err = l.remove(at)
		case e.IsDir():
			err = l.clear(at)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// inTheWay removes what a new entry replaces. A folder stays where a folder
// comes.
func (l *laying) inTheWay(at string, comesDir bool) error {
	info, err := os.Lstat(at)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.IsDir() && comesDir:
		return nil
	case !info.IsDir():
		return os.Remove(at)
	}
	return l.remove(at)
}
