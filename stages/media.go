package stages

import (
	"context"

	"rhizome/pipeline"
	"rhizome/pipeline/tree"
	"rhizome/recipes"
	"rhizome/stages/media"
)

// Media is the step that adds boot programs.
type Media struct {
	aptStage
	media recipes.Media
}

// Media makes the step of a media stage of the recipe; name is unique in the
// plan, and what the lock file knows the step by.
func (a *DebianArchive) Media(st recipes.Stage, name string) (*Media, error) {
	nodes, err := nodesOf(a.recipe, st)
	if err != nil {
		return nil, err
	}
	d := a.source()
	return &Media{media: *st.Media, aptStage: aptStage{
		archive: a,
		info:    pipeline.Info{Name: name, Kind: "media", Version: media.Version, Role: "files", Nodes: nodes, Pos: st.Pos},
		request: media.Request(d.Suite, d.Components, a.arch(), *st.Media),
	}}, nil
}

// Run lays the boot programs under /boot/rhizome.
func (s *Media) Run(ctx context.Context, env pipeline.Env, _ []*tree.Tree) (pipeline.Output, error) {
	set, err := s.packages(ctx, env)
	if err != nil {
		return pipeline.Output{}, err
	}
	e, err := s.env(ctx, env)
	if err != nil {
		return pipeline.Output{}, err
	}
	t, facts, err := media.Build(ctx, e, media.Spec{Media: s.media, Request: s.request, Set: set})
	return pipeline.Output{Tree: t, Facts: facts}, err
}
