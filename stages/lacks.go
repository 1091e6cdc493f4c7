package stages

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"rhizome/recipes"
	"rhizome/stages/debian/aptlock"
	"rhizome/stages/debian/bootstrap"
	"rhizome/stages/debian/tool"
	"rhizome/stages/dists"
	"rhizome/stages/early"
	"rhizome/stages/freebsd"
	"rhizome/stages/sandbox"
)

// Lacks lists what building a recipe needs and this machine does not have: each
// is a sentence that says what to do. Nothing is fetched or kept; programs are
// asked for their versions, and namespaces are entered and left. programs are
// the folders of rhizome-node.
func Lacks(ctx context.Context, r *recipes.Recipe, programs []string) []error {
	l := lacks{recipe: r}
	l.debian(ctx)
	l.freebsd(ctx)
	l.dists()
	for _, s := range r.Stages {
		if s.Early != nil {
			_, err := early.Find(programs, r.OS, r.Arch)
			l.add(err)
		}
		if s.Script != nil || s.Packages != nil && r.OS == "linux" {
			l.add(sandbox.CanRun(r.OS))
			l.add(sandbox.Try(ctx))
		}
	}
	return l.all
}

type lacks struct {
	recipe *recipes.Recipe
	all    []error
}

// add keeps each sentence once: stages share their tools.
func (l *lacks) add(err error) {
	if err == nil {
		return
	}
	for _, have := range l.all {
		if have.Error() == err.Error() {
			return
		}
	}
	l.all = append(l.all, err)
}

func (l *lacks) tool(name, pkg string) bool {
	_, err := tool.Find(name, pkg)
	l.add(err)
	return err == nil
}

// debian looks for what takes packages out of a Debian archive.
func (l *lacks) debian(ctx context.Context) {
	r := l.recipe
	uses := r.Source.Debian != nil
	for _, s := range r.Stages {
		uses = uses || r.OS == "linux" && (s.Kernel != nil || s.Packages != nil || s.Media != nil)
	}
	if !uses {
		return
	}
	l.tool("apt-get", "apt")
	l.tool("apt-config", "apt")
	l.tool("dpkg-deb", "dpkg")
	if l.tool("mmdebstrap", "mmdebstrap") {
		_, err := bootstrap.Enter(ctx)
		l.add(err)
	}
	if d := r.Source.Debian; d == nil || d.Keyring == "" {
		l.add(aptlock.CheckKeyring(aptlock.DefaultKeyring))
	}
	l.foreign()
}

// emulators are binfmt_misc's names of QEMU's user emulators.
var emulators = map[string]string{"amd64": "qemu-x86_64", "arm64": "qemu-aarch64"}

// foreign looks for what runs maintainer scripts of another architecture.
func (l *lacks) foreign() {
	arch := l.recipe.Arch
	if arch == runtime.GOARCH || emulators[arch] == "" {
		return
	}
	if _, err := os.Stat("/proc/sys/fs/binfmt_misc/" + emulators[arch]); errors.Is(err, fs.ErrNotExist) {
		l.add(fmt.Errorf("this machine cannot run programs of the recipe's architecture %q; apt-get install qemu-user-static binfmt-support arch-test", arch))
	}
}

// freebsd looks for the source tree and for what compiles it.
func (l *lacks) freebsd(ctx context.Context) {
	src := l.recipe.Source.Src
	if src == nil {
		return
	}
	if runtime.GOOS != "freebsd" {
		for _, p := range []string{"python3", "flex", "bison", "m4", "bc"} {
			l.tool(p, p)
		}
	}
	if src.Git != "" {
		l.tool("git", "git")
		return // the tree is not here yet
	}
	dir := src.Dir
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(l.recipe.Dir, dir)
	}
	tree, err := freebsd.Open(dir, l.recipe.Arch)
	if err != nil {
		l.add(err)
		return
	}
	_, err = freebsd.FindToolchain(ctx, tree, src.Toolchain, runtime.GOOS)
	l.add(err)
}

// dists looks for release sets that lie in a folder.
func (l *lacks) dists() {
	d := l.recipe.Source.Dists
	if d == nil || d.From == "" || dists.Remote(d.From) {
		return
	}
	dir := d.From
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(l.recipe.Dir, dir)
	}
	names := []string{"MANIFEST"}
	for _, s := range d.Sets {
		names = append(names, s+".txz")
	}
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			l.add(fmt.Errorf("the release set %q is not there: %w; fetch it, or let source.dists.from name its folder or URL", name, err))
		}
	}
}
