package packages

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"rhizome/pipeline/tree"
	"rhizome/recipes"
)

// manifest is what a package says of itself that laying it out must know
// (pkg-create(8), "MANIFEST FILE DETAILS").
type manifest struct {
	Name    string                     `json:"name"`
	Version string                     `json:"version"`
	Scripts map[string]json.RawMessage `json:"scripts"`
	Lua     map[string]json.RawMessage `json:"lua_scripts"`
	Users   []string                   `json:"users"`
	Groups  []string                   `json:"groups"`
}

// maxManifest bounds +MANIFEST, which names every file, in bytes.
const maxManifest = 64 << 20

// LayOut unpacks FreeBSD packages into a tree, to lie over lower. Nothing is
// run and nothing is registered, so a package that would run something when it
// is installed is refused by name, as is one that needs a user whom lower does
// not have; pkg(8) on the node will not know of the packages. Bodies lie below
// work.
func LayOut(ctx context.Context, work string, set recipes.PackageSet, files []string, lower *tree.Tree) (*tree.Tree, error) {
	ids, err := readIDs(lower)
	if err != nil {
		return nil, err
	}
	out, owner := tree.New(), map[string]string{}
	for i, p := range set.Packages {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		t, err := unpackPkg(filepath.Join(work, p.Name+".tar"), files[i], p, ids)
		if err != nil {
			return nil, fmt.Errorf("laying out the package %q %s: %w", p.Name, p.Version, err)
		}
		if err := claim(t, p.Name, owner); err != nil {
			return nil, err
		}
		if err := out.Merge(t); err != nil {
			return nil, fmt.Errorf("laying out the package %q %s: %w", p.Name, p.Version, err)
		}
	}
	return out, nil
}

// claim refuses two packages that bring one path.
func claim(t *tree.Tree, name string, owner map[string]string) error {
	for _, e := range t.Entries() {
		if e.Kind == tree.Dir {
			continue
		}
		if other := owner[e.Path]; other != "" {
			return fmt.Errorf("the packages %q and %q both bring %q; leave one of them out", other, name, "/"+e.Path)
		}
		owner[e.Path] = name
	}
	return nil
}

// unpackPkg writes a package's files into a plain tar, with paths relative to
// the root and owners as numbers, and reads that.
func unpackPkg(to, file string, p recipes.LockedPackage, ids ids) (*tree.Tree, error) {
	in, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	plain, done, err := decompress(in)
	if err != nil {
		return nil, err
	}
	defer done()
	out, err := os.Create(to)
	if err != nil {
		return nil, err
	}
	err = rewrite(tar.NewReader(plain), tar.NewWriter(out), p, ids)
	if err := errors.Join(err, out.Close()); err != nil {
		return nil, err
	}
	return tree.FromTar(to)
}

func rewrite(in *tar.Reader, out *tar.Writer, p recipes.LockedPackage, ids ids) error {
	checked := false
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if strings.HasPrefix(h.Name, "+") {
			if h.Name == "+MANIFEST" {
				checked = true
				err = checkManifest(in, p, ids)
			}
			if err != nil {
				return err
			}
			continue
		}
		if err := copyEntry(in, out, h, ids); err != nil {
			return err
		}
	}
	if !checked {
		return errors.New("it has no +MANIFEST; is it a package that pkg made?")
	}
	return out.Close()
}

func copyEntry(in *tar.Reader, out *tar.Writer, h *tar.Header, ids ids) error {
	c := *h
	c.Name = strings.TrimLeft(h.Name, "/")
	if h.Typeflag == tar.TypeLink {
		c.Linkname = strings.TrimLeft(h.Linkname, "/")
	}
	var err error
	if c.Uid, err = ids.users.find("user", h.Uname, h.Uid); err != nil {
		return err
	}
	if c.Gid, err = ids.groups.find("group", h.Gname, h.Gid); err != nil {
		return err
	}
	c.Uname, c.Gname, c.Format = "", "", tar.FormatPAX
	if err := out.WriteHeader(&c); err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return err
}

// checkManifest refuses what cannot be done without running the package.
func checkManifest(r io.Reader, p recipes.LockedPackage, ids ids) error {
	var m manifest
	if err := json.NewDecoder(io.LimitReader(r, maxManifest)).Decode(&m); err != nil {
		return fmt.Errorf("reading its +MANIFEST: %w", err)
	}
	if m.Name != p.Name || m.Version != p.Version {
		return fmt.Errorf("it is %q %s; run \"rhizome lock\" again", m.Name, m.Version)
	}
	for _, scripts := range []map[string]json.RawMessage{m.Scripts, m.Lua} {
		for name := range scripts {
			if !strings.Contains(name, "deinstall") {
				return fmt.Errorf("it runs a script when it is installed (%q), and packages are laid out without running anything: put what it needs into a files stage, or take a base image that has it", name)
			}
		}
	}
	for _, u := range m.Users {
		if _, err := ids.users.find("user", u, -1); err != nil {
			return err
		}
	}
	for _, g := range m.Groups {
		if _, err := ids.groups.find("group", g, -1); err != nil {
			return err
		}
	}
	return nil
}

// ids are the users and groups of the root below, by name.
type ids struct{ users, groups names }

type names map[string]int

// find is the number of a name; a name that the root does not have is an error
// unless it is empty, and then the number given counts.
func (n names) find(what, name string, number int) (int, error) {
	if id, ok := n[name]; ok {
		return id, nil
	}
	switch {
	case name == "":
		return max(number, 0), nil
	case name == "root" || name == "wheel":
		return 0, nil
	}
	return 0, fmt.Errorf("it needs the %s %q, which the root does not have: add it to /etc in a files stage before the packages (passwd(5), pwd_mkdb(8))", what, name)
}

// readIDs reads passwd(5) and group(5) of a root; both have the number in
// their third field.
func readIDs(t *tree.Tree) (ids, error) {
	users, err := readNames(t, "etc/master.passwd", "etc/passwd")
	if err != nil {
		return ids{}, err
	}
	groups, err := readNames(t, "etc/group")
	return ids{users, groups}, err
}

func readNames(t *tree.Tree, paths ...string) (names, error) {
	n := names{}
	i := slices.IndexFunc(paths, func(p string) bool { e := t.Lookup(p); return e != nil && e.Body != nil })
	if i < 0 {
		return n, nil
	}
	r, err := t.Lookup(paths[i]).Body.Open()
	if err != nil {
		return nil, fmt.Errorf("reading %q of the layers below: %w", "/"+paths[i], err)
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, 16<<20))
	if err != nil {
		return nil, fmt.Errorf("reading %q of the layers below: %w", "/"+paths[i], err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) < 3 {
			continue
		}
		if id, err := strconv.Atoi(f[2]); err == nil {
			n[f[0]] = id
		}
	}
	return n, nil
}
