package stages

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"rhizome/pipeline"
	"rhizome/pipeline/tree"
	"rhizome/recipes"
	"rhizome/stages/precache"

	"github.com/opencontainers/go-digest"
)

// precacheStage moves the hot files of the layers below the nodes' own into
// one layer, which nodes hold in memory.
type precacheStage struct {
	recipe *recipes.Recipe
	info   pipeline.Info
	// apart names the steps that not every node has.
	apart map[string]bool
	// over gives what lies over those layers on one node or another: trees that
	// differ in what they touch.
	over func() ([]*tree.Tree, error)
}

// Precache makes the step that divides the layers of the steps below into hot
// and cold; nodes are the steps of the nodes' own layers.
func Precache(r *recipes.Recipe, below, nodes []pipeline.Stage) pipeline.Stage {
	s := &precacheStage{recipe: r, apart: map[string]bool{}}
	s.info = pipeline.Info{Name: pipeline.RoleBundle, Kind: "precache", Version: precache.Version, Role: pipeline.RoleBundle, Pos: r.Precache.Pos}
	kernels := map[string]bool{}
	for _, b := range below {
		if k := b.Info().Kernel; k != "" {
			kernels[k] = true
		}
	}
	for _, b := range below {
		info := b.Info()
		s.info.Needs = append(s.info.Needs, info.Name)
		s.apart[info.Name] = info.Nodes != nil || info.Kernel != "" && len(kernels) > 1
	}
	s.over = sync.OnceValues(func() ([]*tree.Tree, error) { return ownTrees(r, nodes) })
	return s
}

// ownTrees are the nodes' own layers and secrets, each kind once: hundreds of
// nodes touch the same paths.
func ownTrees(r *recipes.Recipe, nodes []pipeline.Stage) ([]*tree.Tree, error) {
	var out []*tree.Tree
	seen := map[string]bool{}
	for i, s := range nodes {
		t, err := s.(*configStage).tree()
		if err == nil {
			t, err = withSecrets(t, r.Nodes[i].Secrets)
		}
		if err != nil {
			return nil, err
		}
		if mark := touches(t); !seen[mark] {
			seen[mark] = true
			out = append(out, t)
		}
	}
	return out, nil
}

// hostKeys are the files that the secret "ssh-host-keys" becomes.
var hostKeys = []string{"ssh_host_ed25519_key", "ssh_host_ecdsa_key", "ssh_host_rsa_key",
	"ssh_host_ed25519_key.pub", "ssh_host_ecdsa_key.pub", "ssh_host_rsa_key.pub"}

// withSecrets adds the files that serve lays over a node's root.
func withSecrets(t *tree.Tree, secrets []recipes.Secret) (*tree.Tree, error) {
	for _, s := range secrets {
		paths := []string{s.Path}
		if s.Kind == "ssh-host-keys" {
			paths = nil
			for _, k := range hostKeys {
				paths = append(paths, path.Join(s.Path, k))
			}
		}
		for _, p := range paths {
			if err := t.Add(tree.Entry{Path: p, Kind: tree.File}); err != nil {
				return nil, err
			}
		}
	}
	return t, nil
}

// touches is a digest of what a tree touches, whatever its files say.
func touches(t *tree.Tree) string {
	var b strings.Builder
	for _, e := range t.Entries() {
		fmt.Fprintf(&b, "%q %s %v %v", e.Path, e.Kind, e.Implied, e.Opaque)
		if e.Kind == tree.Dir {
			fmt.Fprintf(&b, " %o %d %d %q", e.Mode, e.UID, e.GID, e.Flags)
		}
		b.WriteByte('\n')
	}
	return digest.FromString(b.String()).String()
}

func (s *precacheStage) Info() pipeline.Info { return s.info }

