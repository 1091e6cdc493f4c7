// Package distribution runs FreeBSD's "make distribution": /etc with its
// databases, /root and /boot/device.hints. Forgetting it once froze every
// node at boot, so what it should have made is checked.
package distribution

import (
	"context"
	"fmt"

	"rhizome/pipeline/tree"
	"rhizome/stages/freebsd"
)

// Version is raised whenever the same inputs would give another tree.
const Version = 1

// Inputs are all that the distribution depends on.
func Inputs(ctx context.Context, p *freebsd.Project) (map[string]string, error) {
	f, err := p.Look(ctx)
	if err != nil {
		return nil, err
	}
	return f.UserlandInputs(f.Content.DistributionReads(f.Source))
}

// Build makes the folders and files of the distribution into one tree. It
// needs no world, but the tools that kernels are built with.
func Build(ctx context.Context, env freebsd.Env, p *freebsd.Project) (*tree.Tree, error) {
	f, err := p.Look(ctx)
	if err != nil {
		return nil, err
	}
	chest, err := p.Toolchest(ctx, env, "distribution")
	if err != nil {
		return nil, err
	}
	defer chest.Close()
	if err := chest.Build.ObjectFolders(); err != nil {
		return nil, err
	}
	if err := chest.Build.UserlandConf(f); err != nil {
		return nil, err
	}
	destdir, metalog, err := chest.Build.Install(ctx, env, []string{"distrib-dirs", "distribution"})
	if err != nil {
		return nil, err
	}
	ids, err := freebsd.ReadIDs(f.Source.Dir)
	if err != nil {
		return nil, err
	}
	t, err := freebsd.Installed(destdir, metalog, ids)
	if err != nil {
		return nil, err
	}
	return t, Whole(t)
}

// Need is a file that a node stops without, by its path in the root, and what
// is wrong then.
type Need struct{ Path, Why string }

// needs are what rc(8), login(1) and the loader stop without.
var needs = []Need{
	{"etc/rc", "init(8) has nothing to run"},
	{"etc/rc.subr", "no script of rc.d works"},
	{"etc/rc.initdiskless", "/etc and /var of a diskless node are not set up"},
	{"etc/defaults/rc.conf", "rc(8) knows no defaults"},
	{"etc/rc.d/netif", "the network is not set up"},
	{"etc/master.passwd", "nobody can log in"},
	{"etc/pwd.db", "no user is known"},
	{"etc/spwd.db", "no password is known"},
	{"etc/group", "no group is known"},
	{"etc/login.conf", "login classes are missing"},
	{"etc/ttys", "no terminal asks for a login"},
	{"etc/gettytab", "no terminal asks for a login"},
	{"etc/termcap", "full-screen programs fail"},
	{"boot/device.hints", "the loader knows no console or other fixed devices"},
}

// Missing lists what a root lacks of what the distribution makes. has says
// whether a path of the root is a file with something in it.
func Missing(has func(path string) bool) (lacks []Need) {
	for _, n := range needs {
		if !has(n.Path) {
			lacks = append(lacks, n)
		}
	}
	return lacks
}

// Whole checks that everything is there that the distribution should have
// made.
func Whole(t *tree.Tree) error {
	lacks := Missing(func(path string) bool {
		e := t.Lookup(path)
		return e != nil && e.Kind != tree.Dir && (e.Kind != tree.File || e.Size() > 0)
	})
	if len(lacks) == 0 {
		return nil
	}
	return fmt.Errorf("make distribution left out /%s, without which %s; see its log, and take out of \"without\" what removes it", lacks[0].Path, lacks[0].Why)
}
