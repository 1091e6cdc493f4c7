package stages

import (
	"context"
	"errors"
	"slices"

	"rhizome/pipeline"
	"rhizome/pipeline/tree"
	"rhizome/recipes"
	"rhizome/stages/debian/aptlock"
	"rhizome/stages/packages"
)

// AptPackages is a step that adds Debian packages over the base. Its set is
// the closure of what is asked for, less what the steps below have.
type AptPackages struct {
	aptStage
	base    *Debian
	earlier []*AptPackages
}

// Packages makes the step of a packages stage on a Debian base. below are the
// steps before it; kernels and boot programs among them have roots of their
// own and are passed over.
func (a *DebianArchive) Packages(st recipes.Stage, name string, below []pipeline.Stage) (*AptPackages, error) {
	nodes, err := nodesOf(a.recipe, st)
	if err != nil {
		return nil, err
	}
	s := &AptPackages{}
	var under []string
	request := st.Packages.Names
	for _, b := range below {
		info := b.Info()
		if !covers(info.Nodes, nodes) || info.Role == "kernel" || info.Kind == "media" {
			continue
		}
		under = append(under, info.Name)
		switch b := b.(type) {
		case *Debian:
			s.base = b
			request = append(slices.Clone(b.request.Packages), request...)
		case *AptPackages:
			s.earlier = append(s.earlier, b)
			request = append(slices.Clone(b.request.Packages), request...)
		}
	}
	if s.base == nil {
		return nil, errors.New("Debian packages are added to a base that rhizome installs, so that their versions fit: name the base with source.debian, or add the packages to the image itself")
	}
	slices.Sort(request)
	s.aptStage = aptStage{
		archive: a,
		info: pipeline.Info{Name: name, Kind: "packages", Version: packages.Version, Role: "packages", Nodes: nodes,
			Needs: under, Pos: st.Pos},
		request: aptlock.Request{Suite: s.base.request.Suite, Components: s.base.request.Components, Arch: s.base.request.Arch,
			Variant: s.base.request.Variant, Packages: slices.Compact(request)},
		find: s.beyond,
	}
	return s, nil
}

// beyond asks the archive for the whole and takes away what lies below, both as
// the archive has them now.
func (s *AptPackages) beyond(ctx context.Context, env pipeline.Env) (recipes.PackageSet, error) {
	whole, err := s.resolve(ctx, env)
	if err != nil {
		return whole, err
	}
	base, err := s.base.resolve(ctx, env)
	if err != nil {
		return base, err
	}
	below := []recipes.PackageSet{base}
	for _, e := range s.earlier {
		set, err := e.beyond(ctx, env)
		if err != nil {
			return set, err
		}
		below = append(below, set)
	}
	return packages.Beyond(whole, below...)
}

// present is all that the steps below installed.
func (s *AptPackages) present(ctx context.Context, env pipeline.Env) (recipes.PackageSet, error) {
	all, err := s.base.packages(ctx, env)
	if err != nil {
		return all, err
	}
	all.Packages = slices.Clone(all.Packages)
	for _, e := range s.earlier {
		set, err := e.packages(ctx, env)
		if err != nil {
			return all, err
		}
		all.Packages = append(all.Packages, set.Packages...)
	}
	return all, nil
}

// Inputs are the packages to the byte and what was asked for. The dpkg that
// installs them lies in the layers below.
func (s *AptPackages) Inputs(ctx context.Context, env pipeline.Env) (pipeline.Inputs, error) {
	set, err := s.packages(ctx, env)
	if err != nil {
		return nil, err
	}
	return pipeline.Inputs{
		"packages": aptlock.SetDigest(set), "request": s.request.Digest(),
		"epoch": s.archive.recipe.Epoch.UTC().Format("2006-01-02T15:04:05Z"),
	}, nil
}

// Run fetches the packages and installs them over the layers below.
func (s *AptPackages) Run(ctx context.Context, env pipeline.Env, below []*tree.Tree) (pipeline.Output, error) {
	set, err := s.packages(ctx, env)
	if err != nil {
		return pipeline.Output{}, err
	}
	present, err := s.present(ctx, env)
	if err != nil {
		return pipeline.Output{}, err
	}
	e, err := s.env(ctx, env)
	if err != nil {
		return pipeline.Output{}, err
	}
	files, err := e.Apt.Fetch(ctx, s.request, set)
	if err != nil {
		return pipeline.Output{}, err
	}
	lower, err := stacked(below)
	if err != nil {
		return pipeline.Output{}, err
	}
	d := packages.Debian{Set: set, Present: present, Files: files, Epoch: s.archive.recipe.Epoch}
	t, err := d.Install(ctx, sandboxEnv(env), lower)
	return pipeline.Output{Tree: t}, err
}
