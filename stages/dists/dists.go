// Package dists turns FreeBSD's release sets (base.txz, kernel.txz ...) into
// one tree. A set is used only after its sha256 was found in the MANIFEST that
// lies beside it (release(7); bsdinstall's distfetch reads the same file).
package dists

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Version is raised whenever the same inputs would give another tree.
const Version = 1

// Dists is a folder or URL of release sets.
type Dists struct {
	// From is a folder, or an http or https URL of one.
	From string
	// Sets are names without ".txz": "base", "kernel".
	Sets []string
	// Manifest is the sha256 of the MANIFEST file, in hex; empty trusts
	// whatever MANIFEST lies there.
	Manifest string
}

// Env is what the stage may use of the machine.
type Env struct {
	// Work is the stage's own folder.
	Work string
	// Cache keeps downloads, by their sum; empty uses Work.
	Cache string
	// Get opens a URL; only used where From is one.
	Get Getter
	// Progress gets lines that say what is done; nil is silence.
	Progress func(line string)
}

func (e Env) say(format string, args ...any) {
	if e.Progress != nil {
		e.Progress(fmt.Sprintf(format, args...))
	}
}

// Set is one line of a MANIFEST.
type Set struct {
	// File is the set's name with ".txz", SHA256 its sum in lower-case hex.
	File, SHA256 string
}

// ParseManifest reads a MANIFEST: a line a set, its fields separated by tabs,
// of which the first is the file and the second its sha256.
func ParseManifest(text string) (map[string]Set, error) {
	sets := map[string]Set{}
	for i, line := range strings.Split(text, "\n") {
		f := strings.Split(strings.TrimSpace(line), "\t")
		if f[0] == "" {
			continue
		}
		if len(f) < 2 || len(f[1]) != 64 || strings.Trim(strings.ToLower(f[1]), "0123456789abcdef") != "" || strings.ContainsAny(f[0], "/\\") {
			return nil, fmt.Errorf("MANIFEST line %d is not a file and its sha256, separated by a tab", i+1)
		}
		sets[strings.TrimSuffix(f[0], ".txz")] = Set{File: f[0], SHA256: strings.ToLower(f[1])}
	}
	if len(sets) == 0 {
		return nil, fmt.Errorf("the MANIFEST lists no set")
	}
	return sets, nil
}

// Select finds the wanted sets in a MANIFEST, in the recipe's order.
func Select(manifest map[string]Set, wanted []string) ([]Set, error) {
	var out []Set
	for _, w := range wanted {
		s, ok := manifest[strings.TrimSuffix(w, ".txz")]
		if !ok {
			return nil, fmt.Errorf("the MANIFEST lists no set %q; it has %s", w, strings.Join(keys(manifest), ", "))
		}
		out = append(out, s)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no release set is named; most systems want base and kernel")
	}
	return out, nil
}

// Remote says that a place is on the network.
func Remote(from string) bool {
	return strings.HasPrefix(from, "http://") || strings.HasPrefix(from, "https://")
}

// manifest reads and checks the MANIFEST of the place.
func (d Dists) manifest(ctx context.Context, env Env) ([]Set, error) {
	text, err := d.readManifest(ctx, env)
	if err != nil {
		return nil, fmt.Errorf("reading the MANIFEST of the release sets in %q: %w", d.From, err)
	}
	if sum := sumText(text); d.Manifest != "" && sum != strings.ToLower(d.Manifest) {
		return nil, fmt.Errorf("the MANIFEST in %q has sha256 %s, but the recipe wants %s; it is of another release, or was changed: check it against the release announcement", d.From, sum, d.Manifest)
	}
	all, err := ParseManifest(string(text))
	if err != nil {
		return nil, fmt.Errorf("reading the release sets in %q: %w", d.From, err)
	}
	sets, err := Select(all, d.Sets)
	if err != nil {
		return nil, fmt.Errorf("reading the release sets in %q: %w", d.From, err)
	}
	return sets, nil
}

func (d Dists) readManifest(ctx context.Context, env Env) ([]byte, error) {
	if !Remote(d.From) {
		return os.ReadFile(filepath.Join(d.From, "MANIFEST"))
	}
	return fetchSmall(ctx, env, join(d.From, "MANIFEST"))
}

// Inputs are the sums of the sets: where they come from is no input.
func (d Dists) Inputs(ctx context.Context, env Env) (map[string]string, error) {
	sets, err := d.manifest(ctx, env)
	if err != nil {
		return nil, err
	}
	in := map[string]string{"sets": strings.Join(d.Sets, " ")}
	for _, s := range sets {
		in["set:"+s.File] = s.SHA256
	}
	return in, nil
}
