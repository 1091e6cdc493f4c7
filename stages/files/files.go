// Package files copies a folder of the recipe over the root, with owners and
// modes by rule and templates expanded. It reads through an io/fs and follows
// no symlink, so nothing outside the recipe's folder gets into an image.
package files

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"rhizome/pipeline/tree"
	"rhizome/recipes"
)

// Version is raised whenever this package makes another tree of the same folder.
const Version = 1

// keep is the file by which git is made to hold an empty folder.
const keep = ".gitkeep"

// Build reads the folder and returns it as a tree. Values are what templates
// see: a ClusterView, or a NodeView for a node's own files. Errors name the file, and
// the line in a template.
func Build(fsys fs.FS, f recipes.Files, values any) (*tree.Tree, error) {
	from, err := recipes.Local(f.From)
	if err != nil {
		return nil, fmt.Errorf("copying the folder %q: %w", f.From, err)
	}
	rules, err := newRules(f)
	if err != nil {
		return nil, fmt.Errorf("copying the folder %q: %w", f.From, err)
	}
	c := &copier{fsys: fsys, from: from, template: f.Template, values: values, rules: rules, out: tree.New()}
	if err := fs.WalkDir(fsys, from, c.visit); err != nil {
		return nil, fmt.Errorf("copying the folder %q: %w", f.From, err)
	}
	if unused := rules.unused(); unused != "" {
		return nil, fmt.Errorf("copying the folder %q: the rule %q matches no path in it: globs are paths in the root, such as /etc/ssh/* (modes of folders end in \"/\")", f.From, unused)
	}
	return c.out, nil
}

// copier is one walk over one folder.
type copier struct {
	fsys     fs.FS
	from     string
	template bool
	values   any
	rules    *rules
	out      *tree.Tree
}

func (c *copier) visit(name string, d fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	at := strings.TrimPrefix(strings.TrimPrefix(name, c.from), "/")
	if c.from == "." {
		at = name
	}
	switch {
	case d.IsDir():
		return c.folder(name, at)
	case d.Name() == keep:
		return nil
	case d.Type()&fs.ModeSymlink != 0:
		return c.symlink(name, at)
	case d.Type().IsRegular():
		return c.file(name, at)
	}
	return fmt.Errorf("%q is neither a file, a folder nor a symlink (its mode is %s): make devices and pipes by a script stage", name, d.Type())
}

// folder writes a directory only where somebody said something about it, or
// nothing lies in it: an overlay's folders lead to its files, and are not meant
// to change the mode of the root's own /root or /tmp.
func (c *copier) folder(name, at string) error {
	if at == "" || at == "." {
		return nil
	}
	mode, hasMode := c.rules.mode("/" + at + "/")
	uid, gid, hasOwner := c.rules.owner("/" + at)
	if !hasMode {
		mode = 0o755
	}
	empty, err := c.empty(name)
	if err != nil {
		return err
	}
	if !hasMode && !hasOwner && !empty {
		return nil
	}
	return c.out.Add(tree.Entry{Path: at, Kind: tree.Dir, Mode: mode, UID: uid, GID: gid})
}

func (c *copier) empty(name string) (bool, error) {
	list, err := fs.ReadDir(c.fsys, name)
	if err != nil {
		return false, err
	}
	for _, e := range list {
		if e.Name() != keep {
			return false, nil
		}
	}
	return true, nil
}

func (c *copier) symlink(name, at string) error {
	target, err := fs.ReadLink(c.fsys, name)
	if err != nil {
		return err
	}
	uid, gid, _ := c.rules.owner("/" + at)
	return c.out.Add(tree.Entry{Path: at, Kind: tree.Symlink, Mode: 0o777, UID: uid, GID: gid, Target: target})
}

func (c *copier) file(name, at string) error {
	info, err := fs.Stat(c.fsys, name)
	if err != nil {
		return err
	}
	var body tree.Body = fsBody{c.fsys, name, info.Size()}
	if c.template && strings.HasSuffix(at, suffix) {
		at = strings.TrimSuffix(at, suffix)
		if body, err = expand(c.fsys, name, c.values); err != nil {
			return err
		}
	}
	if c.out.Lookup(at) != nil {
		return fmt.Errorf("%q and its template both make %q: remove one of them", at, "/"+at)
	}
	mode, ok := c.rules.mode("/" + at)
	if !ok {
		if mode, err = usualMode(info, body); err != nil {
			return err
		}
	}
	uid, gid, _ := c.rules.owner("/" + at)
	return c.out.Add(tree.Entry{Path: at, Kind: tree.File, Mode: mode, UID: uid, GID: gid, Body: body})
}

// usualMode is 0755 for what its owner may execute and for scripts, and 0644
// for the rest. The umask of a checkout plays no part, and a recipe embedded in
// a program, which has no modes, gives the same as its copy on a disk.
func usualMode(info fs.FileInfo, body tree.Body) (uint32, error) {
	if info.Mode()&0o100 != 0 {
		return 0o755, nil
	}
	r, err := body.Open()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	head := make([]byte, 2)
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, err
	}
	if bytes.Equal(head[:n], []byte("#!")) {
		return 0o755, nil
	}
	return 0o644, nil
}

// fsBody is a file of the recipe; nothing of it is held in memory.
type fsBody struct {
	fsys fs.FS
	name string
	size int64
}

// Open opens the file.
func (b fsBody) Open() (io.ReadCloser, error) { return b.fsys.Open(b.name) }

// Size is the file's length in bytes when the folder was read.
func (b fsBody) Size() int64 { return b.size }

// Inputs describes a tree as the inputs of a step: a line for each path, with
// its owner, its mode and the digest of its content.
func Inputs(t *tree.Tree) (map[string]string, error) {
	in := map[string]string{}
	for _, e := range t.Entries() {
		if e.Implied {
			continue
		}
		line := fmt.Sprintf("%s %04o %d:%d", e.Kind, e.Mode, e.UID, e.GID)
		switch e.Kind {
		case tree.Symlink:
			line += " -> " + e.Target
		case tree.File:
			sum, err := digest(e)
			if err != nil {
				return nil, fmt.Errorf("reading %q for the key of a step: %w", path.Join("/", e.Path), err)
			}
			line += " sha256:" + sum
		}
		in[path.Join("/", e.Path)] = line
	}
	return in, nil
}

func digest(e *tree.Entry) (string, error) {
	h := sha256.New()
	if e.Body != nil {
		r, err := e.Body.Open()
		if err != nil {
			return "", err
		}
		defer r.Close()
		if _, err := io.Copy(h, r); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}
