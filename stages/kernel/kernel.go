// Package kernel builds FreeBSD kernels, each with its modules as one tree. A
// kernel is configured by a file of the tree, or by a new one that is written
// outside the tree and includes one (config(5), build(7)).
//
// Before anything is compiled, the finished configuration is checked for what
// diskless nodes need.
package kernel

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"rhizome/pipeline/tree"
	"rhizome/stages/freebsd"
)

// Version is raised whenever the same inputs would give another tree.
const Version = 1

// Path is where a kernel lies in its tree.
const Path = "boot/kernel/kernel"

// Kernel is one kernel to be built.
type Kernel struct {
	// Name is what nodes choose it by.
	Name string
	Request
	// Modules are the folders of sys/modules to build; empty builds all.
	Modules []string
	// Nodes are the machines that boot it; none means any.
	Nodes []Node
}

// Plan is a kernel whose configuration was found to be good.
type Plan struct {
	// Text is the new configuration's text, empty for one of the tree.
	Text string
	// Finished is the configuration with its includes.
	Finished Config
	Warnings []string
}

// Prepare writes, resolves and checks the configuration. It compiles nothing
// and writes nothing.
func (k Kernel) Prepare(s freebsd.Source) (Plan, error) {
	p, err := k.prepare(s)
	if err != nil {
		return p, fmt.Errorf("kernel %q: %w", k.Name, err)
	}
	return p, nil
}

func (k Kernel) prepare(s freebsd.Source) (Plan, error) {
	var p Plan
	if err := k.known(s); err != nil {
		return p, err
	}
	if err := k.modulesExist(s); err != nil {
		return p, err
	}
	read := confReader(s)
	if k.New() {
		included, err := Resolve(k.Include, read)
		if err != nil {
			return p, err
		}
		if p.Text, err = k.Text(included); err != nil {
			return p, err
		}
		read = withFile(k.Config, p.Text, read)
	}
	var err error
	if p.Finished, err = Resolve(k.Config, read); err != nil {
		return p, err
	}
	found := Check(p.Finished, s.Revision, k.Nodes)
	p.Warnings = found.Warnings
	return p, missing(found.Missing)
}

func missing(what []string) error {
	if len(what) == 0 {
		return nil
	}
	return fmt.Errorf("its configuration lacks %s; without it such a node stops at mounting its root, so add it to the kernel's options or devices", strings.Join(what, "; and "))
}

// known refuses misspelt options at once.
func (k Kernel) known(s freebsd.Source) error {
	known := map[string]bool{}
	for _, f := range []string{"options", "options." + s.Arch} {
		text, err := os.ReadFile(filepath.Join(s.Dir, "sys/conf", f))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("reading the list of kernel options: %w", err)
		}
		ParseOptions(string(text), known)
	}
	unknown := Unknown(k.Options, known)
	if len(unknown) == 0 || len(known) == 0 {
		return nil
	}
	msg := fmt.Sprintf("config(8) knows no kernel option %q (they are listed in sys/conf/options)", unknown[0])
	if near := Near(unknown[0], known); len(near) > 0 {
		msg += "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return errors.New(msg)
}

func (k Kernel) modulesExist(s freebsd.Source) error {
	for _, m := range k.Modules {
		if _, err := os.Stat(filepath.Join(s.Dir, "sys/modules", m, "Makefile")); err != nil || strings.Contains(m, "..") {
			return fmt.Errorf("the tree has no kernel module %q; modules are named by their folders in sys/modules", m)
		}
	}
	return nil
}

// confReader reads from where config(8) looks for files of the tree.
func confReader(s freebsd.Source) func(string) (string, error) {
	return func(name string) (string, error) {
		text, err := os.ReadFile(filepath.Join(s.ConfDir(), filepath.FromSlash(name)))
		if errors.Is(err, fs.ErrNotExist) && !strings.Contains(name, "/") {
			return "", fmt.Errorf("the tree has no such file in sys/%s/conf; it has %s", s.Arch, confNames(s))
		}
		return string(text), err
	}
}

func confNames(s freebsd.Source) string {
	entries, _ := os.ReadDir(s.ConfDir())
	var names []string
	for _, e := range entries {
		if n := e.Name(); !e.IsDir() && !strings.Contains(n, ".") && n == strings.ToUpper(n) && n != "DEFAULTS" && n != "NOTES" {
			names = append(names, n)
		}
	}
	return strings.Join(names, ", ")
}

func withFile(name, text string, read func(string) (string, error)) func(string) (string, error) {
	return func(n string) (string, error) {
		if n == name {
			return text, nil
		}
		return read(n)
	}
}

