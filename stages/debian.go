package stages

import (
	"context"

	"rhizome/pipeline"
	"rhizome/pipeline/tree"
	"rhizome/stages/debian"
	"rhizome/stages/debian/aptlock"
)

// Debian is the step that makes the base root with mmdebstrap.
type Debian struct{ aptStage }

// Debian makes the recipe's base step out of its Debian source.
func (a *DebianArchive) Debian() *Debian {
	d := a.source()
	return &Debian{aptStage{
		archive: a, installs: true,
		info: pipeline.Info{Name: "debian", Kind: "debian", Version: debian.Version, Role: "base", Pos: d.Pos},
		request: aptlock.Request{Suite: d.Suite, Components: d.Components, Arch: a.arch(),
			Variant: d.Variant, Packages: d.Packages},
	}}
}

// Run makes the root.
func (s *Debian) Run(ctx context.Context, env pipeline.Env, _ []*tree.Tree) (pipeline.Output, error) {
	set, err := s.packages(ctx, env)
	if err != nil {
		return pipeline.Output{}, err
	}
	e, err := s.env(ctx, env)
	if err != nil {
		return pipeline.Output{}, err
	}
	t, err := debian.Build(ctx, e, debian.Spec{Request: s.request, Set: set, Epoch: s.archive.recipe.Epoch})
	return pipeline.Output{Tree: t}, err
}
