package recipes

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"sort"
	"strings"
)

// Local cleans a path of the recipe ("overlay/", "./a/b") for use with io/fs.
// It refuses an absolute path and one that leads out of the recipe's folder:
// what a recipe names travels with it.
func Local(p string) (string, error) {
	clean := path.Clean(p)
	if p == "" || path.IsAbs(p) || !fs.ValidPath(clean) {
		return "", fmt.Errorf("%s does not lie in the recipe's folder", clip(p))
	}
	return clean, nil
}

// stat looks at a path of the recipe and reports one that is not there.
func (c *checker) stat(at Pos, p, what string) fs.FileInfo {
	clean, err := Local(p)
	if err != nil {
		c.fail(at, "name it relative to the recipe, without \"..\"", "the %s %v", what, err)
		return nil
	}
	if c.fsys == nil {
		return nil
	}
	info, err := fs.Stat(c.fsys, clean)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.fail(at, fmt.Sprintf("make it, or correct the path: it starts at the recipe's folder %s", c.folder()), "the %s %s does not exist", what, clip(p))
		return nil
	case err != nil:
		c.fail(at, "", "the %s %s cannot be read: %v", what, clip(p), err)
		return nil
	}
	return info
}

func (c *checker) folder() string {
	if c.r.Dir == "" {
		return clip(".")
	}
	return clip(c.r.Dir)
}

func (c *checker) exists(at Pos, p, what string) { c.stat(at, p, what) }

func (c *checker) file(at Pos, p, what string) {
	if info := c.stat(at, p, what); info != nil && !info.Mode().IsRegular() {
		c.fail(at, "name a file", "the %s %s is not a regular file", what, clip(p))
	}
}

// files checks a folder to be copied, the rules over it, and an fstab in it.
func (c *checker) files(f *Files) {
	if f == nil || f.From == "" {
		return
	}
	at := f.at("from", f.Pos)
	if info := c.stat(at, f.From, "folder"); info != nil {
		if !info.IsDir() {
			c.fail(at, "name a folder; its content is laid over the root", "%s is not a folder", clip(f.From))
		} else {
			c.givenFstab(f)
		}
	}
	for _, glob := range sorted(f.Owners) {
		_, err := owner(f.Owners[glob])
		c.rule(f, "owners", glob, err, "write \"0:0\": numbers, since names differ between machines")
	}
	for _, glob := range sorted(f.Modes) {
		_, err := octal(f.Modes[glob])
		c.rule(f, "modes", glob, err, "write it as \"0644\"")
	}
}

func (c *checker) rule(f *Files, key, glob string, err error, remedy string) {
	at := f.at(key+"."+glob, f.Pos)
	if err != nil {
		c.fail(at, remedy, "%s of %s: %v", key, clip(glob), err)
	}
	if _, err := path.Match(glob, ""); err != nil {
		c.fail(at, "write globs such as /etc/ssh/* or /srv/**", "%s is no glob: %v", clip(glob), err)
	}
}

func sorted(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// givenFstab reads the fstab of a folder line by line: it is the file in which
// a space too many has cost the most evenings.
func (c *checker) givenFstab(f *Files) {
	from, err := Local(f.From)
	if err != nil {
		return
	}
	name := path.Join(from, "etc/fstab")
	file, err := c.fsys.Open(name)
	if err != nil {
		return
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, MaxRecipe))
	if err != nil {
		c.fail(f.at("from", f.Pos), "", "the file %s cannot be read: %v", clip(name), err)
		return
	}
	c.fstabText(path.Join(c.r.Dir, name), data)
}

// shadowed warns about files of a stage that each node's own layer replaces.
func (c *checker) shadowed(f *Files) {
	from, err := Local(f.From)
	if err != nil || c.fsys == nil {
		return
	}
	for _, made := range nodeFiles(c.r.OS) {
		name := path.Join(from, strings.TrimPrefix(made.path, "/"))
		if _, err := fs.Stat(c.fsys, name); err == nil {
			c.warn(f.at("from", f.Pos), made.remedy, "%s is replaced on every node by the %s that the recipe makes", clip(name), made.path)
		}
	}
}

type madeFile struct{ path, remedy string }

func nodeFiles(os string) []madeFile {
	both := []madeFile{
		{"/etc/fstab", "write the lines into \"fstab\" of a profile or node"},
		{"/etc/machine-id", "remove it"},
	}
	if os == "freebsd" {
		return append(both, madeFile{"/etc/rc.conf", "write the variables into \"rc.conf\" of a profile or node, or the file into etc/rc.conf.d"},
			madeFile{"/etc/hostid", "remove it"},
			madeFile{"/boot/loader.conf", "write the variables into \"loader.conf\" of a profile or node"})
	}
	return append(both, madeFile{"/etc/hostname", "remove it; the node's name is in the recipe"})
}
