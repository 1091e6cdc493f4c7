// Package debian makes a Debian root: mmdebstrap installs a locked set of
// packages, and what two builds of the same set could differ in is taken out.
package debian

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"rhizome/pipeline/tree"
	"rhizome/recipes"
	"rhizome/stages/debian/aptlock"
	"rhizome/stages/debian/bootstrap"
)

// Env is what a build may use of the machine.
type Env struct {
	// Work is a folder of the build's own. The tree's bodies lie in it until
	// the layer is written.
	Work string
	// LogFile keeps the programs' whole output.
	LogFile string
	// Line takes each line of output; nil is silence.
	Line func(string)
	// Apt resolves and fetches.
	Apt *aptlock.Apt
}

// Spec is a root to be made.
type Spec struct {
	Request aptlock.Request
	Set     recipes.PackageSet
	Epoch   time.Time
}

// Build makes the root. The tree does not depend on the machine, on the folder
// or on who builds.
func Build(ctx context.Context, env Env, s Spec) (*tree.Tree, error) {
	t, err := Install(ctx, env, s, nil, nil)
	if err != nil {
		return nil, err
	}
	if err := Normalize(t, s.Epoch); err != nil {
		return nil, err
	}
	return t, CheckInstalled(t, s.Set)
}

// Install fetches a set, lets mmdebstrap install it with further hooks and
// settings, and reads the root as it is.
func Install(ctx context.Context, env Env, s Spec, customize, extra []string) (*tree.Tree, error) {
	work, err := filepath.Abs(env.Work)
	if err != nil {
		return nil, fmt.Errorf("finding the build's folder: %w", err)
	}
	files, err := env.Apt.Fetch(ctx, s.Request, s.Set)
	if err != nil {
		return nil, err
	}
	repo := filepath.Join(work, "locked")
	if err := os.RemoveAll(repo); err != nil {
		return nil, fmt.Errorf("clearing the build's folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(repo) }()
	archive, err := aptlock.Repository(ctx, repo, s.Set, s.Request.Arch, files)
	if err != nil {
		return nil, err
	}
	tar, err := bootstrap.Root(ctx, bootstrap.Env{Work: work, LogFile: env.LogFile, Line: env.Line}, bootstrap.Spec{
		Suite: s.Set.Suite, Arch: s.Request.Arch, Custom: s.Request.Variant == "custom",
		Packages: aptlock.Names(s.Set), MergedUsr: aptlock.Has(s.Set, "usr-is-merged"),
		Archive: archive, Epoch: s.Epoch, Customize: customize, Extra: extra,
	})
	if err != nil {
		return nil, err
	}
	return tree.FromTar(tar)
}

// CheckInstalled compares dpkg's own list in a root with the set that should
// be there: nothing else, nothing less, no other version.
func CheckInstalled(t *tree.Tree, set recipes.PackageSet) error {
	status, err := readFile(t, "var/lib/dpkg/status")
	if err != nil {
		return err
	}
	installed := map[string]string{}
	name := ""
	for _, line := range strings.Split(status, "\n") {
		if v, ok := strings.CutPrefix(line, "Package: "); ok {
			name = v
		}
		if v, ok := strings.CutPrefix(line, "Version: "); ok {
			installed[name] = v
		}
	}
	for _, p := range set.Packages {
		if got := installed[p.Name]; got != p.Version {
			return fmt.Errorf("the root has %q in version %q instead of the locked %q; is mmdebstrap older than 1.3?", p.Name, got, p.Version)
		}
		delete(installed, p.Name)
	}
	for name := range installed {
		return fmt.Errorf("the root has the package %q, which is not in the locked set; run \"rhizome lock\" again", name)
	}
	return nil
}
