package aptlock

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"

	"rhizome/recipes"
	"rhizome/stages/debian/tool"
)

// Resolve asks the archive's present indexes for the exact set that a request
// means. The indexes are fetched only where the archive has newer ones, and
// the answer is kept, so that asking twice costs a moment.
func (a *Apt) Resolve(ctx context.Context, r Request) (recipes.PackageSet, error) {
	base, ok := r.base()
	if !ok {
		return recipes.PackageSet{}, fmt.Errorf("mmdebstrap has no variant %q; the variants are custom, essential, apt, minbase, buildd, important, standard", r.Variant)
	}
	ro, err := a.open(r)
	if err != nil {
		return recipes.PackageSet{}, err
	}
	unlock, err := ro.lock(ctx)
	if err != nil {
		return recipes.PackageSet{}, err
	}
	defer unlock()
	if err := ro.update(ctx, r); err != nil {
		return recipes.PackageSet{}, err
	}
	kept, err := ro.answerFile(r)
	if err != nil {
		return recipes.PackageSet{}, err
	}
	if set, ok := readAnswer(kept); ok {
		return set, nil
	}
	set, err := ro.solve(ctx, r, base)
	if err != nil {
		return set, err
	}
	return set, writeAnswer(kept, set)
}

// update fetches the indexes that the archive has newer ones of.
func (ro *root) update(ctx context.Context, r Request) error {
	if ro.apt.Seen.has(ro.dir) {
		return nil
	}
	err := ro.run(ctx, fmt.Sprintf("reading the index of %q", r.Suite), nil, "apt-get", "update", "--error-on=any")
	if err == nil {
		ro.apt.Seen.add(ro.dir)
	}
	return err
}

// lock keeps other processes off the private root.
func (ro *root) lock(ctx context.Context) (func(), error) {
	f, err := os.OpenFile(filepath.Join(ro.dir, "rhizome.lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("locking the package cache: %w", err)
	}
	got := make(chan error, 1)
	go func() { got <- flock(f) }()
	select {
	case err = <-got:
	case <-ctx.Done():
		go func() { _, _ = <-got, f.Close() }()
		return nil, context.Cause(ctx)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("locking the package cache %q: %w", ro.dir, err)
	}
	return func() { f.Close() }, nil
}

func flock(f *os.File) error {
	for {
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != syscall.EINTR {
			return err
		}
	}
}

// answerFile is where the answer to a request on these very indexes is kept:
// its name holds the digest of the indexes and of what was asked.
func (ro *root) answerFile(r Request) (string, error) {
	found, err := filepath.Glob(filepath.Join(ro.dir, "lists", "*Release"))
	if err != nil {
		return "", err
	}
	sort.Strings(found)
	h := sha256.New()
	fmt.Fprintln(h, answerVersion, r.Digest())
	for _, name := range found {
		body, err := os.ReadFile(name)
		if err != nil {
			return "", fmt.Errorf("reading the archive's index: %w", err)
		}
		fmt.Fprintf(h, "%s %x\n", filepath.Base(name), sha256.Sum256(body))
	}
	return filepath.Join(ro.dir, "answer-"+hex.EncodeToString(h.Sum(nil)[:16])+".json"), nil
}

// answerVersion is raised when solve answers otherwise than before.
const answerVersion = 1

func readAnswer(name string) (recipes.PackageSet, bool) {
	var set recipes.PackageSet
	body, err := os.ReadFile(name)
	return set, err == nil && json.Unmarshal(body, &set) == nil && len(set.Packages) > 0
}

func writeAnswer(name string, set recipes.PackageSet) error {
	body, err := json.Marshal(set)
	if err == nil {
		err = replace(name, string(body))
	}
	if err != nil {
		return fmt.Errorf("keeping the packages that apt chose: %w", err)
	}
	return nil
}

// solve lets apt choose.
func (ro *root) solve(ctx context.Context, r Request, base []string) (recipes.PackageSet, error) {
	args := []string{"apt-get", "-q", "--yes", "--print-uris", "install"}
	if r.Alone {
		args, base = []string{"apt-get", "-q", "--print-uris", "download"}, nil
	}
	args = append(append(args, base...), r.Packages...)
	if merged, err := ro.mergedUsr(ctx, r); err != nil {
		return recipes.PackageSet{}, err
	} else if merged {
		args = append(args, mergedUsr)
	}
	var out strings.Builder
	doing := fmt.Sprintf("resolving %d package(s) in %q (%s) for %s", len(r.Packages), r.Suite, strings.Join(r.Components, ", "), r.Arch)
	if err := ro.run(ctx, doing, &out, args...); err != nil {
		return recipes.PackageSet{}, err
	}
	found, err := parseURIs(out.String(), ro.sources)
	if err != nil {
		return recipes.PackageSet{}, err
	}
	if len(found) == 0 {
		return recipes.PackageSet{}, &tool.Error{Doing: doing, Tool: "apt-get", Cause: tool.Cause{What: "no package at all was chosen", Remedy: "name some under \"packages:\", or another variant"}}
	}
	sort.Slice(found, func(i, j int) bool { return found[i].Name < found[j].Name })
	return recipes.PackageSet{Request: r.Digest(), Suite: r.Suite, Packages: found}, nil
}

// mergedUsr is an empty package that says /bin and /lib are links into /usr.
// Where the suite has it, a root is made merged from the start; otherwise apt
// would choose usrmerge, which moves files about afterwards.
const mergedUsr = "usr-is-merged"

func (ro *root) mergedUsr(ctx context.Context, r Request) (bool, error) {
	if r.Alone || r.Variant == "custom" {
		return false, nil
	}
	var out strings.Builder
	err := ro.run(ctx, "looking for "+mergedUsr, &out, "apt-cache", "pkgnames", mergedUsr)
	return strings.Contains("\n"+out.String(), "\n"+mergedUsr+"\n"), err
}
