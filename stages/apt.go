package stages

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"sync"

	"rhizome/pipeline"
	"rhizome/recipes"
	"rhizome/stages/debian"
	"rhizome/stages/debian/aptlock"
	"rhizome/stages/debian/bootstrap"
)

// Locker is a stage that takes packages from an archive. "rhizome lock" calls
// Lock on each, to pin what the archive has today.
type Locker interface {
	pipeline.Stage
	// Lock resolves the stage's packages anew and puts them into the lock.
	Lock(ctx context.Context, env pipeline.Env, into *recipes.Lock) error
}

// DebianArchive is what the stages of one recipe share that take packages from
// Debian: the mirror, its keyring, and which of its indexes were read. All
// stages of one run must be made of one DebianArchive.
type DebianArchive struct {
	recipe *recipes.Recipe
	seen   aptlock.Seen
	// ReadSystem says how this machine's apt is set up; a test hands in its own.
	ReadSystem func(context.Context) (aptlock.System, error)
}

// NewDebianArchive takes mirror, suite and keyring out of a recipe.
func NewDebianArchive(r *recipes.Recipe) *DebianArchive {
	return &DebianArchive{recipe: r, ReadSystem: aptlock.ReadSystem}
}

// fallbackSuite is where boot programs and kernels come from when the
// recipe's base is no Debian suite.
const fallbackSuite = "bookworm"

// source is the recipe's Debian source, or what stands for it.
func (a *DebianArchive) source() recipes.Debian {
	d := recipes.Debian{Suite: fallbackSuite}
	if a.recipe.Source.Debian != nil {
		d = *a.recipe.Source.Debian
	}
	if len(d.Components) == 0 {
		d.Components = []string{"main"}
	}
	return d
}

// arch is the architecture as Debian names it, which for those that recipes
// know is as OCI names it.
func (a *DebianArchive) arch() string { return a.recipe.Arch }

// apt is this machine's apt, set up for the recipe's mirror.
func (a *DebianArchive) apt(ctx context.Context, env pipeline.Env, line func(string)) (*aptlock.Apt, error) {
	if env.Cache == "" {
		return nil, fmt.Errorf("there is no folder to keep packages in; set HOME or XDG_CACHE_HOME")
	}
	sys, err := a.ReadSystem(ctx)
	if err != nil {
		return nil, err
	}
	d := a.source()
	keyring := d.Keyring
	if keyring != "" && !filepath.IsAbs(keyring) {
		if keyring, err = filepath.Abs(filepath.Join(a.recipe.Dir, keyring)); err != nil {
			return nil, fmt.Errorf("finding the keyring %q: %w", d.Keyring, err)
		}
	}
	return &aptlock.Apt{Cache: env.Cache, System: sys, Mirror: d.Mirror, Keyring: keyring, Line: line, Seen: &a.seen}, nil
}

// aptStage is what all stages have in common whose input is a set of packages.
type aptStage struct {
	archive *DebianArchive
	info    pipeline.Info
	request aptlock.Request
	// more are inputs beside the packages.
	more pipeline.Inputs
	// installs says that mmdebstrap is involved, and so part of the key.
	installs bool
	// find finds the set that the archive has for the stage now; nil is the
	// request's own.
	find func(context.Context, pipeline.Env) (recipes.PackageSet, error)

	mu  sync.Mutex
	set *recipes.PackageSet
}

// Info names the step.
func (s *aptStage) Info() pipeline.Info { return s.info }

// packages is the set that the lock names or, without a lock, what the archive
// has now. It is decided once in a run, so that Run builds what Inputs named.
func (s *aptStage) packages(ctx context.Context, env pipeline.Env) (recipes.PackageSet, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.set != nil {
		return *s.set, nil
	}
	var set recipes.PackageSet
	var err error
	if env.Lock != nil {
		set, err = aptlock.Obey(env.Lock, s.info.Name, s.request)
	} else {
		set, err = s.now(ctx, env)
	}
	if err == nil {
		s.set = &set
	}
	return set, err
}

// now is what the archive has now.
func (s *aptStage) now(ctx context.Context, env pipeline.Env) (recipes.PackageSet, error) {
	if s.find != nil {
		return s.find(ctx, env)
	}
	return s.resolve(ctx, env)
}

// resolve asks the archive for the request.
func (s *aptStage) resolve(ctx context.Context, env pipeline.Env) (recipes.PackageSet, error) {
	apt, err := s.archive.apt(ctx, env, nil)
	if err != nil {
		return recipes.PackageSet{}, err
	}
	return apt.Resolve(ctx, s.request)
}

// Lock pins what the archive has today.
func (s *aptStage) Lock(ctx context.Context, env pipeline.Env, into *recipes.Lock) error {
	set, err := s.now(ctx, env)
	if err != nil {
		return fmt.Errorf("%s: locking %q: %w", s.info.Pos, s.info.Name, err)
	}
	if into.Sets == nil {
		into.Sets = map[string]recipes.PackageSet{}
	}
	into.Sets[s.info.Name] = set
	return nil
}

// Inputs are the packages to the byte, what was asked for, and the programs
// that install them.
func (s *aptStage) Inputs(ctx context.Context, env pipeline.Env) (pipeline.Inputs, error) {
	set, err := s.packages(ctx, env)
	if err != nil {
		return nil, err
	}
	in := pipeline.Inputs{"packages": aptlock.SetDigest(set), "request": s.request.Digest()}
	maps.Copy(in, s.more)
	if !s.installs {
		return in, nil
	}
	versions, err := bootstrap.Versions(ctx)
	if err != nil {
		return nil, err
	}
	maps.Copy(in, versions)
	// Maintainer scripts see it as SOURCE_DATE_EPOCH.
	in["epoch"] = s.archive.recipe.Epoch.UTC().Format("2006-01-02T15:04:05Z")
	return in, nil
}

// env is what the kinds get of the machine.
func (s *aptStage) env(ctx context.Context, env pipeline.Env) (debian.Env, error) {
	line := func(l string) { env.Events(pipeline.Event{Kind: pipeline.StepLog, Message: l}) }
	apt, err := s.archive.apt(ctx, env, line)
	return debian.Env{Work: env.Work, LogFile: pipeline.LogFile(env.Work), Line: line, Apt: apt}, err
}
