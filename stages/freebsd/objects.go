package freebsd

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Toolchest is an object tree in which kernel-toolchain has been made, locked
// against being changed by others. Close releases it.
type Toolchest struct {
	Build   Build
	dir     string
	unlocks []func()
}

// Close lets others in.
func (t *Toolchest) Close() {
	for i := len(t.unlocks) - 1; i >= 0; i-- {
		t.unlocks[i]()
	}
}

// Toolchest makes the tools that kernels and the distribution are built with,
// once for a source and toolchain, and returns where. Several
// stages may then build there side by side, each under a name of its own.
func (p *Project) Toolchest(ctx context.Context, env Env, name string) (*Toolchest, error) {
	f, err := p.Look(ctx)
	if err != nil {
		return nil, err
	}
	dir := env.Work
	if env.Objects != "" {
		key, err := f.objectsKey()
		if err != nil {
			return nil, err
		}
		dir = filepath.Join(env.Objects, key)
	}
	t := &Toolchest{dir: dir}
	if err := t.make(ctx, env, p); err != nil {
		t.Close()
		return nil, err
	}
	if err := t.hold(ctx, env, name); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

func (t *Toolchest) hold(ctx context.Context, env Env, name string) error {
	for _, l := range []struct {
		file   string
		shared bool
	}{{"lock", true}, {name + ".lock", false}} {
		unlock, err := lock(ctx, filepath.Join(t.dir, l.file), l.shared, func() { env.say("waiting for another build in %s", t.dir) })
		if err != nil {
			return err
		}
		t.unlocks = append(t.unlocks, unlock)
	}
	return nil
}

// toolConf is the src.conf(5) of tools and kernels. No LLVM is to be built
// where one is brought along; left to itself, kernel-toolchain compiles the
// generators that LLVM's own programs would want, for longer than all the rest.
func toolConf(host, toolchain string) string {
	if host == "freebsd" && toolchain == "" {
		return ""
	}
	return "WITHOUT_CLANG=yes\nWITHOUT_LLD=yes\nWITHOUT_LLDB=yes\nWITHOUT_LLVM_BINUTILS=yes\nWITHOUT_TESTS=yes\n"
}

func (t *Toolchest) make(ctx context.Context, env Env, p *Project) error {
	unlock, err := lock(ctx, filepath.Join(t.dir, "lock"), false, func() { env.say("waiting for another build in %s", t.dir) })
	if err != nil {
		return err
	}
	defer unlock()
	if t.Build, err = p.Build(ctx, env, filepath.Join(t.dir, "obj"), toolConf(p.host(), p.Toolchain)); err != nil {
		return err
	}
	done := filepath.Join(t.dir, "toolchain.done")
	if _, err := os.Stat(done); err == nil {
		return nil
	}
	if err := env.Runner().Run(ctx, "kernel-toolchain", t.Build.Command("kernel-toolchain")); err != nil {
		return err
	}
	return markDone(t.dir, done, syncTree)
}

// userland are the folders in which "make distribution" finds files for /etc.
var userland = []string{"bin", "cddl", "etc", "gnu", "kerberos5", "krb5", "lib", "libexec", "sbin", "secure", "share", "stand", "usr.bin", "usr.sbin"}

// ObjectFolders makes an object folder for every folder of the userland. make
// builds where a folder's object folder is missing in the source tree itself;
// only buildworld makes them, and "make distribution" builds a few files.
func (b Build) ObjectFolders() error {
	top := filepath.Join(b.Objects, b.Source.Dir, b.Source.target()+"."+b.Source.targetArch())
	for _, u := range userland {
		err := filepath.WalkDir(filepath.Join(b.Source.Dir, u), func(p string, d fs.DirEntry, err error) error {
			if os.IsNotExist(err) {
				return nil
			}
			if err != nil || d.Name() != "Makefile" {
				return err
			}
			rel, err := filepath.Rel(b.Source.Dir, filepath.Dir(p))
			if err != nil {
				return err
			}
			return os.MkdirAll(filepath.Join(top, rel), 0o755)
		})
		if err != nil {
			return fmt.Errorf("making object folders: %w", err)
		}
	}
	return nil
}

// UserlandConf lets the build obey a project's src.conf(5) from here on.
func (b Build) UserlandConf(f Facts) error {
	if err := os.WriteFile(b.SrcConf, []byte(f.SrcConf), 0o644); err != nil {
		return fmt.Errorf("writing src.conf: %w", err)
	}
	return nil
}

// Install runs targets that install into a fresh folder below env.Work under
// -DNO_ROOT, and returns that folder and its METALOG.
func (b Build) Install(ctx context.Context, env Env, targets []string, args ...string) (destdir, metalog string, err error) {
	destdir, metalog = filepath.Join(env.Work, "root"), filepath.Join(env.Work, "METALOG")
	// What a stopped installation left is not trusted: installing is quick.
	if err := os.RemoveAll(destdir); err != nil {
		return "", "", fmt.Errorf("removing an earlier installation: %w", err)
	}
	if err := os.MkdirAll(destdir, 0o755); err != nil {
		return "", "", fmt.Errorf("making a folder to install into: %w", err)
	}
	if err := os.WriteFile(metalog, []byte("#mtree 2.0\n"), 0o644); err != nil {
		return "", "", fmt.Errorf("beginning a METALOG: %w", err)
	}
	args = append([]string{"DESTDIR=" + destdir, "METALOG=" + metalog}, args...)
	for _, t := range targets {
		if err := env.Runner().Run(ctx, t, b.Command(append(args, t)...)); err != nil {
			return "", "", err
		}
	}
	return destdir, metalog, nil
}
