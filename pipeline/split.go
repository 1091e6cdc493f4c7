package pipeline

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"rhizome/pipeline/image"
	"rhizome/pipeline/layer"
	"rhizome/pipeline/tree"
	"rhizome/registry/imagefmt"
	"rhizome/registry/layerfmt"

	"github.com/opencontainers/go-digest"
)

// RoleBundle is the role of the layer that nodes hold in memory.
const RoleBundle = imagefmt.RoleBundle

// Facts of a step that divides layers.
const (
	// FactBundle is the DiffID of the bundle.
	FactBundle = "precache.bundle"
	// FactBundleFolders are the folders that a node lays it over, one a line.
	FactBundleFolders = "precache.folders"
	// FactBundlePrivate is "true" where some of it is not for everybody.
	FactBundlePrivate = "precache.private"
	// FactInstead names layers that another takes the place of: two DiffIDs a
	// line, the old one and the new one.
	FactInstead = "precache.instead"
)

// Divider is a stage that makes no content of its own: it moves bodies out of
// the layers of the steps that it needs into a layer above them. The image
// has its layers in place of those; the steps keep theirs.
type Divider interface {
	Stage
	// Divide is told all layers of the steps in Info().Needs, lowest first.
	Divide(ctx context.Context, env Env, layers []StepLayer) (Division, error)
}

// StepLayer is a layer with the step that made it.
type StepLayer struct {
	Info Info
	Tree *tree.Tree
}

// Division is what becomes of layers.
type Division struct {
	// Bundle is the layer above, and Order its paths, the first ones first in
	// the tar.
	Bundle *tree.Tree
	Order  []string
	// First counts those of Order that a node is to have before it goes on.
	First int
	// Rest stand beside the layers: what is left of each, nil for one that
	// stays as it is.
	Rest  []*tree.Tree
	Facts map[string]string
}

// divide runs a stage that divides layers, and stores what it makes: the
// bundle first, then what is left of each layer that gave something.
func (r *Runner) divide(ctx context.Context, s *Step, d Divider, work string) ([]Layer, map[string]string, error) {
	from, parts, done, err := r.parts(ctx, s)
	if err != nil {
		return nil, nil, err
	}
	defer done()
	div, err := d.Divide(ctx, r.stepEnv(work, s), parts)
	if err != nil {
		return nil, nil, err
	}
	bundle, err := r.ingest(ctx, func(w io.Writer) (layerfmt.Summary, error) {
		return layer.WriteFirst(w, div.Bundle, div.Order, r.Env.Epoch, r.Env.Jobs)
	})
	if err != nil {
		return nil, nil, err
	}
	if err := r.markFirst(ctx, bundle, div.Order[:div.First]); err != nil {
		return nil, nil, err
	}
	layers := []Layer{bundle}
	facts := map[string]string{FactBundle: bundle.DiffID.String()}
	for k, v := range div.Facts {
		facts[k] = v
	}
	var instead []string
	for i, rest := range div.Rest {
		if rest == nil {
			continue
		}
		l, err := r.rest(ctx, parts[i].Info, from[i], rest)
		if err != nil {
			return nil, nil, fmt.Errorf("writing what is left of the layer of %q: %w", parts[i].Info.Name, err)
		}
		markMoved(&l, from[i], bundle)
		layers = append(layers, l)
		instead = append(instead, from[i].DiffID.String()+" "+l.DiffID.String())
	}
	facts[FactInstead] = strings.Join(instead, "\n")
	return layers, facts, nil
}

// rest writes what is left of a layer. One of ours keeps the time of its files,
// which is a former recipe's where the layer is a parent's: it must be as it was
// when it is whole again.
func (r *Runner) rest(ctx context.Context, info Info, of Layer, left *tree.Tree) (Layer, error) {
	if info.Whole {
		return r.write(ctx, left)
	}
	return r.rewrite(ctx, of, left)
}

// rewrite writes what has become of a layer, with the time that its files had.
func (r *Runner) rewrite(ctx context.Context, was Layer, now *tree.Tree) (Layer, error) {
	blob, d, err := r.Store.OpenLayer(ctx, was)
	if err != nil {
		return Layer{}, err
	}
	defer blob.Close()
	when, ok, err := layer.TimeOf(blob, d.Size, d.Annotations)
	if err != nil {
		return Layer{}, err
	}
	if !ok {
		when = r.Env.Epoch
	}
	return r.ingest(ctx, func(w io.Writer) (layerfmt.Summary, error) {
		return layer.Write(w, now, when, r.Env.Jobs)
	})
}

