package aptlock

import (
	"strings"
	"testing"

	"rhizome/recipes"
)

func TestALockIsStaleWhenTheRecipeAsksForSomethingElse(t *testing.T) {
	asked := Request{Suite: "bookworm", Components: []string{"main"}, Arch: "amd64", Variant: "minbase", Packages: []string{"a", "b"}}
	lock := &recipes.Lock{Sets: map[string]recipes.PackageSet{"debian": {Request: asked.Digest()}}}
	for name, c := range map[string]struct {
		change func(*Request)
		fresh  bool
	}{
		"nothing":           {func(*Request) {}, true},
		"another order":     {func(r *Request) { r.Packages = []string{"b", "a"} }, true},
		"another package":   {func(r *Request) { r.Packages = []string{"a", "c"} }, false},
		"another suite":     {func(r *Request) { r.Suite = "trixie" }, false},
		"another variant":   {func(r *Request) { r.Variant = "apt" }, false},
		"another component": {func(r *Request) { r.Components = []string{"main", "contrib"} }, false},
		"another machine":   {func(r *Request) { r.Arch = "arm64" }, false},
	} {
		r := asked
		c.change(&r)
		_, err := Obey(lock, "debian", r)
		if (err == nil) != c.fresh {
			t.Errorf("%s: got %v", name, err)
		}
		if err != nil && !strings.Contains(err.Error(), `run "rhizome lock" again`) {
			t.Errorf("%s: %v names no remedy", name, err)
		}
	}
	if _, err := Obey(lock, "kernel:default", asked); err == nil {
		t.Error("a step that was never locked passed")
	}
}

func TestTheRequestsDigestStays(t *testing.T) {
	// Lock files that people keep hold this; another value makes them all stale.
	r := Request{Suite: "bookworm", Components: []string{"main"}, Arch: "amd64", Variant: "minbase", Packages: []string{"systemd-sysv"}}
	if got, want := r.Digest(), "sha256:0d84fd4221ac4fc095d4bc34b37cf73943fc662f037d40f6e31f5063832d4d31"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestASetsDigestIsWhatItBrings(t *testing.T) {
	a := recipes.LockedPackage{Name: "a", Version: "1", Arch: "all", SHA256: "1"}
	b := recipes.LockedPackage{Name: "b", Version: "1", Arch: "all", SHA256: "2"}
	moved := b
	moved.File = "elsewhere/b.deb"
	set := func(p ...recipes.LockedPackage) string { return SetDigest(recipes.PackageSet{Packages: p}) }
	if set(a, b) != set(moved, a) {
		t.Error("the order or the mirror's path counts")
	}
	b.SHA256 = "3"
	if set(a, moved) == set(a, b) {
		t.Error("other bytes do not count")
	}
}
