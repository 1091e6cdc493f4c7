// Package script runs a command of the recipe over the root that the layers
// below make; what it changes becomes a layer. The command runs in a sandbox
// without network, sees the inputs that the recipe declares, and nothing that
// could make two builds differ but what it brings itself.
package script

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rhizome/pipeline/tree"
	"rhizome/recipes"
	"rhizome/stages/sandbox"
)

// Version is raised whenever this package gives a command another world.
const Version = 2

// Script is a command with what it may read.
type Script struct {
	Script recipes.Script
	// FS is the recipe's folder.
	FS fs.FS
	// System is the root's, as OCI names it.
	System string
	// Epoch becomes SOURCE_DATE_EPOCH.
	Epoch time.Time
}

// Inputs are the command, its date, and each declared file or folder by the
// digest of its names, modes and content.
func (s Script) Inputs() (map[string]string, error) {
	in := map[string]string{"run": s.Script.Run, "epoch": s.Epoch.UTC().Format(time.RFC3339)}
	for _, name := range s.Script.Inputs {
		h := sha256.New()
		err := s.walk(name, func(f file) error {
			_, err := fmt.Fprintf(h, "%q %o %q %x\n", f.name, f.mode, f.target, sha256.Sum256(f.body))
			return err
		})
		if err != nil {
			return nil, err
		}
		in["input:"+path.Clean(name)] = fmt.Sprintf("sha256:%x", h.Sum(nil))
	}
	return in, nil
}

// Run runs the command over lower and returns what it changed.
func (s Script) Run(ctx context.Context, env sandbox.Env, lower *tree.Tree) (*tree.Tree, error) {
	if err := sandbox.CanRun(s.System); err != nil {
		return nil, err
	}
	inputs := filepath.Join(env.Work, "inputs")
	if err := s.layOut(inputs); err != nil {
		return nil, err
	}
	upper, err := sandbox.Run(ctx, env, lower, sandbox.Command{
		Doing:  fmt.Sprintf("running the script %q", short(s.Script.Run)),
		Args:   []string{"/bin/sh", "-c", "cd " + sandbox.InputsAt + "\n" + s.Script.Run},
		Inputs: inputs, Epoch: s.Epoch,
	})
	if err != nil {
		return nil, err
	}
	d, err := tree.Diff(lower, upper)
	if err != nil {
		return nil, fmt.Errorf("finding out what the script changed: %w", err)
	}
	return d, nil
}

// short is a command's first line, for an error.
func short(run string) string {
	line, rest, _ := strings.Cut(strings.TrimSpace(run), "\n")
	if len(line) > 60 || rest != "" {
		line = line[:min(len(line), 60)] + " ..."
	}
	return line
}

// file is one file, folder or link of the inputs.
type file struct {
	name   string
	mode   fs.FileMode
	target string
	body   []byte
}

// walk visits an input in order. Permissions are 0755 for what is executable or
// begins with "#!", else 0644: a checkout's umask plays no part.
func (s Script) walk(name string, visit func(file) error) error {
	local, err := recipes.Local(name)
	if err != nil {
		return fmt.Errorf("reading the input %q: %w", name, err)
	}
	err = fs.WalkDir(s.FS, local, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		f, err := s.read(p, d)
		if err != nil {
			return err
		}
		return visit(f)
	})
	if err != nil {
		return fmt.Errorf("reading the input %q: %w", name, err)
	}
	return nil
}

func (s Script) read(p string, d fs.DirEntry) (file, error) {
	switch {
	case d.IsDir():
		return file{name: p, mode: fs.ModeDir | 0o755}, nil
	case d.Type()&fs.ModeSymlink != 0:
		target, err := fs.ReadLink(s.FS, p)
		return file{name: p, mode: fs.ModeSymlink, target: target}, err
	case !d.Type().IsRegular():
		return file{}, fmt.Errorf("%q is neither a file, a folder nor a symlink", p)
	}
	info, err := d.Info()
	if err != nil {
		return file{}, err
	}
	body, err := fs.ReadFile(s.FS, p)
	if err != nil {
		return file{}, err
	}
	mode := fs.FileMode(0o644)
	if info.Mode()&0o111 != 0 || bytes.HasPrefix(body, []byte("#!")) {
		mode = 0o755
	}
	return file{name: p, mode: mode, body: body}, nil
}

// layOut copies the inputs to where the sandbox finds them, all with one date.
func (s Script) layOut(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("clearing the script's inputs: %w", err)
	}
	if err := makeFolder(dir); err != nil {
		return fmt.Errorf("laying out the script's inputs: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(asSet(s.Script.Inputs))) {
		err := s.walk(name, func(f file) error { return s.put(filepath.Join(dir, filepath.FromSlash(f.name)), f) })
		if err != nil {
			return err
		}
	}
	return nil
}

func asSet(list []string) map[string]bool {
	m := map[string]bool{}
	for _, s := range list {
		m[s] = true
	}
	return m
}

// makeFolder makes a folder that everybody may look into, whatever the umask of
// whoever builds. Those that lead to it are there, or become so.
func makeFolder(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	if err := makeFolder(filepath.Dir(dir)); err != nil {
		return err
	}
	return errors.Join(os.Mkdir(dir, 0o755), os.Chmod(dir, 0o755))
}

func (s Script) put(at string, f file) error {
	if err := makeFolder(filepath.Dir(at)); err != nil {
		return err
	}
	switch {
	case f.mode.IsDir():
		return makeFolder(at)
	case f.mode&fs.ModeSymlink != 0:
		return os.Symlink(f.target, at)
	}
	out, err := os.OpenFile(at, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, bytes.NewReader(f.body))
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Chmod(at, f.mode)
	}
	if err == nil {
		err = os.Chtimes(at, s.Epoch, s.Epoch)
	}
	return err
}
