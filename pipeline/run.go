package pipeline

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"rhizome/pipeline/layer"
	"rhizome/pipeline/tree"
	"rhizome/registry/layerfmt"
)

// Runner builds what a plan lacks.
type Runner struct {
	Store Store
	Env   Env
	// Parallel is how many steps may run side by side; at least one does.
	Parallel int
	// Now is the clock that events are stamped with.
	Now func() time.Time
}

// Run builds every step of the plan that the cache lacks; steps that do not
// need each other run side by side. When it returns without error, every step
// of the plan is a hit. The first failure stops the rest.
func (r *Runner) Run(ctx context.Context, p *Plan) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slots := make(chan struct{}, max(r.Parallel, 1))
	done := make(map[*Step]chan struct{}, len(p.Steps))
	for _, s := range p.Steps {
		done[s] = make(chan struct{})
	}
	var wg sync.WaitGroup
	for _, s := range p.Steps {
		wg.Go(func() {
			defer close(done[s])
			if err := r.wait(ctx, s, done); err != nil {
				return
			}
			if err := r.step(ctx, p.Recipe.Name, s, slots); err != nil {
				r.send(StepFailed, s, err.Error())
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// wait returns when all that a step needs is built, or the run has stopped.
func (r *Runner) wait(ctx context.Context, s *Step, done map[*Step]chan struct{}) error {
	for _, n := range s.needs {
		select {
		case <-done[n]:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// step makes one step a hit: from the cache, or by building it.
func (r *Runner) step(ctx context.Context, recipe string, s *Step, slots chan struct{}) error {
	planner := Planner{Store: r.Store, Env: r.Env}
	if !s.Hit {
		if err := planner.look(ctx, recipe, s); err != nil {
			return err
		}
	}
	if s.Hit {
		r.send(StepHit, s, s.Why)
		return nil
	}
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	unlock, err := r.Store.LockKey(ctx, s.Key)
	if err != nil {
		return stepError(s.Info, "waiting for another build of the same step", err)
	}
	defer unlock()
	if err := planner.look(ctx, recipe, s); err != nil || s.Hit {
		return err
	}
	return r.build(ctx, recipe, s)
}

// build runs the stage in its kept folder, stores what it made and records it.
func (r *Runner) build(ctx context.Context, recipe string, s *Step) error {
	work, err := r.Store.WorkDir(s.Key)
	if err != nil {
		return stepError(s.Info, "making its work folder", err)
	}
	below, closeBelow, err := r.open(ctx, s)
	if err != nil {
		return stepError(s.Info, "reading the layers below it", err)
	}
	defer closeBelow()
	r.send(StepStarted, s, s.Why)
	layers, facts, err := r.make(ctx, s, below, work)
	if err == nil {
		err = r.steady(ctx, s)
	}
	if err != nil {
		return err
	}
	s.Result = Result{Recipe: recipe, Step: s.Info.Name, Inputs: s.Inputs, Layers: layers, Facts: facts, Epoch: r.Env.Epoch.Unix()}
	if err := r.Store.Record(ctx, s.Key, s.Result); err != nil {
		return stepError(s.Info, "recording its result", err)
	}
	s.Hit = true
	r.send(StepDone, s, fmt.Sprintf("%d layer(s), %d bytes", len(layers), size(layers)))
	if err := os.RemoveAll(work); err != nil && r.Env.Log != nil {
		r.Env.Log.Warn("a work folder stays behind", "folder", work, "error", err)
	}
	return nil
}

// steady makes sure that what a step depends on is what its key says to the end:
// a file of the recipe that was saved during the build would be found under the
// digest of the former one for ever.
func (r *Runner) steady(ctx context.Context, s *Step) error {
	env := r.Env
	env.Log = nil // what there is to warn of was said
	in, err := s.stage.Inputs(ctx, env)
	if err != nil {
		return stepError(s.Info, "looking again at what it depends on", err)
	}
	if in = r.Env.Parent.inputs(s, in); !maps.Equal(in, s.Inputs) {
		return stepError(s.Info, "building it", fmt.Errorf("what it depends on changed meanwhile (%s): nothing was kept; build again", whyMiss(in, s.Inputs, true)))
	}
	return nil
}

// make runs the stage and stores its layers.
func (r *Runner) make(ctx context.Context, s *Step, below []*tree.Tree, work string) ([]Layer, map[string]string, error) {
	if d, ok := s.stage.(Divider); ok {
		layers, facts, err := r.divide(ctx, s, d, work)
		if err != nil {
			err = stepError(s.Info, "dividing the layers", err)
		}
		return layers, facts, err
	}
	// What was found and is no hit has other dates. A delta is made anew: what
	// lies under it keeps the times of the parent.
	if len(s.Result.Layers) == 1 && r.Env.Parent.layers(s.Info) == nil {
		layers, err := r.redate(ctx, s.Result.Layers)
		if err != nil {
			err = stepError(s.Info, "giving its files another date", err)
		}
		return layers, s.Result.Facts, err
	}
	out, err := s.stage.Run(ctx, r.stepEnv(work, s), below)
	if err != nil {
		return nil, nil, stepError(s.Info, "building it", err)
	}
	layers, err := r.keep(ctx, s, out, below)
	if err != nil {
		return nil, nil, stepError(s.Info, "storing its layer", err)
	}
	return layers, out.Facts, nil
}

func (r *Runner) stepEnv(work string, s *Step) Env {
	env := r.Env
	env.Work, env.Read = work, r.read
	env.Events = func(e Event) {
		e.Step = s.Info.Name
		e.Time = r.Now()
		r.Env.Events(e)
	}
	return env
}

// keep turns a stage's output into layers in the store.
func (r *Runner) keep(ctx context.Context, s *Step, out Output, below []*tree.Tree) ([]Layer, error) {
	if out.Tree == nil {
		return out.Layers, nil
	}
	if err := out.Tree.Normalize(); err != nil {
		return nil, err
	}
	if was := r.Env.Parent.layers(s.Info); was != nil {
		return r.keepDelta(ctx, s, out.Tree, below, was)
	}
	l, err := r.write(ctx, out.Tree)
	return []Layer{l}, err
}

// write stores a tree as a layer.
func (r *Runner) write(ctx context.Context, t *tree.Tree) (Layer, error) {
	return r.ingest(ctx, func(w io.Writer) (layerfmt.Summary, error) {
		return layer.Write(w, t, r.Env.Epoch, r.Env.Jobs)
	})
}

// redate writes a layer again, with the recipe's epoch for every time.
func (r *Runner) redate(ctx context.Context, was []Layer) ([]Layer, error) {
	t, done, err := r.read(ctx, was)
	if err != nil {
		return nil, err
	}
	defer done()
	l, err := r.write(ctx, t)
	return []Layer{l}, err
}

// ingest stores what write writes.
func (r *Runner) ingest(ctx context.Context, write func(io.Writer) (layerfmt.Summary, error)) (Layer, error) {
	var sum layerfmt.Summary
	d, err := r.Store.Ingest(ctx, layerfmt.MediaType, func(w io.Writer) error {
		var err error
		sum, err = write(ctxWriter{ctx, w})
		return err
	})
	if err != nil {
		return Layer{}, err
	}
	d.Annotations = sum.Annotations()
	return Layer{Descriptor: d, DiffID: sum.DiffID}, nil
}

// ctxWriter stops a long write when the build is interrupted.
type ctxWriter struct {
	ctx context.Context
	w   io.Writer
}

func (c ctxWriter) Write(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.w.Write(p)
}

// open reads the trees of the steps that this one needs, each with what it
// hides of the layers below it.
func (r *Runner) open(ctx context.Context, s *Step) ([]*tree.Tree, func(), error) {
	var all closers
	var trees []*tree.Tree
	for _, n := range s.needs {
		t, done, err := r.read(ctx, n.Result.Layers)
		if err != nil {
			all.close()
			return nil, nil, err
		}
		all = append(all, done)
		trees = append(trees, t)
	}
	return trees, all.close, nil
}

type closers []func()

func (c closers) close() {
	for _, f := range c {
		f()
	}
}

// read reads layers into one, the lowest first.
func (r *Runner) read(ctx context.Context, layers []Layer) (*tree.Tree, func(), error) {
	var all closers
	t := tree.New()
	for _, l := range layers {
		blob, d, err := r.Store.OpenLayer(ctx, l)
		if err != nil {
			all.close()
			return nil, nil, err
		}
		all = append(all, func() { blob.Close() })
		upper, err := layer.ReadTree(blob, d.Size, d.Annotations)
		if err == nil {
			err = t.Stack(upper)
		}
		if err != nil {
			all.close()
			return nil, nil, fmt.Errorf("layer %s: %w", l.Descriptor.Digest, err)
		}
	}
	return t, all.close, nil
}

func (r *Runner) send(k EventKind, s *Step, message string) {
	r.Env.Events(Event{Time: r.Now(), Kind: k, Step: s.Info.Name, Message: message})
}

func size(layers []Layer) int64 {
	var n int64
	for _, l := range layers {
		n += l.Descriptor.Size
	}
	return n
}

// LogFile is where a step that failed keeps its tool's whole output.
func LogFile(work string) string { return filepath.Join(work, "log") }
