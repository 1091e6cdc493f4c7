// Package aptlock turns a wish for packages into an exact set, name, version,
// size and sha256, and fetches exactly that set again: apt decides, in a
// private root of its own, and every file is checked against the set.
package aptlock

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"sort"
	"strings"

	"rhizome/recipes"
)

// Request is what a step asks for.
type Request struct {
	Suite      string
	Components []string
	// Arch is Debian's name of the architecture, "amd64".
	Arch string
	// Variant is mmdebstrap's: it says which packages are there without being
	// named (mmdebstrap(1), "VARIANTS").
	Variant  string
	Packages []string
	// Alone takes the named packages without what they depend on; their
	// files are used, nothing is installed.
	Alone bool
}

// Digest identifies the request: a lock made for another one is stale. The
// mirror is left out, since the sums say what is taken wherever it comes from.
func (r Request) Digest() string {
	h := sha256.New()
	fmt.Fprintf(h, "suite %q\ncomponents %q\narch %q\nvariant %q\npackages %q\nalone %v\n",
		r.Suite, sorted(r.Components), r.Arch, r.Variant, sorted(r.Packages), r.Alone)
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

func sorted(s []string) []string {
	c := slices.Clone(s)
	sort.Strings(c)
	return slices.Compact(c)
}

// base are apt's search patterns for what a variant brings by itself
// (apt-patterns(7)); ok is false for a variant that mmdebstrap does not have.
func (r Request) base() (patterns []string, ok bool) {
	essential := []string{"?essential"}
	switch r.Variant {
	case "custom", "extract":
		return nil, r.Variant == "custom"
	case "essential":
		return essential, true
	case "apt":
		return append(essential, "apt"), true
	case "", "minbase", "required":
		return append(essential, "apt", "?priority(required)"), true
	case "buildd":
		return append(essential, "apt", "?priority(required)", "build-essential"), true
	case "important", "debootstrap", "-":
		return append(essential, "apt", "?priority(required)", "?priority(important)"), true
	case "standard":
		return append(essential, "apt", "?priority(required)", "?priority(important)", "?priority(standard)"), true
	}
	return nil, false
}

// SetDigest identifies a resolved set by what it brings, whatever it was asked
// for as.
func SetDigest(set recipes.PackageSet) string {
	lines := make([]string, 0, len(set.Packages))
	for _, p := range set.Packages {
		lines = append(lines, fmt.Sprintf("%s %s %s %s\n", p.Name, p.Version, p.Arch, p.SHA256))
	}
	sort.Strings(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "")))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Names are the names of a set's packages.
func Names(set recipes.PackageSet) []string {
	names := make([]string, 0, len(set.Packages))
	for _, p := range set.Packages {
		names = append(names, p.Name)
	}
	return names
}

// Has says whether a set holds a package of that name.
func Has(set recipes.PackageSet, name string) bool {
	return slices.ContainsFunc(set.Packages, func(p recipes.LockedPackage) bool { return p.Name == name })
}

// Obey returns the lock's set for a step. The error says what is stale and how
// to renew it.
func Obey(lock *recipes.Lock, step string, r Request) (recipes.PackageSet, error) {
	set, ok := lock.Sets[step]
	if !ok {
		return set, fmt.Errorf("the lock file has no packages for %q; run \"rhizome lock\" again", step)
	}
	if set.Request != r.Digest() {
		return set, fmt.Errorf("the lock file is stale: the recipe asks for other packages, another suite or another variant "+
			"for %q than when it was locked; run \"rhizome lock\" again", step)
	}
	return set, nil
}
