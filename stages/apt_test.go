package stages

import (
	"context"
	"maps"
	"strings"
	"testing"
	"time"

	"rhizome/pipeline"
	"rhizome/recipes"
	"rhizome/stages/debian/aptlock"
	"rhizome/stages/debian/archivetest"
)

func lockRecipe(a *archivetest.Archive, packages ...string) *recipes.Recipe {
	r := &recipes.Recipe{Name: "t", OS: "linux", Arch: "amd64", Epoch: time.Unix(1793491200, 0), Dir: "/nowhere"}
	r.Source.Debian = &recipes.Debian{Suite: "tiny", Variant: "custom", Packages: packages, Mirror: a.URL, Keyring: a.Keyring,
		Pos: recipes.Pos{File: "t.yaml", Line: 7, Column: 3}}
	return r
}

// debianInputs are those of a new run's base step.
func debianInputs(t *testing.T, r *recipes.Recipe, env pipeline.Env) (pipeline.Inputs, error) {
	t.Helper()
	archive := NewDebianArchive(r)
	archive.ReadSystem = func(context.Context) (aptlock.System, error) { return aptlock.System{}, nil }
	return archive.Debian().Inputs(t.Context(), env)
}

// Without a lock a moved mirror is a miss; with one the key stays, until the
// recipe asks for something else, which is an error and not a silent answer.
func TestTheKeyFollowsTheLockOrElseTheMirror(t *testing.T) {
	a := archivetest.New(t, archivetest.Package{Name: "app", Version: "1"}, archivetest.Package{Name: "lib", Version: "1"})
	r, env := lockRecipe(a, "app"), pipeline.Env{Cache: t.TempDir(), Events: func(pipeline.Event) {}}
	unlocked, err := debianInputs(t, r, env)
	if err != nil {
		t.Skipf("skipped: %v", err)
	}
	lock := &recipes.Lock{Version: 1}
	if err := NewDebianArchive(r).Debian().Lock(t.Context(), env, lock); err != nil {
		t.Fatal(err)
	}
	a.Publish(t, archivetest.Package{Name: "app", Version: "2"}, archivetest.Package{Name: "lib", Version: "1"})
	moved, err := debianInputs(t, r, env)
	if err != nil || maps.Equal(unlocked, moved) {
		t.Errorf("the mirror moved, the key did not: %v, %v", moved, err)
	}
	env.Lock = lock
	a.Asked("/")
	locked, err := debianInputs(t, r, env)
	if err != nil || !maps.Equal(unlocked, locked) {
		t.Errorf("one set, two keys: %v and %v, %v", unlocked, locked, err)
	}
	if asked := a.Asked("/"); len(asked) > 0 {
		t.Errorf("with a lock, plan asked the mirror for %v", asked)
	}
	if _, err := debianInputs(t, lockRecipe(a, "app", "lib"), env); err == nil || !strings.Contains(err.Error(), "the lock file is stale") {
		t.Errorf("a stale lock gave %v", err)
	}
}

// A set that was decided for the key is the set that is built, even when the
// mirror moves between the two.
func TestAStepBuildsWhatItsKeyNames(t *testing.T) {
	a := archivetest.New(t, archivetest.Package{Name: "app", Version: "1"})
	env := pipeline.Env{Cache: t.TempDir(), Events: func(pipeline.Event) {}}
	s := NewDebianArchive(lockRecipe(a, "app")).Debian()
	first, err := s.packages(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	a.Publish(t, archivetest.Package{Name: "app", Version: "2"})
	second, err := s.packages(t.Context(), env)
	if err != nil || aptlock.SetDigest(first) != aptlock.SetDigest(second) {
		t.Errorf("got %v and %v, %v", first, second, err)
	}
}

func TestLockNamesTheRecipesLine(t *testing.T) {
	a := archivetest.New(t, archivetest.Package{Name: "app", Version: "1"})
	env := pipeline.Env{Cache: t.TempDir(), Events: func(pipeline.Event) {}}
	err := NewDebianArchive(lockRecipe(a, "nosuch")).Debian().Lock(t.Context(), env, &recipes.Lock{})
	if err == nil || !strings.HasPrefix(err.Error(), `t.yaml:7:3: locking "debian": `) || !strings.Contains(err.Error(), `there is no package "nosuch"`) {
		t.Errorf("got %v", err)
	}
}

func TestDebiansStepsAreNamedForTheLockFile(t *testing.T) {
	r := lockRecipe(&archivetest.Archive{}, "app")
	archive := NewDebianArchive(r)
	m, err := archive.Media(recipes.Stage{Media: &recipes.Media{IPXE: true}}, "media")
	if err != nil {
		t.Fatal(err)
	}
	for want, s := range map[string]Locker{
		"debian": archive.Debian(), "media": m,
		"kernel:default": archive.Kernel(recipes.Stage{Kernel: &recipes.Kernel{}}),
		"kernel:cloud":   archive.Kernel(recipes.Stage{Kernel: &recipes.Kernel{Name: "cloud"}}),
	} {
		if i := s.Info(); i.Name != want || i.Version == 0 || i.Role == "" {
			t.Errorf("got %+v, want the name %q", i, want)
		}
	}
}
