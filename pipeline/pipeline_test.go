package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rhizome/pipeline/tree"
	"rhizome/recipes"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// memory is a Store that keeps everything in memory.
type memory struct {
	dir string

	mu    sync.Mutex
	blobs map[digest.Digest][]byte
	cache map[digest.Digest]Result
	last  map[string]Inputs
	locks map[digest.Digest]*sync.Mutex
}

func newMemory(t *testing.T) *memory {
	return &memory{
		dir: t.TempDir(), blobs: map[digest.Digest][]byte{}, cache: map[digest.Digest]Result{},
		last: map[string]Inputs{}, locks: map[digest.Digest]*sync.Mutex{},
	}
}

func (m *memory) Cached(_ context.Context, key digest.Digest) (Result, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.cache[key]
	return r, ok, nil
}

func (m *memory) Record(_ context.Context, key digest.Digest, r Result) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cache[key] = r
	m.last[r.Recipe+" "+r.Step] = r.Inputs
	return nil
}

func (m *memory) LastInputs(_ context.Context, recipe, step string) (Inputs, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	in, ok := m.last[recipe+" "+step]
	return in, ok
}

func (m *memory) Ingest(_ context.Context, mediaType string, write func(io.Writer) error) (ocispec.Descriptor, error) {
	var b bytes.Buffer
	if err := write(&b); err != nil {
		return ocispec.Descriptor{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	d := digest.FromBytes(b.Bytes())
	m.blobs[d] = b.Bytes()
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(b.Len())}, nil
}

type memoryBlob struct{ *bytes.Reader }

func (memoryBlob) Close() error { return nil }

func (m *memory) OpenLayer(_ context.Context, l Layer) (ReaderAtCloser, ocispec.Descriptor, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return memoryBlob{bytes.NewReader(m.blobs[l.Descriptor.Digest])}, l.Descriptor, nil
}

func (m *memory) LockKey(_ context.Context, key digest.Digest) (func(), error) {
	m.mu.Lock()
	l := m.locks[key]
	if l == nil {
		l = &sync.Mutex{}
		m.locks[key] = l
	}
	m.mu.Unlock()
	l.Lock()
	return l.Unlock, nil
}

func (m *memory) WorkDir(key digest.Digest) (string, error) {
	dir := filepath.Join(m.dir, key.Encoded())
	return dir, os.MkdirAll(dir, 0o755)
}

func (m *memory) Tag(context.Context, ocispec.Descriptor, string) error { return nil }

// step is a stage that writes its parameter, and what lies below, into a file.
type step struct {
	info  Info
	param string
	fail  error
	ran   *[]string
	mu    *sync.Mutex
	facts map[string]string
}

func (s *step) Info() Info { return s.info }

func (s *step) Inputs(context.Context, Env) (Inputs, error) {
	return Inputs{"parameter": s.param}, nil
}

func (s *step) Run(ctx context.Context, env Env, below []*tree.Tree) (Output, error) {
	s.mu.Lock()
	*s.ran = append(*s.ran, s.info.Name)
	s.mu.Unlock()
	if s.fail != nil {
		return Output{}, s.fail
	}
	text := s.param
	for _, b := range below {
		for _, e := range b.Entries() {
			if e.Kind == tree.File {
				text += "+" + e.Path
			}
		}
	}
	t := tree.New()
	err := t.Add(tree.Entry{Path: s.info.Name, Kind: tree.File, Mode: 0o644, Body: tree.Text(text)})
	return Output{Tree: t, Facts: s.facts}, err
}

// workshop makes stages that share a record of who ran.
type workshop struct {
	mu  sync.Mutex
	ran []string
}

func (w *workshop) stage(name, param string, needs ...string) *step {
	return &step{info: Info{Name: name, Kind: "test", Role: "files", Needs: needs}, param: param, ran: &w.ran, mu: &w.mu}
}

func testRecipe() *recipes.Recipe {
	return &recipes.Recipe{
		Name: "web", OS: "linux", Arch: "amd64", Epoch: time.Unix(1700000000, 0),
		Network: recipes.Network{Subnet: netip.MustParsePrefix("10.0.0.0/24"), Server: netip.MustParseAddr("10.0.0.1")},
		Nodes:   []recipes.Node{{Name: "n1", MACs: []string{"02:00:00:00:00:01"}, Address: netip.MustParseAddr("10.0.0.11"), Root: "nfs"}},
	}
}

func build(t *testing.T, m *memory, stages ...Stage) (*Plan, error) {
	t.Helper()
	env := Env{Events: func(Event) {}, Jobs: 2, Epoch: time.Unix(1700000000, 0)}
	planner := Planner{Store: m, Env: env}
	p, err := planner.Plan(t.Context(), testRecipe(), stages)
	if err != nil {
		return nil, err
	}
	r := Runner{Store: m, Env: env, Parallel: 2, Now: time.Now}
	return p, r.Run(t.Context(), p)
}

func TestSecondBuildRunsNothing(t *testing.T) {
	m, w := newMemory(t), &workshop{}
	for range 2 {
		if _, err := build(t, m, w.stage("base", "a"), w.stage("kernel", "b"), w.stage("top", "c", "base")); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(w.ran)
	if got := strings.Join(w.ran, " "); got != "base kernel top" {
		t.Errorf("ran %q; each step must run once in two builds", got)
	}
}

func TestChangeRebuildsOnlyWhatDependsOnIt(t *testing.T) {
	m, w := newMemory(t), &workshop{}
	if _, err := build(t, m, w.stage("base", "a"), w.stage("kernel", "b"), w.stage("top", "c", "base")); err != nil {
		t.Fatal(err)
	}
	w.ran = nil
	if _, err := build(t, m, w.stage("base", "A"), w.stage("kernel", "b"), w.stage("top", "c", "base")); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(w.ran, " "); got != "base top" {
		t.Errorf("ran %q after base changed, want base and what needs it", got)
	}
}

func TestPlanSaysWhatChanged(t *testing.T) {
	m, w := newMemory(t), &workshop{}
	if _, err := build(t, m, w.stage("base", "a"), w.stage("top", "c", "base")); err != nil {
		t.Fatal(err)
	}
	planner := Planner{Store: m, Env: Env{Events: func(Event) {}}}
	p, err := planner.Plan(t.Context(), testRecipe(), []Stage{w.stage("base", "A"), w.stage("top", "c", "base"), w.stage("new", "x")})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range p.Steps {
		got = append(got, fmt.Sprintf("%s %v %s", s.Info.Name, s.Hit, s.Why))
	}
	want := []string{"base false parameter changed", "top false waits for base", "new false never built here"}
	if !slices.Equal(got, want) {
		t.Errorf("plan:\n got %q\nwant %q", got, want)
	}
}

func TestTwoBuildsOfOneKeyBuildItOnce(t *testing.T) {
	m, w := newMemory(t), &workshop{}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := build(t, m, w.stage("base", "a")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(w.ran) != 1 {
		t.Errorf("four builds at once ran the step %d times", len(w.ran))
	}
}

func TestFailureNamesStepAndPlaceAndStopsTheRest(t *testing.T) {
	m, w := newMemory(t), &workshop{}
	bad := w.stage("base", "a")
	bad.fail = errors.New("the compiler is missing")
	bad.info.Pos = recipes.Pos{File: "web.yaml", Line: 7, Column: 5}
	_, err := build(t, m, bad, w.stage("top", "c", "base"))
	want := `web.yaml:7:5: stage "base": building it: the compiler is missing`
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if slices.Contains(w.ran, "top") {
		t.Error("a step ran though the one below it had failed")
	}
	if len(m.cache) != 0 {
		t.Errorf("%d results were recorded of a build that failed", len(m.cache))
	}
}

func TestOrderRefusesCyclesTwinsAndStrangers(t *testing.T) {
	w := &workshop{}
	for name, stages := range map[string][]Stage{
		"needs itself":  {w.stage("a", "", "b"), w.stage("b", "", "a")},
		"same name":     {w.stage("a", ""), w.stage("a", "")},
		"does not have": {w.stage("a", "", "nowhere")},
	} {
		if _, err := order(stages); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("want an error that says %q, got %v", name, err)
		}
	}
}

func TestAssemblyIsTheSameTwiceAndPicksTheNodesLayers(t *testing.T) {
	var digests []digest.Digest
	for range 2 {
		m, w := newMemory(t), &workshop{}
		small, big := w.stage("kernel:small", "s"), w.stage("kernel:big", "b")
		small.info.Kernel, big.info.Kernel = "small", "big"
		small.facts = map[string]string{FactKernelPath: "/boot/small"}
		big.facts = map[string]string{FactKernelPath: "/boot/big"}
		other := w.stage("node:n2", "x")
		other.info.Nodes = []string{"n2"}
		p, err := build(t, m, w.stage("base", "a"), small, big, other)
		if err != nil {
			t.Fatal(err)
		}
		p.Recipe.Nodes[0].Kernel = "big"
		d, err := Assemble(t.Context(), m, p)
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, d.Digest)
		layers, facts, err := nodeLayers(p, shelf{}, &p.Recipe.Nodes[0])
		if err != nil {
			t.Fatal(err)
		}
		if len(layers) != 2 || layers[1].Stage != "kernel:big" || facts[FactKernelPath] != "/boot/big" {
			t.Errorf("node n1 got layers %v and kernel %q", layers, facts[FactKernelPath])
		}
	}
	if digests[0] != digests[1] {
		t.Errorf("two builds into two stores: %s and %s", digests[0], digests[1])
	}
}

func TestNodeWithoutAKernelChoiceIsAsked(t *testing.T) {
	m, w := newMemory(t), &workshop{}
	a, b := w.stage("kernel:a", "s"), w.stage("kernel:b", "b")
	a.info.Kernel, b.info.Kernel = "a", "b"
	p, err := build(t, m, a, b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Assemble(t.Context(), m, p); err == nil || !strings.Contains(err.Error(), "several kernels (a, b)") {
		t.Errorf("want an error that lists the kernels, got %v", err)
	}
}

// A layer's files have the recipe's epoch as their time. What was built for
// another date is no hit, or the digest would depend on what the store has; nor
// is it built again.
func TestAnotherEpochGivesTheSameImageInAFullStoreAsInAnEmptyOne(t *testing.T) {
	w := &workshop{}
	dated := func(m *memory, epoch int64) digest.Digest {
		r := testRecipe()
		r.Epoch = time.Unix(epoch, 0)
		env := Env{Events: func(Event) {}, Jobs: 1, Epoch: r.Epoch}
		p, err := (&Planner{Store: m, Env: env}).Plan(t.Context(), r, []Stage{w.stage("base", "a"), w.stage("kernel", "b")})
		if err == nil {
			err = (&Runner{Store: m, Env: env, Parallel: 1, Now: time.Now}).Run(t.Context(), p)
		}
		if err != nil {
			t.Fatal(err)
		}
		d, err := Assemble(t.Context(), m, p)
		if err != nil {
			t.Fatal(err)
		}
		return d.Digest
	}
	full := newMemory(t)
	first := dated(full, 1700000000)
	second := dated(full, 1800000000)
	if back := dated(full, 1700000000); back != first {
		t.Errorf("the first date gives %s, and then %s", first, back)
	}
	if len(w.ran) != 2 {
		t.Errorf("%d steps ran for a change of dates: %q", len(w.ran), w.ran)
	}
	if want := dated(newMemory(t), 1800000000); second != want {
		t.Errorf("the digest is %s where an older version was built before, and %s in an empty store", second, want)
	}
}

// edited is a stage whose file somebody saves while it is built.
type edited struct{ *step }

func (e edited) Run(ctx context.Context, env Env, below []*tree.Tree) (Output, error) {
	e.param = "saved meanwhile"
	return e.step.Run(ctx, env, below)
}

// What was read is not what the key says: the former text would find it for ever.
func TestWhatChangesWhileItIsBuiltIsNotRecorded(t *testing.T) {
	m, w := newMemory(t), &workshop{}
	_, err := build(t, m, edited{w.stage("files", "as planned")})
	if err == nil || !strings.Contains(err.Error(), `stage "files": building it: what it depends on changed meanwhile (parameter changed)`) {
		t.Errorf("error %v", err)
	}
	if len(m.cache) != 0 {
		t.Error("it was recorded")
	}
}
