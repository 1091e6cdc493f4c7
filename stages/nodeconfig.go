package stages

import (
	"context"
	"strings"

	"rhizome/pipeline"
	"rhizome/pipeline/tree"
	"rhizome/recipes"
	"rhizome/stages/files"
	"rhizome/stages/nodeconfig"
)

// configStage makes configuration out of the recipe alone: the tree is built
// for the key as well, since it is small.
type configStage struct {
	info  pipeline.Info
	facts map[string]string
	tree  func() (*tree.Tree, error)
}

// Common makes the step of what all nodes share (hosts, resolv.conf). It
// belongs over the base and its packages, and under the files stages, which may
// replace what it makes.
func Common(r *recipes.Recipe) pipeline.Stage {
	return &configStage{
		info: pipeline.Info{Name: "nodeconfig", Kind: "nodeconfig", Version: nodeconfig.Version, Role: "files", Pos: r.Pos},
		tree: func() (*tree.Tree, error) { return nodeconfig.Common(r) },
	}
}

// NodeConfigs makes one step per node, in the recipe's order: the uppermost
// layer of that node, its own files over what is made.
func NodeConfigs(r *recipes.Recipe) []pipeline.Stage {
	values := files.ClusterValues(r)
	out := make([]pipeline.Stage, len(r.Nodes))
	for i := range r.Nodes {
		out[i] = nodeConfig(r, &r.Nodes[i], values)
	}
	return out
}

func nodeConfig(r *recipes.Recipe, n *recipes.Node, values files.ClusterView) pipeline.Stage {
	return &configStage{
		info:  pipeline.Info{Name: "node:" + n.Name, Kind: "nodeconfig", Version: nodeconfig.Version<<8 | files.Version, Role: "node", Nodes: []string{n.Name}, Pos: n.Pos},
		facts: bootFacts(r, n),
		tree:  func() (*tree.Tree, error) { return nodeTree(r, n, values) },
	}
}

// bootFacts are what the assembly puts into the node's boot spec.
func bootFacts(r *recipes.Recipe, n *recipes.Node) map[string]string {
	if r.OS == "freebsd" {
		return map[string]string{"boot.kenv": strings.Join(nodeconfig.Kenv(n), "\n")}
	}
	return map[string]string{"boot.cmdline": nodeconfig.Cmdline(r, n)}
}

func nodeTree(r *recipes.Recipe, n *recipes.Node, values files.ClusterView) (*tree.Tree, error) {
	t, err := nodeconfig.Build(r, n)
	if err != nil {
		return nil, err
	}
	for _, f := range n.Files {
		own, err := files.Build(r.FS, f, files.NodeValues(values, n))
		if err != nil {
			return nil, err
		}
		if err := t.Merge(own); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (s *configStage) Info() pipeline.Info { return s.info }

// Inputs are the files that come out, and the facts that go with them.
func (s *configStage) Inputs(context.Context, pipeline.Env) (pipeline.Inputs, error) {
	t, err := s.tree()
	if err != nil {
		return nil, err
	}
	in, err := files.Inputs(t)
	if err != nil {
		return nil, err
	}
	for k, v := range s.facts {
		in[k] = v
	}
	return in, nil
}

func (s *configStage) Run(context.Context, pipeline.Env, []*tree.Tree) (pipeline.Output, error) {
	t, err := s.tree()
	return pipeline.Output{Tree: t, Facts: s.facts}, err
}
