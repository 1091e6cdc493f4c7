package stages

import (
	"context"
	"strings"

	"rhizome/pipeline"
	"rhizome/pipeline/tree"
	"rhizome/recipes"
	"rhizome/stages/debiankernel"
)

// DebianKernel is the step that makes a Debian kernel's layer.
type DebianKernel struct {
	aptStage
	modules []string
}

// Kernel makes the step of one kernel stage of the recipe.
func (a *DebianArchive) Kernel(st recipes.Stage) *DebianKernel {
	d, k := a.source(), *st.Kernel
	if k.Name == "" {
		k.Name = "default"
	}
	return &DebianKernel{modules: k.Modules, aptStage: aptStage{
		archive: a, installs: true,
		info:    pipeline.Info{Name: "kernel:" + k.Name, Kind: "kernel", Version: debiankernel.Version, Role: "kernel", Kernel: k.Name, Pos: st.Pos},
		request: debiankernel.Request(d.Suite, d.Components, a.arch(), k.Packages),
		more:    pipeline.Inputs{"modules": strings.Join(k.Modules, " ")},
	}}
}

// Run makes the layer; its facts are where the kernel and its initramfs lie.
func (s *DebianKernel) Run(ctx context.Context, env pipeline.Env, _ []*tree.Tree) (pipeline.Output, error) {
	set, err := s.packages(ctx, env)
	if err != nil {
		return pipeline.Output{}, err
	}
	e, err := s.env(ctx, env)
	if err != nil {
		return pipeline.Output{}, err
	}
	k, err := debiankernel.Build(ctx, e, debiankernel.Spec{Request: s.request, Set: set, Epoch: s.archive.recipe.Epoch, Modules: s.modules})
	if err != nil {
		return pipeline.Output{}, err
	}
	return pipeline.Output{Tree: k.Tree, Facts: map[string]string{
		"kernel.version": k.Version, "kernel.path": k.Path, "initrd.path": k.Initrd,
	}}, nil
}
