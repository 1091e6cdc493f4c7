package main

import (
	"context"
	"encoding/json"
	"fmt"

	"rhizome/pipeline"
	"rhizome/registry"
	"rhizome/registry/ref"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
)

// cacheFlags name the registries that results of build steps come from and go
// to.
type cacheFlags struct {
	from []string
	to   string
}

func (f *cacheFlags) addFrom(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.from, "cache-from", nil, "a repository HOST/NAME to look for results of stages in, after the store")
}

func (f *cacheFlags) addTo(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.to, "cache-to", "", "a repository HOST/NAME to give the results of all stages to")
}

// cacheRef reads the name of a repository: each result has a tag of its own.
func cacheRef(text string) (ref.Reference, error) {
	r, err := farRef(text)
	if err == nil && (r.Tag != "" || r.Digest != "") {
		err = usagef("%q names one image; a cache is a whole repository: leave the tag and digest out", text)
	}
	return r, err
}

// farCache is the store's cache with registries behind it.
type farCache struct {
	builderStore
	link  registry.Link
	repos []ref.Reference
	// fetch brings a hit's layers into the store; plan only looks.
	fetch bool
}

// newFarCache reads the --cache-from flags; without any the store's own cache
// is all.
func newFarCache(b builderStore, link registry.Link, from []string, fetch bool) (pipeline.Store, error) {
	if len(from) == 0 {
		return b, nil
	}
	f := farCache{builderStore: b, link: link, fetch: fetch}
	for _, text := range from {
		r, err := cacheRef(text)
		if err != nil {
			return nil, err
		}
		f.repos = append(f.repos, r)
	}
	return f, nil
}

// Cached looks in the store, then in each repository. One that does not answer
// is an error: building for an hour what lies there would be no favour.
func (f farCache) Cached(ctx context.Context, key digest.Digest) (pipeline.Result, bool, error) {
	r, ok, err := f.builderStore.Cached(ctx, key)
	if ok || err != nil {
		return r, ok, err
	}
	for _, repo := range f.repos {
		r, ok, err := f.far(ctx, repo, key)
		if err != nil {
			return r, false, fmt.Errorf("looking in the cache %q: %w; leave --cache-from out to build without it", repo.Repository(), err)
		}
		if ok {
			r.From = repo.Repository()
			return r, true, nil
		}
	}
	return pipeline.Result{}, false, nil
}

func (f farCache) far(ctx context.Context, repo ref.Reference, key digest.Digest) (r pipeline.Result, ok bool, err error) {
	data, ok, err := f.link.FindStage(ctx, repo, key)
	if err != nil || !ok {
		return r, false, err
	}
	if r, ok = readResult(data); !ok {
		return r, false, nil
	}
	if !f.fetch {
		return r, true, nil
	}
	if err := f.link.PullStage(ctx, repo, key); err != nil {
		return r, false, err
	}
	// Record refuses a result whose layers did not come with it.
	return r, true, f.Record(ctx, key, r)
}

// pushCache gives the results of a finished plan to a repository.
func (a *app) pushCache(ctx context.Context, link registry.Link, to ref.Reference, p *pipeline.Plan) error {
	pushed := 0
	for _, s := range p.Steps {
		data, err := json.Marshal(s.Result)
		if err != nil {
			return err
		}
		var layers []ocispec.Descriptor
		for _, l := range s.Result.Layers {
			layers = append(layers, l.Descriptor)
		}
		ok, err := link.PushStage(ctx, to, s.Key, data, layers, asGood(s))
		if err != nil {
			return fmt.Errorf("giving the result of stage %q to the cache: %w", s.Info.Name, err)
		}
		if ok {
			pushed++
		}
	}
	a.term.note("cached   %d of %d stages were new to %s", pushed, len(p.Steps), to.Repository())
	return nil
}

// asGood says whether a repository's result of a step spares as much as the step's
// own. One of another epoch does not: whoever finds it writes every layer again.
func asGood(s *pipeline.Step) func([]byte) bool {
	return func(has []byte) bool {
		r, ok := readResult(has)
		return ok && (s.Info.Whole || r.Epoch == s.Result.Epoch)
	}
}
