package aptlock_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"rhizome/recipes"
	"rhizome/stages/debian/aptlock"
	"rhizome/stages/debian/archivetest"
)

func tiny(packages ...string) aptlock.Request {
	return aptlock.Request{Suite: "tiny", Components: []string{"main"}, Arch: "amd64", Variant: "custom", Packages: packages}
}

func aptFor(t *testing.T, a *archivetest.Archive) *aptlock.Apt {
	t.Helper()
	return &aptlock.Apt{Cache: t.TempDir(), Mirror: a.URL, Keyring: a.Keyring, Line: func(l string) { t.Log(l) }}
}

// versions is what a set holds, in few words.
func versions(set recipes.PackageSet) string {
	var all []string
	for _, p := range set.Packages {
		all = append(all, p.Name+" "+p.Version)
	}
	return strings.Join(all, ", ")
}

func TestASetHoldsWhatIsNeededToTheByte(t *testing.T) {
	a := archivetest.New(t,
		archivetest.Package{Name: "app", Version: "1:2.0+x~1", Fields: "Depends: lib (>= 1)\nRecommends: extra"},
		archivetest.Package{Name: "lib", Version: "1.5"},
		archivetest.Package{Name: "extra", Version: "1"},
		archivetest.Package{Name: "other", Version: "1"})
	apt := aptFor(t, a)
	set, err := apt.Resolve(t.Context(), tiny("app"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range set.Packages {
		// dpkg-deb's compressor decides about size and sum.
		if set.Packages[i].Size == 0 || len(set.Packages[i].SHA256) != 64 {
			t.Errorf("%+v lacks its size or sum", set.Packages[i])
		}
		set.Packages[i].Size, set.Packages[i].SHA256 = 0, ""
	}
	got, err := json.MarshalIndent(set, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/set.json")
	if err != nil || !bytes.Equal(bytes.TrimSpace(got), bytes.TrimSpace(want)) {
		t.Errorf("got %s\nwant %s (%v)", got, want, err)
	}
}

func TestAMovedMirrorGivesAnotherSet(t *testing.T) {
	a := archivetest.New(t, archivetest.Package{Name: "app", Version: "1"})
	apt := aptFor(t, a)
	first, err := apt.Resolve(t.Context(), tiny("app"))
	if err != nil {
		t.Fatal(err)
	}
	a.Publish(t, archivetest.Package{Name: "app", Version: "2"})
	second, err := apt.Resolve(t.Context(), tiny("app"))
	if err != nil {
		t.Fatal(err)
	}
	if versions(first) != "app 1" || versions(second) != "app 2" || aptlock.SetDigest(first) == aptlock.SetDigest(second) {
		t.Errorf("got %s, then %s", versions(first), versions(second))
	}
}

func TestTheIndexIsReadOnceInARun(t *testing.T) {
	a := archivetest.New(t, archivetest.Package{Name: "app", Version: "1"}, archivetest.Package{Name: "lib", Version: "1"})
	apt := aptFor(t, a)
	apt.Seen = &aptlock.Seen{}
	for _, r := range []aptlock.Request{tiny("app"), tiny("lib"), tiny("app")} {
		if _, err := apt.Resolve(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if asked := a.Asked("/dists/tiny/InRelease"); len(asked) != 1 {
		t.Errorf("the index was fetched %d times", len(asked))
	}
}

// "a package that does not exist, a dead mirror, a wrong keyring": each is one
// sentence with its remedy (issue 2, Bad input).
func TestWhatCannotBeResolvedIsSaidInOneSentence(t *testing.T) {
	a := archivetest.New(t,
		archivetest.Package{Name: "app", Version: "1", Fields: "Depends: lib (>= 2)"},
		archivetest.Package{Name: "lib", Version: "1"})
	other := archivetest.New(t)
	dead := archivetest.New(t)
	dead.Stop()
	good := func() (*aptlock.Apt, aptlock.Request) { return aptFor(t, a), tiny("lib") }
	for name, c := range map[string]struct {
		change  func(*aptlock.Apt, *aptlock.Request)
		says    string
		network bool
	}{
		"a package that does not exist": {func(_ *aptlock.Apt, r *aptlock.Request) { r.Packages = []string{"lib", "nosuch"} },
			`^resolving 2 package\(s\) in "tiny" \(main\) for amd64: there is no package "nosuch"; check its spelling`, false},
		"packages that exclude each other": {func(_ *aptlock.Apt, r *aptlock.Request) { r.Packages = []string{"app"} },
			`the packages cannot be installed together \(app : Depends: lib \(>= 2\) but .* to be installed\)`, false},
		"a dead mirror": {func(a *aptlock.Apt, _ *aptlock.Request) { a.Mirror = dead.URL },
			`^reading the index of "tiny": the mirror .*127.0.0.1:\d+.* does not answer; .*"mirror:"$`, true},
		"a wrong keyring": {func(a *aptlock.Apt, _ *aptlock.Request) { a.Keyring = other.Keyring },
			`the archive is signed with the key [0-9A-F]+, which is not in the keyring; name the archive's keyring with "keyring:"$`, false},
		"a missing keyring": {func(a *aptlock.Apt, _ *aptlock.Request) { a.Keyring = "/no/such.gpg" },
			`^the keyring "/no/such.gpg" cannot be read: .*; install debian-archive-keyring, or name another with "keyring:"$`, false},
		"a suite that does not exist": {func(_ *aptlock.Apt, r *aptlock.Request) { r.Suite = "nosuch" },
			`the mirror has no such suite; check "suite:" and "mirror:"$`, true},
		"a mirror that is no URI": {func(a *aptlock.Apt, _ *aptlock.Request) { a.Mirror = "deb.invalid" },
			`^the mirror "deb.invalid" is not an apt URI`, false},
		"no archive at all": {func(a *aptlock.Apt, _ *aptlock.Request) { a.Mirror = "" },
			`^this machine's apt knows no Debian archive of "tiny" \(main\) for amd64; name one with "mirror:"$`, false},
		"a variant that does not exist": {func(_ *aptlock.Apt, r *aptlock.Request) { r.Variant = "huge" },
			`^mmdebstrap has no variant "huge"; the variants are custom, `, false},
		"nothing at all": {func(_ *aptlock.Apt, r *aptlock.Request) { r.Packages = nil },
			`no package at all was chosen; name some under "packages:"`, false},
	} {
		apt, req := good()
		c.change(apt, &req)
		_, err := apt.Resolve(t.Context(), req)
		if err == nil || !regexp.MustCompile(c.says).MatchString(err.Error()) {
			t.Errorf("%s:\ngot  %v\nwant %s", name, err, c.says)
			continue
		}
		var n interface{ Network() bool }
		if got := errors.As(err, &n) && n.Network(); got != c.network {
			t.Errorf("%s: the network is at fault: %v, want %v", name, got, c.network)
		}
	}
}

func TestFetchKeepsWhatItHas(t *testing.T) {
	a := archivetest.New(t, archivetest.Package{Name: "app", Version: "1:1+b~1"})
	apt := aptFor(t, a)
	set := resolve(t, apt, "app")
	files := fetch(t, apt, set)
	if asked := a.Asked("/pool"); len(asked) != 1 {
		t.Fatalf("the first fetch asked for %v", asked)
	}
	fetch(t, apt, set)
	if asked := a.Asked("/pool"); len(asked) != 0 {
		t.Errorf("the second fetch asked for %v", asked)
	}
	// A disk that forgets must not get into an image.
	if err := os.WriteFile(files[0], []byte("rotten"), 0o644); err != nil {
		t.Fatal(err)
	}
	fetch(t, apt, set)
	if asked := a.Asked("/pool"); len(asked) != 1 {
		t.Errorf("after damage, fetch asked for %v", asked)
	}
	left, _ := filepath.Glob(filepath.Join(apt.Cache, "debs", "partial-*"))
	if len(left) > 0 {
		t.Errorf("fetch left %v", left)
	}
}

func TestALockedPackageThatTheMirrorLostIsNamed(t *testing.T) {
	a := archivetest.New(t, archivetest.Package{Name: "app", Version: "1"}, archivetest.Package{Name: "lib", Version: "1"})
	set := resolve(t, aptFor(t, a), "app", "lib")
	a.Publish(t, archivetest.Package{Name: "app", Version: "2"}, archivetest.Package{Name: "lib", Version: "1"})
	_, err := aptFor(t, a).Fetch(t.Context(), tiny("app", "lib"), set)
	var gone *aptlock.GoneError
	if !errors.As(err, &gone) || len(gone.Packages) != 1 || gone.Packages[0].Name != "app" {
		t.Fatalf("got %v, want a GoneError about app", err)
	}
	if want := `no longer has what the lock file names: "app" 1; name a snapshot of that day with "mirror:", or run "rhizome lock" again`; !strings.HasSuffix(err.Error(), want) {
		t.Errorf("got %q", err)
	}
}

// The same name and version with other bytes is another package.
func TestAPackageThatWasBuiltAgainIsNotTaken(t *testing.T) {
	a := archivetest.New(t, archivetest.Package{Name: "app", Version: "1"})
	set := resolve(t, aptFor(t, a), "app")
	a.Publish(t, archivetest.Package{Name: "app", Version: "1", Files: map[string]string{"usr/bin/evil": "x"}})
	_, err := aptFor(t, a).Fetch(t.Context(), tiny("app"), set)
	var gone *aptlock.GoneError
	if !errors.As(err, &gone) {
		t.Errorf("got %v, want a GoneError", err)
	}
}

func TestADeadMirrorWhileFetchingIsTheNetworksFault(t *testing.T) {
	a := archivetest.New(t, archivetest.Package{Name: "app", Version: "1"})
	apt := aptFor(t, a)
	set := resolve(t, apt, "app")
	a.Stop()
	_, err := apt.Fetch(t.Context(), tiny("app"), set)
	var n interface{ Network() bool }
	if !errors.As(err, &n) || !n.Network() || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("got %v", err)
	}
}

func TestALockEntryCannotLeaveTheCache(t *testing.T) {
	for _, p := range []recipes.LockedPackage{
		{Name: "a", SHA256: "../../etc/passwd"},
		{Name: "../a", SHA256: strings.Repeat("0", 64)},
		{Name: "a", Version: "1 2", SHA256: strings.Repeat("0", 64)},
	} {
		apt := &aptlock.Apt{Cache: t.TempDir()}
		if _, err := apt.Fetch(t.Context(), tiny("a"), recipes.PackageSet{Packages: []recipes.LockedPackage{p}}); err == nil || !strings.Contains(err.Error(), `run "rhizome lock" again`) {
			t.Errorf("%+v: got %v", p, err)
		}
	}
}

func TestTheRepositoryRefusesAPackageUnderAnotherName(t *testing.T) {
	a := archivetest.New(t, archivetest.Package{Name: "app", Version: "1"})
	apt := aptFor(t, a)
	set := resolve(t, apt, "app")
	files := fetch(t, apt, set)
	set.Packages[0].Version = "2"
	_, err := aptlock.Repository(t.Context(), t.TempDir(), set, "amd64", files)
	if err == nil || !strings.Contains(err.Error(), `the lock file's "app" 2 (all) has the sum of "app" 1 (all)`) {
		t.Errorf("got %v", err)
	}
}

func TestAnInterruptedResolveReturnsTheReason(t *testing.T) {
	a := archivetest.New(t, archivetest.Package{Name: "app", Version: "1"})
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("interrupted")
	cancel(why)
	if _, err := aptFor(t, a).Resolve(ctx, tiny("app")); !errors.Is(err, why) {
		t.Errorf("got %v, want %v", err, why)
	}
}

func resolve(t *testing.T, apt *aptlock.Apt, packages ...string) recipes.PackageSet {
	t.Helper()
	set, err := apt.Resolve(t.Context(), tiny(packages...))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func fetch(t *testing.T, apt *aptlock.Apt, set recipes.PackageSet) []string {
	t.Helper()
	files, err := apt.Fetch(t.Context(), tiny(), set)
	if err != nil {
		t.Fatal(err)
	}
	return files
}
