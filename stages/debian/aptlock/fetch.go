package aptlock

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"rhizome/recipes"
	"rhizome/stages/debian/tool"
)

// GoneError says that no archive has a locked package any more.
type GoneError struct {
	Packages []recipes.LockedPackage
	Mirrors  []string
}

func (e *GoneError) Error() string {
	var names []string
	for _, p := range e.Packages {
		names = append(names, fmt.Sprintf("%q %s", p.Name, p.Version))
	}
	if len(names) > 5 {
		names = append(names[:5], fmt.Sprintf("%d more", len(names)-5))
	}
	return fmt.Sprintf("the archive (%s) no longer has what the lock file names: %s; name a snapshot of that day with \"mirror:\", or run \"rhizome lock\" again",
		strings.Join(e.Mirrors, ", "), strings.Join(names, ", "))
}

// Network is true: the archive, not the recipe, lacks something.
func (e *GoneError) Network() bool { return true }

// Fetch brings every package of a set into the cache and returns their files,
// in the set's order. Each is checked against its sha256, those of an earlier
// fetch too. A package whose archive is known by a system's list is looked for
// in each archive in turn.
func (a *Apt) Fetch(ctx context.Context, r Request, set recipes.PackageSet) ([]string, error) {
	debs := filepath.Join(a.Cache, "debs")
	if err := os.MkdirAll(debs, 0o755); err != nil {
		return nil, fmt.Errorf("making the cache of packages: %w", err)
	}
	files := make([]string, len(set.Packages))
	var missing []recipes.LockedPackage
	for i, p := range set.Packages {
		if err := checkName(p); err != nil {
			return nil, err
		}
		files[i] = filepath.Join(debs, p.SHA256+".deb")
		if verify(files[i], p) != nil {
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 {
		return files, nil
	}
	return files, a.download(ctx, r, debs, missing)
}

// checkName refuses a lock file's entry that would leave the cache folder.
func checkName(p recipes.LockedPackage) error {
	if _, err := hex.DecodeString(p.SHA256); err != nil || len(p.SHA256) != 64 {
		return fmt.Errorf("the lock file's package %q has the sha256 %q, which is not 64 hexadecimal digits; run \"rhizome lock\" again", p.Name, p.SHA256)
	}
	if p.Name == "" || strings.ContainsAny(p.Name+p.Version+p.Arch, "/ \n") {
		return fmt.Errorf("the lock file has a package %q %q %q, whose name holds a blank or a slash; run \"rhizome lock\" again", p.Name, p.Version, p.Arch)
	}
	return nil
}

// verify checks a file's size and sum.
func verify(name string, p recipes.LockedPackage) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return err
	}
	if sum := hex.EncodeToString(h.Sum(nil)); n != p.Size || sum != p.SHA256 {
		return fmt.Errorf("the package %q %s is %d bytes with sha256 %s; the lock file says %d bytes with %s", p.Name, p.Version, n, sum, p.Size, p.SHA256)
	}
	return nil
}

// download tries the archives in turn until nothing is missing.
func (a *Apt) download(ctx context.Context, r Request, debs string, missing []recipes.LockedPackage) error {
	ro, err := a.open(r)
	if err != nil {
		return err
	}
	part, err := os.MkdirTemp(debs, "partial-")
	if err != nil {
		return fmt.Errorf("making room for packages: %w", err)
	}
	defer func() { _ = os.RemoveAll(part) }()
	var trouble error
	bases := uniqueURIs(ro.sources)
	for _, uri := range bases {
		err := ro.downloadFrom(ctx, uri, part, missing)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if missing, trouble = settle(part, debs, missing), errors.Join(trouble, worse(err)); len(missing) == 0 {
			return nil
		}
	}
	if trouble != nil {
		return trouble
	}
	return &GoneError{Packages: missing, Mirrors: bases}
}

// worse drops the error of a mirror that answered and merely lacks a file;
// what is missing in the end is reported as such.
func worse(err error) error {
	var e *tool.Error
	if !errors.As(err, &e) {
		return err
	}
	for _, line := range e.Tail {
		if strings.Contains(line, "404") || strings.Contains(line, "File not found") || strings.Contains(line, "Hash Sum mismatch") || strings.Contains(line, "Failed to stat") {
			return nil
		}
	}
	return err
}

func uniqueURIs(sources []Source) []string {
	var uris []string
	seen := map[string]bool{}
	for _, s := range sources {
		if !seen[s.URI] {
			seen[s.URI] = true
			uris = append(uris, s.URI)
		}
	}
	return uris
}

// batch is how many packages one run of apt-helper fetches: far below what a
// command line holds.
const batch = 100

func (ro *root) downloadFrom(ctx context.Context, uri, part string, want []recipes.LockedPackage) error {
	var errs error
	for len(want) > 0 {
		n := min(batch, len(want))
		args := []string{"apt-helper", "download-file"}
		for _, p := range want[:n] {
			args = append(args, uri+"/"+escape(p.File), filepath.Join(part, p.SHA256), "SHA256:"+p.SHA256)
		}
		want = want[n:]
		errs = errors.Join(errs, ro.run(ctx, fmt.Sprintf("fetching %d package(s) from %q", n, uri), nil, args...))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return errs
}

// settle moves what came whole into the cache and returns what did not.
func settle(part, debs string, want []recipes.LockedPackage) []recipes.LockedPackage {
	var missing []recipes.LockedPackage
	for _, p := range want {
		from := filepath.Join(part, p.SHA256)
		if verify(from, p) != nil || os.Rename(from, filepath.Join(debs, p.SHA256+".deb")) != nil {
			_ = os.Remove(from)
			missing = append(missing, p)
		}
	}
	return missing
}
