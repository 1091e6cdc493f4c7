package pipeline

import (
	"context"
	"fmt"

	"rhizome/recipes"

	"github.com/opencontainers/go-digest"
)

// Plan is a recipe's steps in an order that can be built, each with what the
// cache knows of it.
type Plan struct {
	Recipe *recipes.Recipe
	Steps  []*Step
}

// Step is one stage of a plan.
type Step struct {
	Info   Info
	Inputs Inputs
	// Key is empty while a step that this one needs is itself not built.
	Key digest.Digest
	// Hit says that Result holds; Why says why not, in a few words.
	Hit    bool
	Why    string
	Result Result

	stage Stage
	needs []*Step
	// lowest says that no step's layers lie below this one's.
	lowest bool
}

// Planner makes plans. Its fields are handed in.
type Planner struct {
	Store Store
	Env   Env
}

// Plan orders the stages, asks each for its inputs and looks every key up in
// the cache. It builds nothing.
func (p *Planner) Plan(ctx context.Context, r *recipes.Recipe, stages []Stage) (*Plan, error) {
	steps, err := order(stages)
	if err != nil {
		return nil, err
	}
	for i, s := range steps {
		s.lowest = i == 0
		if err := p.look(ctx, r.Name, s); err != nil {
			return nil, err
		}
	}
	return &Plan{Recipe: r, Steps: steps}, nil
}

// look fills in a step's inputs, key and cached result.
func (p *Planner) look(ctx context.Context, recipe string, s *Step) error {
	if s.Inputs == nil {
		in, err := s.stage.Inputs(ctx, p.Env)
		if err != nil {
			return stepError(s.Info, "finding out what it depends on", err)
		}
		s.Inputs = p.Env.Parent.inputs(s, in)
	}
	for _, n := range s.needs {
		if !n.Hit {
			s.Why = "waits for " + n.Info.Name
			return nil
		}
	}
	s.Key = stepKey(s.Info, s.Inputs, s.below())
	r, ok, err := p.Store.Cached(ctx, s.Key)
	if err != nil {
		return stepError(s.Info, "looking it up in the cache", err)
	}
	s.Hit, s.Result, s.Why = ok && s.dated(r, p.Env), r, "found in the cache"
	switch {
	case !ok:
		before, known := p.Store.LastInputs(ctx, recipe, s.Info.Name)
		s.Why = whyMiss(s.Inputs, before, known)
	case !s.Hit:
		s.Why = "its files have another epoch"
	case r.From != "":
		s.Why = "found in " + r.From
	}
	return nil
}

// dated says that a result's files have the recipe's epoch for their time. It is
// no part of the key: what took an hour to compile is the same on another day,
// and gets a new date alone (redate). Layers of somebody else's keep theirs.
func (s *Step) dated(r Result, env Env) bool {
	return s.Info.Whole || r.Epoch == env.Epoch.Unix()
}

func (s *Step) below() []Result {
	out := make([]Result, len(s.needs))
	for i, n := range s.needs {
		out[i] = n.Result
	}
	return out
}

// order sorts stages so that each comes after those it needs, and otherwise
// keeps the recipe's order, which is also the order of the layers.
func order(stages []Stage) ([]*Step, error) {
	byName := map[string]*Step{}
	var steps []*Step
	for _, st := range stages {
		info := st.Info()
		if byName[info.Name] != nil {
			return nil, stepError(info, "planning it", fmt.Errorf("another stage has the same name; give one of them a name of its own"))
		}
		s := &Step{Info: info, stage: st}
		byName[info.Name] = s
		steps = append(steps, s)
	}
	seen := map[*Step]int{}
	var out []*Step
	for _, s := range steps {
		if err := visit(s, byName, seen, &out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

const (
	visiting = 1
	visited  = 2
)

func visit(s *Step, byName map[string]*Step, seen map[*Step]int, out *[]*Step) error {
	switch seen[s] {
	case visited:
		return nil
	case visiting:
		return stepError(s.Info, "planning it", fmt.Errorf("it needs itself, through another stage"))
	}
	seen[s] = visiting
	for _, name := range s.Info.Needs {
		n := byName[name]
		if n == nil {
			return stepError(s.Info, "planning it", fmt.Errorf("it needs the stage %q, which the recipe does not have", name))
		}
		if err := visit(n, byName, seen, out); err != nil {
			return err
		}
		s.needs = append(s.needs, n)
	}
	seen[s] = visited
	*out = append(*out, s)
	return nil
}

// StepError says which step failed, doing what.
type StepError struct {
	Step string
	Pos  recipes.Pos
	Did  string
	Err  error
}

func (e *StepError) Error() string {
	at := ""
	if e.Pos.Line > 0 {
		at = fmt.Sprintf("%s:%d:%d: ", e.Pos.File, e.Pos.Line, e.Pos.Column)
	}
	return fmt.Sprintf("%sstage %q: %s: %v", at, e.Step, e.Did, e.Err)
}

func (e *StepError) Unwrap() error { return e.Err }

func stepError(info Info, did string, err error) error {
	return &StepError{Step: info.Name, Pos: info.Pos, Did: did, Err: err}
}
