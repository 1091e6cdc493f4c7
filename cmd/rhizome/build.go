package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"rhizome/pipeline"
	"rhizome/recipes"
	"rhizome/registry"
	"rhizome/registry/ref"
	"rhizome/registry/store"
	"rhizome/stages"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
)

// builder is a recipe, read and valid, with all that planning and building it
// takes.
type builder struct {
	recipe *recipes.Recipe
	// partial says that the recipe lacks some of its nodes (--node).
	partial bool
	stages  []pipeline.Stage
	store   builderStore
	// cache is the store, with the registries of --cache-from behind it.
	cache pipeline.Store
	link  registry.Link
	env   pipeline.Env
}

// buildFlags are those of verbs that plan or build.
type buildFlags struct {
	registryFlags
	cacheFlags
	nodes string
	jobs  int
	// looking says that nothing is built, so that nothing large is fetched.
	looking bool
	// locking says that the lock file is made anew, whatever is wrong with it.
	locking bool
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
func (a *app) builder(ctx context.Context, name string, f buildFlags) (*builder, error) {
	r, err := a.load(name)
	if err != nil {
		return nil, err
	}
	some, err := limitNodes(r, f.nodes)
	if err != nil {
		return nil, err
	}
	lock, err := recipes.ReadLock(r.LockFile())
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !f.locking {
		return nil, err
	}
	open := a.makeStore
	if f.looking {
		open = a.openAnyStore
	}
	s, err := open()
	if err != nil {
		return nil, err
	}
	cache := a.cacheFolder()
	if cache != "" && !f.looking {
		if err := os.MkdirAll(cache, 0o755); err != nil {
			return nil, fmt.Errorf("making the folder for downloads: %w; XDG_CACHE_HOME names another", err)
		}
	}
	list, err := stages.For(r, downloader(downloadIdle))
	if err != nil {
		return nil, err
	}
	programs, err := nodePrograms()
	if err != nil {
		return nil, err
	}
	b := &builder{
		recipe: some, partial: len(some.Nodes) < len(r.Nodes), stages: withoutOthers(list, some), store: builderStore{s},
		env: pipeline.Env{Jobs: f.jobs, Epoch: r.Epoch, Cache: cache, Programs: programs, Lock: lock, Events: a.term.build, Log: a.term.logger(), Restore: stages.Restore},
	}
	return b, a.connect(ctx, b, f)
}

// nodePrograms are the folders in which rhizome-node is looked for: beside this
// program, and where packages keep programs that nobody calls by hand.
func nodePrograms() ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding out where this program lies: %w", err)
	}
	if real, err := filepath.EvalSymlinks(self); err == nil {
		self = real
	}
	dir := filepath.Dir(self)
	return []string{dir, filepath.Join(dir, "..", "libexec", "rhizome")}, nil
}

// connect gives a builder what lies outside the recipe: registries, and the
// parent in the store.
func (a *app) connect(ctx context.Context, b *builder, f buildFlags) (err error) {
	if b.link, err = a.link(f.registryFlags, b.store.Store); err != nil {
		return err
	}
	b.env.Pull = newBasePuller(b.link, b.recipe)
	if b.env.Parent, err = readParent(ctx, b.store.Store, b.recipe.Parent); err != nil {
		return err
	}
	b.cache, err = newFarCache(b.store, b.link, f.from, !f.looking)
	return err
}

// limitNodes is the recipe with some of its nodes alone: those that get into the
// image. Stages are made of the whole recipe, for every node knows of all others.
func limitNodes(r *recipes.Recipe, set string) (*recipes.Recipe, error) {
	if set == "" {
		return r, nil
	}
	want, err := recipes.ParseNodeSet(set)
	if err != nil {
		return nil, usagef("--node: %w", err)
	}
	var all []string
	for _, n := range r.Nodes {
		all = append(all, n.Name)
	}
	if lacks := want.Lacks(all); len(lacks) > 0 {
		return nil, usagef("--node %s: the recipe has no node %s; it has %s", set, some(lacks), some(all))
	}
	limited := *r
	limited.Nodes = slices.DeleteFunc(slices.Clone(r.Nodes), func(n recipes.Node) bool { return !want.Match(n.Name) })
	return &limited, nil
}

