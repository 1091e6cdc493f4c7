// Package stages is the one explicit list of what a recipe can do: it turns a
// recipe into the steps of its plan, in the order of the layers, lowest first.
// Each kind's work is a package below this one that knows nothing of steps;
// the files here are the thin joints between those and the pipeline.
package stages

import (
	"context"
	"fmt"

	"rhizome/pipeline"
	"rhizome/recipes"
	"rhizome/stages/dists"
)

// For lists the steps of a recipe: its source, its stages in their order, what
// all nodes share, and last each node's own layer. get opens URLs, of
// release sets and FreeBSD packages.
func For(r *recipes.Recipe, get dists.Getter) ([]pipeline.Stage, error) {
	l := lister{recipe: r, get: get, debian: NewDebianArchive(r), seen: map[string]int{}}
	if err := l.source(); err != nil {
		return nil, err
	}
	for _, s := range r.Stages {
		// What the recipe's own files say goes over what is made for all.
		if s.Kind == "files" && !l.common {
			l.shared()
		}
		if err := l.stage(s); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Pos, err)
		}
	}
	if !l.common {
		l.shared()
	}
	nodes := NodeConfigs(r)
	if r.Precache != nil {
		l.add(Precache(r, l.steps, nodes))
	}
	return append(l.steps, nodes...), nil
}

// lister gathers the steps of one recipe.
type lister struct {
	recipe  *recipes.Recipe
	get     dists.Getter
	debian  *DebianArchive
	freebsd *FreeBSDSource
	steps   []pipeline.Stage
	common  bool
	// seen counts the steps of each kind, so that every name is its own.
	seen map[string]int
}

func (l *lister) add(s pipeline.Stage) { l.steps = append(l.steps, s) }

// shared adds the layer that all nodes share beside the base.
func (l *lister) shared() {
	l.add(Common(l.recipe))
	l.common = true
}

// name is the kind for its first step, "files:2" for the second.
func (l *lister) name(kind string) string {
	l.seen[kind]++
	if n := l.seen[kind]; n > 1 {
		return fmt.Sprintf("%s:%d", kind, n)
	}
	return kind
}

func (l *lister) source() error {
	src := l.recipe.Source
	switch {
	case src.Debian != nil:
		l.add(l.debian.Debian())
	case src.Src != nil:
		l.freebsd = NewFreeBSDSource(l.recipe, "")
	case src.Dists != nil:
		for _, set := range NewDists(l.recipe, l.get) {
			l.add(set)
		}
	case src.OCI != nil:
		l.add(NewOCI(l.recipe))
	default:
		return fmt.Errorf("%s: the recipe has no source; name one: src, dists, oci or debian", src.Pos)
	}
	return nil
}

func (l *lister) stage(s recipes.Stage) error {
	switch {
	case s.World != nil:
		return l.fromTree(World{Source: l.freebsd, Pos: s.Pos})
	case s.Distribution != nil:
		return l.fromTree(Distribution{Source: l.freebsd, Pos: s.Pos})
	case s.Kernel != nil:
		return l.kernel(s)
	case s.Media != nil:
		return l.with(l.debian.Media(s, l.name("media")))
	case s.Packages != nil:
		return l.packages(s)
	case s.Script != nil:
		return l.with(Script(l.recipe, s, l.name("script"), l.steps))
	case s.Early != nil:
		return l.with(Early(l.recipe, s, l.name("early")))
	case s.Files != nil:
		return l.with(Files(l.recipe, s, l.name("files")))
	}
	return fmt.Errorf("this version of rhizome cannot run the stage %q", s.Kind)
}

func (l *lister) with(s pipeline.Stage, err error) error {
	if err == nil {
		l.add(s)
	}
	return err
}

// fromTree adds a step that needs a FreeBSD source tree.
func (l *lister) fromTree(s pipeline.Stage) error {
	if l.freebsd == nil {
		return fmt.Errorf("the stage %q needs a FreeBSD source tree; name one with source.src", s.Info().Name)
	}
	l.add(s)
	return nil
}

func (l *lister) packages(s recipes.Stage) error {
	if l.recipe.OS == "freebsd" {
		return l.with(NewPkgPackages(l.recipe, s, l.name("packages"), l.steps, l.get))
	}
	return l.with(l.debian.Packages(s, l.name("packages"), l.steps))
}

func (l *lister) kernel(s recipes.Stage) error {
	if l.recipe.OS == "linux" {
		l.add(l.debian.Kernel(s))
		return nil
	}
	nodes, err := nodesOf(l.recipe, s)
	if err != nil {
		return err
	}
	return l.fromTree(NewFreeBSDKernel(l.freebsd, s, nodes))
}

// Lock resolves everything that a recipe names loosely.
func Lock(ctx context.Context, steps []pipeline.Stage, env pipeline.Env) (*recipes.Lock, error) {
	lock := &recipes.Lock{Version: 1}
	for _, s := range steps {
		if l, ok := s.(Locker); ok {
			if err := l.Lock(ctx, env, lock); err != nil {
				return nil, err
			}
		}
	}
	return lock, nil
}