// Inputs are the list and what not all nodes have alike. The content of a
// node's own files is none: it is never in the bundle.
func (s *precacheStage) Inputs(context.Context, pipeline.Env) (pipeline.Inputs, error) {
	w, err := s.wish()
	if err != nil {
		return nil, err
	}
	over, err := s.over()
	if err != nil {
		return nil, err
	}
	var marks []string
	for _, t := range over {
		marks = append(marks, touches(t))
	}
	slices.Sort(marks)
	in := pipeline.Inputs{
		"paths": strings.Join(w.Paths, "\n"), "learned": digest.FromString(strings.Join(w.Learned, "\n")).String(),
		"limit": fmt.Sprint(w.Limit), "whole folders": fmt.Sprint(w.Folders), "steps of some nodes": s.apartNames(),
		"paths of nodes' own": digest.FromString(strings.Join(marks, "\n")).String(),
	}
	if w.First > 0 {
		in["first"] = fmt.Sprint(w.First)
	}
	return in, nil
}

func (s *precacheStage) apartNames() string {
	var names []string
	for _, n := range s.info.Needs {
		if s.apart[n] {
			names = append(names, n)
		}
	}
	return strings.Join(names, " ")
}

// wish reads the lists that the recipe names.
func (s *precacheStage) wish() (precache.Wish, error) {
	p := s.recipe.Precache
	w := precache.Wish{Paths: p.Paths, Limit: p.Limit, First: p.First, Folders: s.recipe.OS == "freebsd"}
	if p.Learned == "" {
		return w, nil
	}
	f, err := s.recipe.FS.Open(path.Clean(p.Learned))
	if err != nil {
		return w, fmt.Errorf("reading the learned list %q: %w", p.Learned, err)
	}
	defer f.Close()
	if w.Learned, err = precache.ReadList(f); err != nil {
		err = fmt.Errorf("reading the learned list %q: %w", p.Learned, err)
	}
	return w, err
}

// Divide decides what is hot.
func (s *precacheStage) Divide(_ context.Context, env pipeline.Env, layers []pipeline.StepLayer) (pipeline.Division, error) {
	w, err := s.wish()
	if err != nil {
		return pipeline.Division{}, err
	}
	over, err := s.over()
	if err != nil {
		return pipeline.Division{}, err
	}
	var parts []precache.Layer
	for _, l := range layers {
		parts = append(parts, precache.Layer{Name: l.Info.Name, Tree: l.Tree, Apart: s.apart[l.Info.Name]})
	}
	d, err := precache.Divide(parts, over, w)
	if err != nil {
		return pipeline.Division{}, err
	}
	s.tell(env, d)
	return pipeline.Division{Bundle: d.Hot, Order: d.Order, First: d.First, Rest: d.Cold, Facts: map[string]string{
		pipeline.FactBundleFolders: strings.Join(d.Folders, "\n"), pipeline.FactBundlePrivate: fmt.Sprint(d.Private),
	}}, nil
}

// tell says what the bundle came to, and what of the list it has not.
func (s *precacheStage) tell(env pipeline.Env, d *precache.Division) {
	line := func(format string, args ...any) {
		env.Events(pipeline.Event{Kind: pipeline.StepLog, Message: fmt.Sprintf(format, args...)})
	}
	line("the bundle holds %d paths and takes %d bytes of a node's memory", len(d.Order), d.Memory)
	for _, left := range []struct {
		why   string
		paths []string
	}{
		{"are in no layer any more", d.Gone}, {"are over the limit", d.Over}, {"differ between nodes", d.Apart},
	} {
		if n := len(left.paths); n > 0 {
			line("%d path(s) of the list %s, the first %q", n, left.why, left.paths[0])
		}
	}
}

var errDivider = errors.New("it divides layers and makes none")

// Run is never called: the step is a pipeline.Divider.
func (s *precacheStage) Run(context.Context, pipeline.Env, []*tree.Tree) (pipeline.Output, error) {
	return pipeline.Output{}, errDivider
}

// Restore makes a layer whole again whose hot files lie in a bundle; it is for
// pipeline.Env.
func Restore(layer, bundle *tree.Tree) (*tree.Tree, error) { return precache.Restore(layer, bundle) }
