package stages

import (
	"context"

	"rhizome/pipeline"
	"rhizome/pipeline/tree"
	"rhizome/recipes"
	"rhizome/stages/files"
)

// fileStage copies a folder of the recipe over the root of some nodes, or all.
type fileStage struct {
	info   pipeline.Info
	recipe *recipes.Recipe
	files  recipes.Files
}

// Files makes the step of a files stage; name is unique in the plan.
func Files(r *recipes.Recipe, s recipes.Stage, name string) (pipeline.Stage, error) {
	nodes, err := nodesOf(r, s)
	if err != nil {
		return nil, err
	}
	return &fileStage{
		info:   pipeline.Info{Name: name, Kind: "files", Version: files.Version, Role: "files", Nodes: nodes, Pos: s.Pos},
		recipe: r, files: *s.Files,
	}, nil
}

// nodesOf is the nodes that a stage is for: nil where that is all.
func nodesOf(r *recipes.Recipe, s recipes.Stage) ([]string, error) {
	if s.Nodes == "" {
		return nil, nil
	}
	return r.Select(s.Nodes)
}

func (s *fileStage) Info() pipeline.Info { return s.info }

// Inputs are the paths that come out, with their content's digests: templates
// count by what becomes of them, so a value that none uses changes nothing.
func (s *fileStage) Inputs(context.Context, pipeline.Env) (pipeline.Inputs, error) {
	t, err := s.tree()
	if err != nil {
		return nil, err
	}
	in, err := files.Inputs(t)
	return pipeline.Inputs(in), err
}

func (s *fileStage) Run(context.Context, pipeline.Env, []*tree.Tree) (pipeline.Output, error) {
	t, err := s.tree()
	return pipeline.Output{Tree: t}, err
}

func (s *fileStage) tree() (*tree.Tree, error) {
	return files.Build(s.recipe.FS, s.files, files.ClusterValues(s.recipe))
}
