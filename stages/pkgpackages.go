package stages

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"rhizome/pipeline"
	"rhizome/pipeline/tree"
	"rhizome/recipes"
	"rhizome/stages/debian/aptlock"
	"rhizome/stages/dists"
	"rhizome/stages/packages"
)

// PkgPackages is a step that lays FreeBSD packages out over the base. It runs
// nothing, so any machine can take it.
type PkgPackages struct {
	info  pipeline.Info
	names []string
	pkg   packages.Pkg

	mu  sync.Mutex
	set *recipes.PackageSet
}

// NewPkgPackages makes the step of a packages stage on FreeBSD; get opens
// URLs. below are the steps before it.
func NewPkgPackages(r *recipes.Recipe, st recipes.Stage, name string, below []pipeline.Stage, get dists.Getter) (*PkgPackages, error) {
	nodes, err := nodesOf(r, st)
	if err != nil {
		return nil, err
	}
	repo := st.Packages.Repository
	if repo == "" {
		return nil, errors.New("the packages stage names no repository; write repository: https://pkg.freebsd.org/FreeBSD:15:amd64/latest, or a folder")
	}
	if !strings.Contains(repo, "://") && !filepath.IsAbs(repo) {
		repo = filepath.Join(r.Dir, repo)
	}
	s := &PkgPackages{
		info:  pipeline.Info{Name: name, Kind: "packages", Version: packages.Version, Role: "packages", Nodes: nodes, Pos: st.Pos},
		names: st.Packages.Names, pkg: packages.Pkg{Repository: repo, Get: get, Arch: r.Arch},
	}
	for _, b := range below {
		if info := b.Info(); covers(info.Nodes, nodes) && info.Role != "kernel" {
			s.info.Needs = append(s.info.Needs, info.Name)
		}
	}
	return s, nil
}

// Info names the step.
func (s *PkgPackages) Info() pipeline.Info { return s.info }

// packages is the step's set, decided once in a run.
func (s *PkgPackages) packages(ctx context.Context, env pipeline.Env) (recipes.PackageSet, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.set != nil {
		return *s.set, nil
	}
	set, err := s.choose(ctx, env)
	if err == nil {
		s.set = &set
	}
	return set, err
}

func (s *PkgPackages) choose(ctx context.Context, env pipeline.Env) (recipes.PackageSet, error) {
	if env.Lock == nil {
		return s.pkg.Resolve(ctx, s.names)
	}
	set, ok := env.Lock.Sets[s.info.Name]
	if !ok || set.Request != packages.RequestDigest(s.names, s.pkg.Arch) {
		return set, fmt.Errorf("the lock file is stale: it does not have what the recipe asks for in %q; run \"rhizome lock\" again", s.info.Name)
	}
	return set, nil
}

// Inputs are the packages to the byte.
func (s *PkgPackages) Inputs(ctx context.Context, env pipeline.Env) (pipeline.Inputs, error) {
	set, err := s.packages(ctx, env)
	if err != nil {
		return nil, err
	}
	return pipeline.Inputs{"packages": aptlock.SetDigest(set)}, nil
}

// Lock pins what the repository has today.
func (s *PkgPackages) Lock(ctx context.Context, _ pipeline.Env, into *recipes.Lock) error {
	set, err := s.pkg.Resolve(ctx, s.names)
	if err != nil {
		return fmt.Errorf("%s: locking %q: %w", s.info.Pos, s.info.Name, err)
	}
	if into.Sets == nil {
		into.Sets = map[string]recipes.PackageSet{}
	}
	into.Sets[s.info.Name] = set
	return nil
}

// Run fetches the packages and lays them out.
func (s *PkgPackages) Run(ctx context.Context, env pipeline.Env, below []*tree.Tree) (pipeline.Output, error) {
	set, err := s.packages(ctx, env)
	if err != nil {
		return pipeline.Output{}, err
	}
	pkg := s.pkg
	pkg.Cache = filepath.Join(env.Cache, "freebsd", "packages")
	if env.Cache == "" {
		pkg.Cache = filepath.Join(env.Work, "packages")
	}
	files, err := pkg.Fetch(ctx, set)
	if err != nil {
		return pipeline.Output{}, err
	}
	lower, err := stacked(below)
	if err != nil {
		return pipeline.Output{}, err
	}
	t, err := packages.LayOut(ctx, env.Work, set, files, lower)
	return pipeline.Output{Tree: t}, err
}
