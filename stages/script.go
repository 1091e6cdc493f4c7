package stages

import (
	"context"
	"fmt"
	"slices"

	"rhizome/pipeline"
	"rhizome/pipeline/layer"
	"rhizome/pipeline/tree"
	"rhizome/recipes"
	"rhizome/stages/sandbox"
	"rhizome/stages/script"
)

// scriptStage runs a command over the root that earlier steps make.
type scriptStage struct {
	info   pipeline.Info
	script script.Script
}

// Script makes the step of a script stage; below are the steps before it, of
// which it sees those that all of its nodes have.
func Script(r *recipes.Recipe, s recipes.Stage, name string, below []pipeline.Stage) (pipeline.Stage, error) {
	nodes, err := nodesOf(r, s)
	if err != nil {
		return nil, err
	}
	return &scriptStage{
		info: pipeline.Info{Name: name, Kind: "script", Version: script.Version, Role: "files", Nodes: nodes,
			Needs: under(below, nodes), Pos: s.Pos},
		script: script.Script{Script: *s.Script, FS: r.FS, System: r.OS, Epoch: r.Epoch},
	}, nil
}

// under names the steps whose layers every one of the nodes has; nil is all
// nodes.
func under(below []pipeline.Stage, nodes []string) []string {
	var names []string
	for _, s := range below {
		if info := s.Info(); covers(info.Nodes, nodes) {
			names = append(names, info.Name)
		}
	}
	return names
}

func covers(have, want []string) bool {
	if have == nil {
		return true
	}
	return want != nil && !slices.ContainsFunc(want, func(n string) bool { return !slices.Contains(have, n) })
}

func (s *scriptStage) Info() pipeline.Info { return s.info }

func (s *scriptStage) Inputs(context.Context, pipeline.Env) (pipeline.Inputs, error) {
	in, err := s.script.Inputs()
	return pipeline.Inputs(in), err
}

func (s *scriptStage) Run(ctx context.Context, env pipeline.Env, below []*tree.Tree) (pipeline.Output, error) {
	lower, err := stacked(below)
	if err != nil {
		return pipeline.Output{}, err
	}
	t, err := s.script.Run(ctx, sandboxEnv(env), lower)
	return pipeline.Output{Tree: t}, err
}

// stacked is the root that layers make, lowest first.
func stacked(below []*tree.Tree) (*tree.Tree, error) {
	t := tree.New()
	for _, l := range below {
		if err := t.Merge(l); err != nil {
			return nil, fmt.Errorf("laying the layers below over each other: %w", err)
		}
	}
	return t, nil
}

func sandboxEnv(env pipeline.Env) sandbox.Env {
	return sandbox.Env{
		Work: env.Work, LogFile: pipeline.LogFile(env.Work), WriteTar: layer.WriteTar,
		Line: func(l string) { env.Events(pipeline.Event{Kind: pipeline.StepLog, Message: l}) },
	}
}