// Inputs are all that the kernel's tree depends on.
func (k Kernel) Inputs(ctx context.Context, p *freebsd.Project) (map[string]string, Plan, error) {
	f, err := p.Look(ctx)
	if err != nil {
		return nil, Plan{}, err
	}
	plan, err := k.Prepare(f.Source)
	if err != nil {
		return nil, plan, err
	}
	in, err := f.Inputs(f.Content.KernelReads())
	if err != nil {
		return nil, plan, err
	}
	in["config"] = k.Config
	in["config.text"] = plan.Text
	in["modules"] = strings.Join(k.Modules, " ")
	in["version.control"] = f.Stamp
	return in, plan, nil
}

// Built is a kernel's tree and what is to be known of it.
type Built struct {
	Tree *tree.Tree
	// Version is what uname -r and -i will say: "15.1-RELEASE-p1 DISKLESS".
	Version string
}

// Build makes the kernel and its modules and installs them into a tree.
func (k Kernel) Build(ctx context.Context, env freebsd.Env, p *freebsd.Project) (Built, error) {
	f, err := p.Look(ctx)
	if err != nil {
		return Built{}, err
	}
	plan, err := k.Prepare(f.Source)
	if err != nil {
		return Built{}, err
	}
	chest, err := p.Toolchest(ctx, env, "kernel-"+k.Config)
	if err != nil {
		return Built{}, err
	}
	defer chest.Close()
	args, err := k.arguments(env, plan)
	if err != nil {
		return Built{}, err
	}
	if err := k.claim(chest.Build, plan); err != nil {
		return Built{}, err
	}
	if err := env.Runner().Run(ctx, "buildkernel", chest.Build.Command(append(args, "buildkernel")...)); err != nil {
		return Built{}, fmt.Errorf("kernel %q: %w", k.Name, err)
	}
	t, err := k.install(ctx, env, chest.Build, f.Source, args)
	return Built{Tree: t, Version: f.Source.Version() + " " + first(plan.Finished.Ident, k.Config)}, err
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// arguments writes a new configuration beside the tree and names it to make.
// Debug symbols are left out of the image; they are most of a kernel's size.
func (k Kernel) arguments(env freebsd.Env, plan Plan) ([]string, error) {
	args := []string{"KERNCONF=" + k.Config, "-DWITHOUT_KERNEL_SYMBOLS"}
	if len(k.Modules) > 0 {
		args = append(args, "MODULES_OVERRIDE="+strings.Join(k.Modules, " "))
	}
	if plan.Text == "" {
		return args, nil
	}
	dir := filepath.Join(env.Work, "conf")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making a folder for the kernel configuration: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, k.Config), []byte(plan.Text), 0o644); err != nil {
		return nil, fmt.Errorf("writing the kernel configuration: %w", err)
	}
	return append(args, "KERNCONFDIR="+dir), nil
}

// claim takes over the kernel's object folder. One that another configuration
// of the same name left is removed: config(8) leaves files behind that it no
// longer wants.
func (k Kernel) claim(b freebsd.Build, plan Plan) error {
	dir := b.KernelObjects(k.Config)
	mark := dir + ".rhizome"
	sum := fmt.Sprintf("%x\n", sha256.Sum256([]byte(plan.Text+"\x00"+strings.Join(k.Modules, " "))))
	if old, err := os.ReadFile(mark); err == nil && string(old) == sum {
		return nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("removing the objects of another kernel %q: %w", k.Config, err)
	}
	if err := os.MkdirAll(filepath.Dir(mark), 0o755); err != nil {
		return fmt.Errorf("making a folder for the kernel's objects: %w", err)
	}
	return os.WriteFile(mark, []byte(sum), 0o644)
}

func (k Kernel) install(ctx context.Context, env freebsd.Env, b freebsd.Build, s freebsd.Source, args []string) (*tree.Tree, error) {
	destdir, metalog, err := b.Install(ctx, env, []string{"installkernel"}, args...)
	if err != nil {
		return nil, fmt.Errorf("kernel %q: %w", k.Name, err)
	}
	ids, err := freebsd.ReadIDs(s.Dir)
	if err != nil {
		return nil, err
	}
	t, err := freebsd.Installed(destdir, metalog, ids)
	if err != nil {
		return nil, fmt.Errorf("kernel %q: %w", k.Name, err)
	}
	if e := t.Lookup(Path); e == nil || e.Kind != tree.File {
		return nil, fmt.Errorf("kernel %q: installkernel made no /%s", k.Name, Path)
	}
	return t, nil
}

// Modules reads the modules that loader.conf lines load: NAME_load="YES".
func Modules(lines map[string]string) []string {
	var out []string
	for k, v := range lines {
		if m, ok := strings.CutSuffix(k, "_load"); ok && strings.EqualFold(strings.Trim(v, `"`), "yes") {
			out = append(out, m)
		}
	}
	slices.Sort(out)
	return out
}
