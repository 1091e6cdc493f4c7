package stages

import (
	"context"
	"errors"
	"fmt"

	"rhizome/pipeline"
	"rhizome/pipeline/tree"
	"rhizome/recipes"
	"rhizome/stages/oci"
)

// OCI is the step that takes its layers from an image that somebody else made.
type OCI struct {
	ref          string
	system, arch string
	pos          recipes.Pos
}

// NewOCI makes the base step of a recipe whose source is an image.
func NewOCI(r *recipes.Recipe) OCI {
	return OCI{ref: r.Source.OCI.Ref, system: r.OS, arch: r.Arch, pos: r.Source.Pos}
}

// Info names the step.
func (o OCI) Info() pipeline.Info {
	return pipeline.Info{Name: "oci", Kind: "oci", Version: oci.Version, Role: "base", Whole: true, Pos: o.pos}
}

// Inputs are the image's digest and the platform chosen of it; where it comes
// from is none.
func (o OCI) Inputs(_ context.Context, env pipeline.Env) (pipeline.Inputs, error) {
	pinned, err := oci.Pinned(o.ref, env.Lock)
	if err != nil {
		return nil, err
	}
	return pipeline.Inputs{"image": oci.Digest(pinned), "platform": o.system + "/" + o.arch}, nil
}

var errNoPuller = errors.New("nothing here can pull images")

// Run brings the image in and hands its layers on as they are.
func (o OCI) Run(ctx context.Context, env pipeline.Env, _ []*tree.Tree) (pipeline.Output, error) {
	if env.Pull == nil {
		return pipeline.Output{}, errNoPuller
	}
	pinned, err := oci.Pinned(o.ref, env.Lock)
	if err != nil {
		return pipeline.Output{}, err
	}
	_, descriptors, diffIDs, err := env.Pull.Pull(ctx, pinned)
	if err != nil {
		return pipeline.Output{}, err
	}
	if len(descriptors) != len(diffIDs) {
		return pipeline.Output{}, fmt.Errorf("the image %q has %d layers and its config names %d", pinned, len(descriptors), len(diffIDs))
	}
	var layers []pipeline.Layer
	for i, d := range descriptors {
		layers = append(layers, pipeline.Layer{Descriptor: d, DiffID: diffIDs[i]})
	}
	facts, err := o.facts(ctx, env, layers)
	return pipeline.Output{Layers: layers, Facts: facts}, err
}

func (o OCI) facts(ctx context.Context, env pipeline.Env, layers []pipeline.Layer) (map[string]string, error) {
	t, done, err := env.Read(ctx, layers)
	if err != nil {
		return nil, err
	}
	defer done()
	return oci.Facts(t, o.system), nil
}

// Lock writes down what a tag means now. A reference with a digest has nothing
// to lock.
func (o OCI) Lock(ctx context.Context, env pipeline.Env, into *recipes.Lock) error {
	if oci.Digest(o.ref) != "" {
		return nil
	}
	if env.Pull == nil {
		return errNoPuller
	}
	d, err := env.Pull.Resolve(ctx, o.ref)
	if err != nil {
		return fmt.Errorf("%s: locking the image %q: %w", o.pos, o.ref, err)
	}
	if into.Images == nil {
		into.Images = map[string]string{}
	}
	into.Images[o.ref] = d.String()
	return nil
}
