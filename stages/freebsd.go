package stages

import (
	"context"
	"fmt"
	"path/filepath"

	"rhizome/pipeline"
	"rhizome/pipeline/tree"
	"rhizome/recipes"
	"rhizome/stages/distribution"
	"rhizome/stages/freebsd"
	"rhizome/stages/kernel"
	"rhizome/stages/world"
)

// FreeBSDSource is what the stages of one FreeBSD source tree share: the
// recipe's source, and what was found out about it. All stages of one run must
// be made of one FreeBSDSource, so that the tree is read once.
type FreeBSDSource struct {
	recipe  *recipes.Recipe
	src     recipes.Src
	without []string
	with    []string

	project freebsd.Project
	ready   chan struct{} // holds one token while nobody prepares
	dir     string
}

// NewFreeBSDSource takes the source and the world's options out of a recipe.
// host is runtime.GOOS, or empty for this machine's.
func NewFreeBSDSource(r *recipes.Recipe, host string) *FreeBSDSource {
	s := &FreeBSDSource{recipe: r, src: *r.Source.Src, ready: make(chan struct{}, 1)}
	for _, st := range r.Stages {
		if st.World != nil {
			s.without, s.with = st.World.Without, st.World.With
		}
	}
	s.project.Host = host
	s.ready <- struct{}{}
	return s
}

