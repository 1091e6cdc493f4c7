// Package pipeline turns a recipe into a plan of steps and runs the plan:
// each step's output is found by the digest of its inputs or is built, once.
//
// The package knows no stage kind, no registry and no disk layout. Stages are
// handed in (package stages lists them), and so is the store.
package pipeline

import (
	"context"
	"io"
	"log/slog"
	"time"

	"rhizome/pipeline/tree"
	"rhizome/recipes"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Stage is one step of a build: it says what its output depends on, and makes
// that output. An implementation holds its parameters, taken from the recipe.
type Stage interface {
	// Info names the step and says what it needs.
	Info() Info
	// Inputs returns everything that the output depends on beside the layers
	// in Info().Needs: parameters, content digests, toolchain identity. It
	// changes nothing and is quick, since plan calls it.
	Inputs(ctx context.Context, env Env) (Inputs, error)
	// Run makes the output. It may be stopped through ctx at any moment and
	// must leave nothing behind outside env.Work.
	Run(ctx context.Context, env Env, below []*tree.Tree) (Output, error)
}

// Info is what a plan shows of a step.
type Info struct {
	// Name is unique in a plan: "debian", "kernel:default", "node:n1".
	Name string
	// Kind is the recipe's word: "debian", "kernel", "files", "nodeconfig".
	Kind string
	// Version is raised whenever the stage's code changes its output.
	Version int
	// Role becomes the layer's role in the image: "base", "kernel", "packages",
	// "files", "precache", "node".
	Role string
	// Kernel is the kernel's name when Role is "kernel"; nodes choose by it.
	Kernel string
	// Nodes limits the layer to these nodes; nil means every node.
	Nodes []string
	// Needs names earlier steps whose trees Run gets, in that order.
	Needs []string
	// Whole keeps the step's layers as they are, never as deltas on a parent:
	// they are somebody else's.
	Whole bool
	// Pos is the place in the recipe that asked for the step.
	Pos recipes.Pos
}

// Inputs is what a step's key is made of. Values must not hold dates, absolute
// paths or numbers of jobs; a value that is a whole file is its digest.
type Inputs map[string]string

// Env is what a step may use of the machine.
type Env struct {
	// Work is a folder that is the step's alone and is kept, by key, until
	// the step succeeds.
	Work string
	// Jobs is how many processes the step may run at once.
	Jobs int
	// Epoch is every file's modification time.
	Epoch time.Time
	// Cache is a folder for downloads, shared by all builds of this user.
	Cache string
	// Programs are folders in which programs that go into roots are looked
	// for, in their order.
	Programs []string
	// Lock is the recipe's lock file, or nil where there is none.
	Lock *recipes.Lock
	// Events takes progress; never nil in a stage.
	Events func(Event)
	Log    *slog.Logger
	// Pull fetches an image's manifest and layers; nil where nothing pulls.
	Pull Puller
	// Read reads layers of the store into one tree, lowest first; its bodies
	// can be read until done is called. The runner sets it.
	Read func(ctx context.Context, layers []Layer) (t *tree.Tree, done func(), err error)
	// Restore makes a layer of the parent whole again whose hot files lie in a
	// bundle (Divider); nil where no parent has one.
	Restore func(layer, bundle *tree.Tree) (*tree.Tree, error)
	// Parent is the earlier version that changed layers become deltas on; nil
	// for whole layers.
	Parent *Parent
}

// Puller brings an image that somebody else made into the store. It knows the
// system and architecture to choose where a reference names several images.
type Puller interface {
	// Pull brings the image in, whole, and says which layers it has, the
	// lowest first.
	Pull(ctx context.Context, ref string) (manifest ocispec.Descriptor, layers []ocispec.Descriptor, diffIDs []digest.Digest, err error)
	// Resolve says what a tag means now.
	Resolve(ctx context.Context, ref string) (digest.Digest, error)
}

// Output is what a step made. Either Tree is set, which becomes one layer, or
// Layers, which are reused as they are.
type Output struct {
	Tree   *tree.Tree
	Layers []Layer
	// Facts are what later steps and the assembly want to know: the kernel's
	// version under "kernel.version", its paths under "kernel.path" and
	// "initrd.path", boot programs under "boot.bios" and "boot.uefi".
	Facts map[string]string
}

// Layer is a layer in the store.
type Layer struct {
	Descriptor ocispec.Descriptor `json:"descriptor"`
	DiffID     digest.Digest      `json:"diffId"`
}

// Store is what the pipeline needs of the content store.
type Store interface {
	// Cached returns the recorded result of a key, or ok false.
	Cached(ctx context.Context, key digest.Digest) (r Result, ok bool, err error)
	// Record keeps a result under its key.
	Record(ctx context.Context, key digest.Digest, r Result) error
	// LastInputs returns the inputs that a step of a recipe had when it was
	// last recorded, so that plan can say what changed.
	LastInputs(ctx context.Context, recipe, step string) (Inputs, bool)
	// Ingest stores a blob whose digest is known only when write returns.
	// Nothing is visible before that, and nothing stays if it fails.
	Ingest(ctx context.Context, mediaType string, write func(io.Writer) error) (ocispec.Descriptor, error)
	// OpenLayer opens a layer for reading at any place, with the descriptor of
	// the bytes that are read: a layer that others made is read through its
	// seekable copy.
	OpenLayer(ctx context.Context, l Layer) (ReaderAtCloser, ocispec.Descriptor, error)
	// LockKey waits until nobody else builds this key. Whoever waited finds
	// the result in the cache.
	LockKey(ctx context.Context, key digest.Digest) (unlock func(), err error)
	// WorkDir is the folder kept for a key until its step succeeds.
	WorkDir(key digest.Digest) (string, error)
	// Tag names an index.
	Tag(ctx context.Context, d ocispec.Descriptor, ref string) error
}

// ReaderAtCloser is a blob opened for reading at any place.
type ReaderAtCloser interface {
	io.Reader
	io.ReaderAt
	io.Closer
}

// Result is what the cache keeps of a step.
type Result struct {
	Recipe string            `json:"recipe"`
	Step   string            `json:"step"`
	Inputs Inputs            `json:"inputs"`
	Layers []Layer           `json:"layers"`
	Facts  map[string]string `json:"facts,omitempty"`
	// Epoch is the time of all files in Layers, in seconds since 1970.
	Epoch int64 `json:"epoch,omitempty"`
	// From says where the result was found, when not in the store.
	From string `json:"-"`
}