// withoutOthers leaves out the own layers of nodes that the recipe has not.
func withoutOthers(list []pipeline.Stage, r *recipes.Recipe) []pipeline.Stage {
	keep := map[string]bool{}
	for i := range r.Nodes {
		keep[r.Nodes[i].Name] = true
	}
	return slices.DeleteFunc(list, func(s pipeline.Stage) bool {
		info := s.Info()
		return info.Role == "node" && !slices.ContainsFunc(info.Nodes, func(n string) bool { return keep[n] })
	})
}

func (b *builder) plan(ctx context.Context) (*pipeline.Plan, error) {
	p := pipeline.Planner{Store: b.cache, Env: b.env}
	return p.Plan(ctx, b.recipe, b.stages)
}

func (a *app) buildCommand() *cobra.Command {
	var tags []string
	var flags buildFlags
	cmd := &cobra.Command{
		Use:   "build RECIPE",
		Short: "Build what the cache lacks and put the cluster image into the store",
		Long: `Build what the cache lacks, write the layers and the cluster image to the
store, and print the index digest as the last line.

RECIPE is a file, or the name of a shipped recipe (debian-demo, say).

With --node the image has some of the nodes alone. It gets the names of --tag,
and without any no name: the recipe's own goes on to mean the whole cluster.`,
		Args: exact(1, "one recipe"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkBuild(tags, flags.jobs); err != nil {
				return err
			}
			b, err := a.builder(cmd.Context(), args[0], flags)
			if err != nil {
				return err
			}
			return a.build(cmd.Context(), b, tags, flags.to)
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&tags, "tag", "t", nil, "name the image NAME:TAG in the store (default: the recipe's name and \"latest\"; with --node none)")
	flags.addFrom(cmd)
	flags.addTo(cmd)
	flags.add(cmd)
	f.StringVar(&flags.nodes, "node", "", "build these nodes alone, as in n[1-4]")
	f.IntVarP(&flags.jobs, "jobs", "j", runtime.NumCPU(), "how many processes may run at once (default: one for each CPU)")
	f.Lookup("jobs").DefValue = "0" // the manual is the same wherever it is made
	a.flagOffers(cmd, "tag", offerImages)
	a.flagOffers(cmd, "node", offerRecipeNodes)
	return a.recipeArgs(cmd, 1)
}

// checkBuild refuses what would only be refused once all is built.
func checkBuild(tags []string, jobs int) error {
	if jobs < 1 {
		return usagef("--jobs is at least 1, not %d", jobs)
	}
	for _, t := range tags {
		if err := store.CheckTag(t); err != nil {
			return &usageError{fmt.Errorf("--tag: %w", err)}
		}
	}
	return nil
}

func (a *app) build(ctx context.Context, b *builder, tags []string, cacheTo string) error {
	var to ref.Reference
	if cacheTo != "" {
		var err error
		if to, err = cacheRef(cacheTo); err != nil {
			return err
		}
	}
	if len(tags) == 0 && !b.partial {
		tags = []string{b.recipe.Name + ":latest"}
	}
	var needs []digest.Digest
	if b.env.Parent != nil {
		needs = append(needs, b.env.Parent.Digest)
	}
	lease, err := b.store.Lease(ctx, "build of "+b.recipe.Name, needs...)
	if err != nil {
		return err
	}
	defer lease.Close()
	p, err := b.plan(ctx)
	if err != nil {
		return err
	}
	r := pipeline.Runner{Store: b.cache, Env: b.env, Parallel: b.env.Jobs, Now: time.Now}
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
	if len(tags) == 0 {
		a.term.note("untagged it has some of the nodes alone, so %s:latest stays what it was; --tag names it, gc removes it", b.recipe.Name)
	}
	if cacheTo != "" {
		if err := a.pushCache(ctx, b.link, to, p); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintln(a.out, index.Digest)
	return err
}
