package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"time"

	"rhizome/pipeline"
	"rhizome/recipes"
	"rhizome/stages"

	"github.com/spf13/cobra"
)

// builder is a recipe, read and valid, with all that planning and building it
// takes.
type builder struct {
	recipe *recipes.Recipe
	stages []pipeline.Stage
	store  builderStore
	env    pipeline.Env
}

// load reads a recipe, prints its findings and returns it if it can be built.
func (a *app) load(name string) (*recipes.Recipe, error) {
	r, findings, err := recipes.Load(name)
	if err != nil {
		return nil, err
	}
	for _, f := range findings {
		fmt.Fprintln(a.err, f)
	}
	if n := findings.Errors(); n > 0 {
		fmt.Fprintf(a.err, "rhizome: the recipe %q has %d error(s); nothing was built\n", name, n)
		return nil, reported(exitUsage)
	}
	return r, nil
}

// builder prepares a recipe for planning and building.
func (a *app) builder(name string, nodes string, jobs int) (*builder, error) {
	r, err := a.load(name)
	if err != nil {
		return nil, err
	}
	if nodes != "" {
		if err := limitNodes(r, nodes); err != nil {
			return nil, err
		}
	}
	lock, err := recipes.ReadLock(r.LockFile())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	s, err := a.openStore()
	if err != nil {
		return nil, err
	}
	cache, err := a.cacheDir()
	if err != nil {
		return nil, err
	}
	list, err := stages.For(r, download)
	if err != nil {
		return nil, err
	}
	return &builder{
		recipe: r, stages: list, store: builderStore{s},
		env: pipeline.Env{Jobs: jobs, Epoch: r.Epoch, Cache: cache, Lock: lock, Events: a.term.build, Log: a.term.logger()},
	}, nil
}

func limitNodes(r *recipes.Recipe, set string) error {
	names, err := r.Select(set)
	if err != nil {
		return &usageError{err}
	}
	keep := map[string]bool{}
	for _, n := range names {
		keep[n] = true
	}
	var nodes []recipes.Node
	for _, n := range r.Nodes {
		if keep[n.Name] {
			nodes = append(nodes, n)
		}
	}
	r.Nodes = nodes
	return nil
}

func (b *builder) plan(ctx context.Context) (*pipeline.Plan, error) {
	p := pipeline.Planner{Store: b.store, Env: b.env}
	return p.Plan(ctx, b.recipe, b.stages)
}

func (a *app) buildCommand() *cobra.Command {
	var tags []string
	var nodes string
	var jobs int
	cmd := &cobra.Command{
		Use:   "build RECIPE",
		Short: "Build what the cache lacks and put the cluster image into the store",
		Long: `Build what the cache lacks, write the layers and the cluster image to the
store, and print the index digest as the last line.

RECIPE is a file, or the name of a shipped recipe (debian-demo, say).`,
		Args: exact(1, "one recipe"),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := a.builder(args[0], nodes, jobs)
			if err != nil {
				return err
			}
			return a.build(cmd.Context(), b, tags)
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&tags, "tag", "t", nil, "name the image NAME:TAG in the store (default: the recipe's name and \"latest\")")
	f.StringVar(&nodes, "node", "", "build these nodes alone, as in n[1-4]")
	f.IntVarP(&jobs, "jobs", "j", runtime.NumCPU(), "how many processes may run at once")
	return cmd
}

func (a *app) build(ctx context.Context, b *builder, tags []string) error {
	if len(tags) == 0 {
		tags = []string{b.recipe.Name + ":latest"}
	}
	lease, err := b.store.Lease(ctx, "build of "+b.recipe.Name)
	if err != nil {
		return err
	}
	defer lease.Close()
	p, err := b.plan(ctx)
	if err != nil {
		return err
	}
	r := pipeline.Runner{Store: b.store, Env: b.env, Parallel: b.env.Jobs, Now: time.Now}
	if err := r.Run(ctx, p); err != nil {
		return err
	}
	index, err := pipeline.Assemble(ctx, b.store, p)
	if err != nil {
		return err
	}
	for _, t := range tags {
		if err := b.store.Tag(ctx, index, t); err != nil {
			return err
		}
		a.term.note("tagged   %s", t)
	}
	_, err = fmt.Fprintln(a.out, index.Digest)
	return err
}