// markFirst says on a bundle's descriptor where in it the paths end that come
// first.
func (r *Runner) markFirst(ctx context.Context, bundle Layer, paths []string) error {
	if len(paths) == 0 {
		return nil
	}
	blob, d, err := r.Store.OpenLayer(ctx, bundle)
	if err != nil {
		return err
	}
	defer blob.Close()
	front, err := layer.FrontOf(blob, d.Size, d.Annotations, paths)
	if err != nil {
		return fmt.Errorf("finding the first part of the bundle: %w", err)
	}
	bundle.Descriptor.Annotations[imagefmt.AnnotationFirstSize] = strconv.FormatInt(front.Size, 10)
	bundle.Descriptor.Annotations[imagefmt.AnnotationFirstDigest] = front.Digest.String()
	return nil
}

// markMoved says on a layer's descriptor what it is the rest of.
func markMoved(l *Layer, of, bundle Layer) {
	l.Descriptor.Annotations[imagefmt.AnnotationMoved] = bundle.DiffID.String()
	if n := of.Descriptor.Annotations[imagefmt.AnnotationDelta]; n != "" {
		l.Descriptor.Annotations[imagefmt.AnnotationDelta] = n
	}
}

// parts opens every layer of the steps that one needs, each by itself.
func (r *Runner) parts(ctx context.Context, s *Step) ([]Layer, []StepLayer, func(), error) {
	var all closers
	var from []Layer
	var parts []StepLayer
	for _, n := range s.needs {
		for _, l := range n.Result.Layers {
			t, done, err := r.read(ctx, []Layer{l})
			if err != nil {
				all.close()
				return nil, nil, nil, err
			}
			all = append(all, done)
			from, parts = append(from, l), append(parts, StepLayer{n.Info, t})
		}
	}
	return from, parts, all.close, nil
}

// restore gives a parent's layers as they were before they were divided: what
// is compared with them, and laid over them, knows nothing of bundles. Written
// anew they have the digests that they had.
func (r *Runner) restore(ctx context.Context, was []Layer) ([]Layer, error) {
	out := make([]Layer, len(was))
	for i, l := range was {
		var err error
		if out[i], err = r.whole(ctx, l); err != nil {
			return nil, fmt.Errorf("making the layer %s whole again: %w", l.Descriptor.Digest, err)
		}
	}
	return out, nil
}

func (r *Runner) whole(ctx context.Context, l Layer) (Layer, error) {
	moved := l.Descriptor.Annotations[imagefmt.AnnotationMoved]
	if moved == "" {
		return l, nil
	}
	bundle, ok := r.Env.Parent.Bundles[digest.Digest(moved)]
	if !ok || r.Env.Restore == nil {
		return l, fmt.Errorf("the parent has no bundle %s, where its hot files went", moved)
	}
	rest, done, err := r.read(ctx, []Layer{l})
	if err != nil {
		return l, err
	}
	defer done()
	hot, doneHot, err := r.read(ctx, []Layer{bundle})
	if err != nil {
		return l, err
	}
	defer doneHot()
	t, err := r.Env.Restore(rest, hot)
	if err != nil {
		return l, err
	}
	w, err := r.rewrite(ctx, l, t)
	if n := l.Descriptor.Annotations[imagefmt.AnnotationDelta]; err == nil && n != "" {
		w.Descriptor.Annotations[imagefmt.AnnotationDelta] = n
	}
	return w, err
}

// shelf is the layers of a plan as its image has them.
type shelf struct {
	instead map[digest.Digest]Layer
	bundle  string
	folders []string
	private bool
}

// newShelf reads what steps that divide layers left in their facts.
func newShelf(p *Plan) (shelf, error) {
	sh := shelf{instead: map[digest.Digest]Layer{}}
	for _, s := range p.Steps {
		if s.Info.Role != RoleBundle {
			continue
		}
		sh.bundle, sh.folders = s.Result.Facts[FactBundle], lines(s.Result.Facts[FactBundleFolders])
		sh.private, _ = strconv.ParseBool(s.Result.Facts[FactBundlePrivate])
		made := map[string]Layer{}
		for _, l := range s.Result.Layers {
			made[l.DiffID.String()] = l
		}
		for _, line := range lines(s.Result.Facts[FactInstead]) {
			was, is, _ := strings.Cut(line, " ")
			l, ok := made[is]
			if !ok {
				return sh, fmt.Errorf("the recorded result of step %q names the layer %q that it has not; remove the store's cache folder and build again", s.Info.Name, is)
			}
			sh.instead[digest.Digest(was)] = l
		}
	}
	return sh, nil
}

// of are the layers that a step brings into an image.
func (sh shelf) of(s *Step) []Layer {
	if s.Info.Role == RoleBundle {
		return s.Result.Layers[:min(1, len(s.Result.Layers))]
	}
	out := make([]Layer, len(s.Result.Layers))
	for i, l := range s.Result.Layers {
		out[i] = l
		if other, ok := sh.instead[l.DiffID]; ok {
			out[i] = other
		}
	}
	return out
}

// described turns a step's layer into one of an image.
func described(s *Step, l Layer) image.Layer {
	return image.Layer{
		Descriptor: l.Descriptor, DiffID: l.DiffID,
		Role: s.Info.Role, Stage: s.Info.Name, Source: source(s.Info.Pos),
	}
}
