package stages

import (
	"context"
	"path/filepath"

	"rhizome/pipeline"
	"rhizome/pipeline/tree"
	"rhizome/recipes"
	"rhizome/stages/distribution"
	"rhizome/stages/dists"
	"rhizome/stages/kernel"
	"rhizome/stages/world"
)

// Dists is one FreeBSD release set as a step; each set is a layer.
type Dists struct {
	Dists dists.Dists
	// Arch is the recipe's.
	Arch string
	Get  dists.Getter
	Pos  recipes.Pos
}

// NewDists makes a step of every set that a recipe names. get opens URLs, and
// may be nil where sets lie in a folder.
func NewDists(r *recipes.Recipe, get dists.Getter) []Dists {
	from := r.Source.Dists.From
	if from != "" && !filepath.IsAbs(from) && !dists.Remote(from) {
		from = filepath.Join(r.Dir, from)
	}
	var steps []Dists
	for _, set := range r.Source.Dists.Sets {
		d := dists.Dists{From: from, Sets: []string{set}, Manifest: r.Source.Dists.Manifest}
		steps = append(steps, Dists{Dists: d, Arch: r.Arch, Get: get, Pos: r.Source.Pos})
	}
	return steps
}

func (d Dists) set() string { return d.Dists.Sets[0] }

// Info names the step.
func (d Dists) Info() pipeline.Info {
	return pipeline.Info{Name: "dists:" + d.set(), Kind: "dists", Version: dists.Version, Role: "base", Pos: d.Pos}
}

// Inputs are the set's sum.
func (d Dists) Inputs(ctx context.Context, env pipeline.Env) (pipeline.Inputs, error) {
	return d.Dists.Inputs(ctx, d.env(env))
}

func (d Dists) env(env pipeline.Env) dists.Env {
	e := dists.Env{Work: env.Work, Get: d.Get}
	if env.Cache != "" {
		e.Cache = filepath.Join(env.Cache, "freebsd", "sets")
	}
	if env.Events != nil {
		e.Progress = func(line string) { env.Events(pipeline.Event{Kind: pipeline.StepProgress, Message: line}) }
	}
	return e
}

// Run verifies and unpacks the set. The set "base" must be what a world and a
// distribution are together.
func (d Dists) Run(ctx context.Context, env pipeline.Env, _ []*tree.Tree) (pipeline.Output, error) {
	t, err := d.Dists.Tree(ctx, d.env(env))
	if err != nil {
		return pipeline.Output{}, err
	}
	if d.set() == "base" {
		if err := world.Whole(t, d.Arch); err != nil {
			return pipeline.Output{}, err
		}
		if err := distribution.Whole(t); err != nil {
			return pipeline.Output{}, err
		}
	}
	facts := worldFacts(t)
	if t.Lookup(kernel.Path) != nil {
		facts["kernel.path"] = "/" + kernel.Path
	}
	return pipeline.Output{Tree: t, Facts: facts}, nil
}
