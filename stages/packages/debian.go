// Package packages adds packages to a root that is there already, as a layer
// of their own: Debian's by the root's own dpkg in a sandbox, FreeBSD's by
// laying their files out.
package packages

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"rhizome/pipeline/tree"
	"rhizome/recipes"
	"rhizome/stages/debian"
	"rhizome/stages/sandbox"
)

// Version is raised whenever this package makes another layer of the same
// packages.
const Version = 2

// Debian is a set of Debian packages for a root.
type Debian struct {
	// Set is what is added; Present is what the root has by its own layers.
	Set, Present recipes.PackageSet
	// Files are the packages of Set, in its order, verified.
	Files []string
	// Epoch becomes SOURCE_DATE_EPOCH.
	Epoch time.Time
}

// Beyond is what a whole set has that others, below it, have not. A package
// that they have in another version is refused: dpkg would replace their files.
func Beyond(whole recipes.PackageSet, below ...recipes.PackageSet) (recipes.PackageSet, error) {
	have := map[string]string{}
	for _, set := range below {
		for _, p := range set.Packages {
			have[p.Name] = p.Version
		}
	}
	own := whole
	own.Packages = []recipes.LockedPackage{}
	for _, p := range whole.Packages {
		v, ok := have[p.Name]
		switch {
		case !ok:
			own.Packages = append(own.Packages, p)
		case v != p.Version:
			return own, fmt.Errorf("the packages need %q %s, and the base has %s; run \"rhizome lock\" to choose both anew", p.Name, p.Version, v)
		}
	}
	return own, nil
}

// installScript unpacks and configures all packages with the root's own dpkg.
// A package whose pre-dependency is not configured yet fails and is taken up by
// the next pass (dpkg(1), "--skip-same-version"). policy-rc.d keeps daemons
// from being started (invoke-rc.d(8)).
const installScript = `set -e
cd ` + sandbox.InputsAt + `
command -v dpkg >/dev/null || { echo "E: the root has no dpkg, so no package can be added to it" >&2; exit 1; }
policy=/usr/sbin/policy-rc.d
made=
if [ ! -e $policy ]; then
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod 755 $policy
	made=yes
fi
pass=1
until dpkg --install --force-unsafe-io --force-confdef --force-confold --skip-same-version ./*.deb; do
	pass=$((pass + 1))
	[ $pass -le 4 ] || exit 1
done
dpkg --configure --pending
[ -z "$made" ] || rm $policy
`

// Install adds the packages to lower and returns what they change. Nothing
// that differs between machines or days is in it.
func (d Debian) Install(ctx context.Context, env sandbox.Env, lower *tree.Tree) (*tree.Tree, error) {
	if len(d.Set.Packages) == 0 {
		return tree.New(), nil
	}
	if err := sandbox.CanRun("linux"); err != nil {
		return nil, err
	}
	debs := filepath.Join(env.Work, "debs")
	if err := d.layOut(debs); err != nil {
		return nil, err
	}
	upper, err := sandbox.Run(ctx, env, lower, sandbox.Command{
		Doing:  fmt.Sprintf("installing %d package(s)", len(d.Set.Packages)),
		Args:   []string{"/bin/sh", "-c", installScript},
		Inputs: debs, Epoch: d.Epoch,
		Extra: []string{"DEBIAN_FRONTEND=noninteractive", "DEBCONF_NONINTERACTIVE_SEEN=true"},
	})
	if err != nil {
		return nil, err
	}
	return d.tidy(lower, upper)
}

// layOut puts the packages where the sandbox finds them.
func (d Debian) layOut(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("laying out the packages: %w", err)
	}
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.Chmod(dir, 0o755)); err != nil {
		return fmt.Errorf("laying out the packages: %w", err)
	}
	for i, p := range d.Set.Packages {
		to := filepath.Join(dir, fmt.Sprintf("%s_%s.deb", p.Name, p.Arch))
		if os.Link(d.Files[i], to) == nil {
			continue
		}
		if err := copyFile(d.Files[i], to); err != nil {
			return fmt.Errorf("laying out the packages: %w", err)
		}
	}
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	return err
}

// tidy takes out of the change what the base step takes out of the base, and
// checks that the root then holds the packages and no others.
func (d Debian) tidy(lower, upper *tree.Tree) (*tree.Tree, error) {
	changed, err := tree.Diff(lower, upper)
	if err != nil {
		return nil, fmt.Errorf("finding out what the packages brought: %w", err)
	}
	if err := normalize(changed, d.Epoch); err != nil {
		return nil, err
	}
	root := tree.New()
	for _, t := range []*tree.Tree{lower, changed} {
		if err := root.Merge(t); err != nil {
			return nil, err
		}
	}
	all := recipes.PackageSet{Packages: append(append([]recipes.LockedPackage{}, d.Present.Packages...), d.Set.Packages...)}
	if err := debian.CheckInstalled(root, all); err != nil {
		return nil, err
	}
	// Emptied logs, say, are the same as those below.
	return tree.Diff(lower, root)
}

// normalize is the base step's, which also makes the mount points of a root;
// a layer over one has none to make.
func normalize(changed *tree.Tree, epoch time.Time) error {
	had := map[string]bool{}
	for _, e := range changed.Entries() {
		had[e.Path] = true
	}
	if err := debian.Normalize(changed, epoch); err != nil {
		return err
	}
	for _, e := range changed.Entries() {
		if !had[e.Path] && !strings.Contains(e.Path, "/") {
			changed.Remove(e.Path)
		}
	}
	return nil
}