// open finds the tree, which may first be fetched, and fills the project.
func (s *FreeBSDSource) open(ctx context.Context, env pipeline.Env) (*freebsd.Project, error) {
	select {
	case <-s.ready:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { s.ready <- struct{}{} }()
	if s.dir != "" {
		return &s.project, nil
	}
	dir, err := s.find(ctx, env)
	if err != nil {
		return nil, err
	}
	s.dir = dir
	s.project.Dir, s.project.Arch, s.project.Toolchain = dir, s.recipe.Arch, s.src.Toolchain
	s.project.Without, s.project.With = s.without, s.with
	s.project.Reader = freebsd.Reader{State: stateDir(env)}
	return &s.project, nil
}

func (s *FreeBSDSource) find(ctx context.Context, env pipeline.Env) (string, error) {
	if s.src.Git == "" {
		if filepath.IsAbs(s.src.Dir) {
			return s.src.Dir, nil
		}
		return filepath.Join(s.recipe.Dir, s.src.Dir), nil
	}
	commit := s.src.Commit
	if env.Lock != nil {
		if c, ok := env.Lock.Commits[freebsd.LockName(s.src.Git, commit)]; ok {
			commit = c
		}
	}
	if env.Cache == "" {
		return "", fmt.Errorf("fetching the source %q: no cache folder is set to keep it in", s.src.Git)
	}
	say := func(line string) { env.Events(pipeline.Event{Kind: pipeline.StepProgress, Message: line}) }
	return freebsd.Checkout(ctx, filepath.Join(env.Cache, "freebsd", "sources"), s.src.Git, commit, say)
}

func stateDir(env pipeline.Env) string {
	if env.Cache == "" {
		return ""
	}
	return filepath.Join(env.Cache, "freebsd", "state")
}

func freebsdEnv(env pipeline.Env) freebsd.Env {
	e := freebsd.Env{Work: env.Work, Jobs: env.Jobs, State: stateDir(env), Progress: func(line string) {
		env.Events(pipeline.Event{Kind: pipeline.StepProgress, Message: line})
	}}
	if env.Cache != "" {
		e.Objects = filepath.Join(env.Cache, "freebsd", "objects")
	}
	return e
}

// World is buildworld and installworld as a step.
type World struct {
	Source *FreeBSDSource
	Pos    recipes.Pos
}

// Info names the step.
func (w World) Info() pipeline.Info {
	return pipeline.Info{Name: "world", Kind: "world", Version: world.Version, Role: "base", Pos: w.Pos}
}

// Inputs are the source's content, the toolchain and the options.
func (w World) Inputs(ctx context.Context, env pipeline.Env) (pipeline.Inputs, error) {
	p, err := w.Source.open(ctx, env)
	if err != nil {
		return nil, err
	}
	return world.Inputs(ctx, p)
}

// Run builds and installs the world.
func (w World) Run(ctx context.Context, env pipeline.Env, _ []*tree.Tree) (pipeline.Output, error) {
	p, err := w.Source.open(ctx, env)
	if err != nil {
		return pipeline.Output{}, err
	}
	t, err := world.Build(ctx, freebsdEnv(env), p)
	return pipeline.Output{Tree: t, Facts: worldFacts(t)}, err
}

// worldFacts name the boot programs that a base's tree has.
func worldFacts(t *tree.Tree) map[string]string {
	facts := map[string]string{}
	if t == nil {
		return facts
	}
	for name, path := range map[string]string{"boot.bios": world.BIOS, "boot.uefi": world.UEFI} {
		if t.Lookup(path) != nil {
			facts[name] = "/" + path
		}
	}
	return facts
}

// Lock resolves a branch or tag of the source's repository to its commit of
// now. A source that lies in a folder has nothing to lock.
func (w World) Lock(ctx context.Context, _ pipeline.Env, into *recipes.Lock) error {
	src := w.Source.src
	if src.Git == "" {
		return nil
	}
	commit, err := freebsd.ResolveCommit(ctx, src.Git, src.Commit)
	if err != nil {
		return err
	}
	if into.Commits == nil {
		into.Commits = map[string]string{}
	}
	into.Commits[freebsd.LockName(src.Git, src.Commit)] = commit
	return nil
}

// Distribution is make distribution as a step.
type Distribution struct {
	Source *FreeBSDSource
	Pos    recipes.Pos
}

// Info names the step.
func (d Distribution) Info() pipeline.Info {
	return pipeline.Info{Name: "distribution", Kind: "distribution", Version: distribution.Version, Role: "base", Pos: d.Pos}
}

// Inputs are the source's content, the toolchain and the world's options.
func (d Distribution) Inputs(ctx context.Context, env pipeline.Env) (pipeline.Inputs, error) {
	p, err := d.Source.open(ctx, env)
	if err != nil {
		return nil, err
	}
	return distribution.Inputs(ctx, p)
}

// Run makes the distribution.
func (d Distribution) Run(ctx context.Context, env pipeline.Env, _ []*tree.Tree) (pipeline.Output, error) {
	p, err := d.Source.open(ctx, env)
	if err != nil {
		return pipeline.Output{}, err
	}
	t, err := distribution.Build(ctx, freebsdEnv(env), p)
	return pipeline.Output{Tree: t}, err
}

// FreeBSDKernel is one FreeBSD kernel as a step.
type FreeBSDKernel struct {
	Source *FreeBSDSource
	Kernel kernel.Kernel
	// Nodes limits the layer to some nodes; nil means all.
	Nodes []string
	Pos   recipes.Pos
}

// NewFreeBSDKernel takes a kernel out of a recipe, with the nodes that boot it.
func NewFreeBSDKernel(s *FreeBSDSource, st recipes.Stage, nodes []string) FreeBSDKernel {
	k := st.Kernel
	return FreeBSDKernel{Source: s, Nodes: nodes, Pos: st.Pos, Kernel: kernel.Kernel{
		Name: k.Name, Modules: k.Modules, Nodes: bootNodes(s.recipe, k.Name),
		Request: kernel.Request{Config: k.Config, Include: k.Include, Options: k.Options, NoOptions: k.NoOptions, Devices: k.Devices, NoDevices: k.NoDevices},
	}}
}

func bootNodes(r *recipes.Recipe, name string) []kernel.Node {
	var nodes []kernel.Node
	for _, n := range r.Nodes {
		if n.Kernel != name && n.Kernel != "" {
			continue
		}
		lines := map[string]string{}
		for _, kv := range n.LoaderConf {
			lines[kv.Key] = kv.Value
		}
		nodes = append(nodes, kernel.Node{Name: n.Name, Modules: kernel.Modules(lines)})
	}
	return nodes
}

// Info names the step.
func (k FreeBSDKernel) Info() pipeline.Info {
	return pipeline.Info{Name: "kernel:" + k.Kernel.Name, Kind: "kernel", Version: kernel.Version, Role: "kernel",
		Kernel: k.Kernel.Name, Nodes: k.Nodes, Pos: k.Pos}
}

// Inputs are the kernel's source and configuration. What the configuration
// lacks for its nodes is an error already here, so that plan shows it and no
// world is built in vain.
func (k FreeBSDKernel) Inputs(ctx context.Context, env pipeline.Env) (pipeline.Inputs, error) {
	p, err := k.Source.open(ctx, env)
	if err != nil {
		return nil, err
	}
	in, plan, err := k.Kernel.Inputs(ctx, p)
	if err == nil && env.Log != nil {
		for _, w := range plan.Warnings {
			env.Log.Warn(w, "kernel", k.Kernel.Name)
		}
	}
	return in, err
}

// Run builds and installs the kernel.
func (k FreeBSDKernel) Run(ctx context.Context, env pipeline.Env, _ []*tree.Tree) (pipeline.Output, error) {
	p, err := k.Source.open(ctx, env)
	if err != nil {
		return pipeline.Output{}, err
	}
	b, err := k.Kernel.Build(ctx, freebsdEnv(env), p)
	if err != nil {
		return pipeline.Output{}, err
	}
	return pipeline.Output{Tree: b.Tree, Facts: map[string]string{"kernel.path": "/" + kernel.Path, "kernel.version": b.Version}}, nil
}
