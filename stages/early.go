package stages

import (
	"context"

	"rhizome/pipeline"
	"rhizome/pipeline/tree"
	"rhizome/recipes"
	"rhizome/stages/early"
)

// earlyStage puts the early script and rhizome-node into the root.
type earlyStage struct {
	info     pipeline.Info
	os, arch string
}

// Early makes the step of an early stage.
func Early(r *recipes.Recipe, s recipes.Stage, name string) (pipeline.Stage, error) {
	nodes, err := nodesOf(r, s)
	if err != nil {
		return nil, err
	}
	return &earlyStage{
		info: pipeline.Info{Name: name, Kind: "early", Version: early.Version, Role: "files", Nodes: nodes, Pos: s.Pos},
		os:   r.OS, arch: r.Arch,
	}, nil
}

func (s *earlyStage) Info() pipeline.Info { return s.info }

func (s *earlyStage) spec(env pipeline.Env) (early.Spec, error) {
	program, err := early.Find(env.Programs, s.os, s.arch)
	return early.Spec{OS: s.os, Program: program}, err
}

func (s *earlyStage) Inputs(_ context.Context, env pipeline.Env) (pipeline.Inputs, error) {
	spec, err := s.spec(env)
	if err != nil {
		return nil, err
	}
	in, err := early.Inputs(spec)
	return pipeline.Inputs(in), err
}

func (s *earlyStage) Run(_ context.Context, env pipeline.Env, _ []*tree.Tree) (pipeline.Output, error) {
	spec, err := s.spec(env)
	if err != nil {
		return pipeline.Output{}, err
	}
	t, err := early.Build(spec)
	return pipeline.Output{Tree: t}, err
}
