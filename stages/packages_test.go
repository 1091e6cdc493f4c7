package stages

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rhizome/pipeline"
	"rhizome/pipeline/layer"
	"rhizome/pipeline/tree"
	"rhizome/recipes"
	"rhizome/stages/debian/aptlock"
	"rhizome/stages/debian/archivetest"
	"rhizome/stages/debian/bootstrap"
)

func withPackages(r *recipes.Recipe, a *DebianArchive, names ...string) (*AptPackages, *Debian, error) {
	base := a.Debian()
	s, err := a.Packages(recipes.Stage{Kind: "packages", Packages: &recipes.Packages{Names: names}}, "packages", []pipeline.Stage{base})
	return s, base, err
}

// The set is the closure less what the base has, locked by the same road.
func TestASetOfPackagesIsWhatTheBaseLacks(t *testing.T) {
	archive := archivetest.New(t, archivetest.Package{Name: "app", Version: "1", Fields: "Depends: lib, tool"},
		archivetest.Package{Name: "lib", Version: "1"}, archivetest.Package{Name: "tool", Version: "1", Fields: "Depends: lib"})
	r := lockRecipe(archive, "lib")
	env := pipeline.Env{Cache: t.TempDir(), Events: func(pipeline.Event) {}}
	a := NewDebianArchive(r)
	s, base, err := withPackages(r, a, "app")
	if err != nil {
		t.Fatal(err)
	}
	lock := &recipes.Lock{Version: 1}
	for _, l := range []Locker{base, s} {
		if err := l.Lock(t.Context(), env, lock); err != nil {
			t.Skipf("skipped: %v", err)
		}
	}
	names := aptlock.Names(lock.Sets["packages"])
	slices.Sort(names)
	if got := strings.Join(names, " "); got != "app tool" {
		t.Errorf("locked %q", got)
	}
	env.Lock = lock
	other, _, err := withPackages(r, NewDebianArchive(r), "app", "tool")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Inputs(t.Context(), env); err == nil || !strings.Contains(err.Error(), "the lock file is stale") {
		t.Errorf("asked for more than is locked: %v", err)
	}
	r.Source = recipes.Source{OCI: &recipes.OCI{Ref: "x"}}
	if _, err := NewDebianArchive(r).Packages(recipes.Stage{Packages: &recipes.Packages{}}, "packages", nil); err == nil || !strings.Contains(err.Error(), "source.debian") {
		t.Errorf("on an image: %v", err)
	}
}

func describe(t *testing.T, tr *tree.Tree) string {
	t.Helper()
	var b strings.Builder
	for _, e := range tr.Entries() {
		if e.Implied {
			continue
		}
		h := sha256.New()
		if e.Body != nil {
			r, err := e.Body.Open()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(h, r); err != nil {
				t.Fatal(err)
			}
			r.Close()
		}
		fmt.Fprintf(&b, "%s %s %o %d:%d %q %q %q %x\n", e.Path, e.Kind, e.Mode, e.UID, e.GID, e.Link, e.Target, e.Xattrs, h.Sum(nil)[:8])
	}
	return b.String()
}

// A real root, real packages with a capability, a user of their own and Python
// to be compiled: the layer holds them alone, and is the same twice.
func TestPackagesAreALayerOverTheBase(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: builds a Debian root")
	}
	if _, err := bootstrap.Enter(t.Context()); err != nil {
		t.Skipf("skipped: %v", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = t.TempDir()
	}
	r := &recipes.Recipe{Name: "t", OS: "linux", Arch: "amd64", Epoch: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)}
	r.Source.Debian = &recipes.Debian{Suite: "bookworm", Variant: "essential"}
	s, base, err := withPackages(r, NewDebianArchive(r), "iputils-ping", "dbus", "python3-minimal")
	if err != nil {
		t.Fatal(err)
	}
	env := func() pipeline.Env {
		return pipeline.Env{Work: t.TempDir(), Cache: filepath.Join(cache, "rhizome"), Events: func(pipeline.Event) {}, Epoch: r.Epoch}
	}
	if _, err := s.Inputs(t.Context(), env()); err != nil {
		t.Skipf("skipped: no Debian archive can be reached: %v", err)
	}
	lower, err := base.Run(t.Context(), env(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var lists []string
	for range 2 {
		out, err := s.Run(t.Context(), env(), []*tree.Tree{lower.Tree})
		if err != nil {
			t.Fatal(err)
		}
		lists = append(lists, describe(t, out.Tree))
		if err := layer.WriteTar(io.Discard, out.Tree, r.Epoch); err != nil {
			t.Error(err)
		}
	}
	if lists[0] != lists[1] {
		t.Errorf("two builds differ:\n%s", onlyIn(lists[0], lists[1]))
	}
	for _, want := range []string{"usr/bin/ping file 755 0:0 \"\" \"\" map[\"security.capability\":", "etc/passwd file 644", "usr/bin/python3 symlink", "var/lib/dpkg/status file"} {
		if !strings.Contains("\n"+lists[0], "\n"+want) {
			t.Errorf("the layer has no %s", want)
		}
	}
	for _, never := range []string{"usr/bin/bash", "usr/sbin/policy-rc.d", "var/log/", "dev", "tmp", "run/", "var/lib/dbus/machine-id", "etc/passwd-"} {
		if strings.Contains("\n"+lists[0], "\n"+never) {
			t.Errorf("the layer has %s", never)
		}
	}
}

func onlyIn(a, b string) string {
	var out []string
	for l := range strings.Lines(a) {
		if !strings.Contains(b, l) {
			out = append(out, l)
		}
	}
	return strings.Join(out[:min(len(out), 20)], "")
}
