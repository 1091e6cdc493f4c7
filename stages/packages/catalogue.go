package packages

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"rhizome/recipes"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Pkg is a FreeBSD package repository (pkg-repository(5)), read without pkg(8)
// and on any machine. Signatures of the catalogue are not checked: the lock
// file holds what was there when it was made, to the byte.
type Pkg struct {
	// Repository is a folder or URL: what holds packagesite.pkg.
	Repository string
	// Get opens a URL; nil where the repository is a folder.
	Get func(ctx context.Context, url string) (io.ReadCloser, error)
	// Cache keeps packages by their sum.
	Cache string
	// Arch is the recipe's, as OCI names it.
	Arch string
}

// maxCatalogue bounds the uncompressed catalogue, in bytes; FreeBSD's own is
// about 100 MB.
const maxCatalogue = 1 << 30

// offered is one line of the catalogue.
type offered struct {
	Name     string                     `json:"name"`
	Version  string                     `json:"version"`
	ABI      string                     `json:"abi"`
	Path     string                     `json:"path"`
	RepoPath string                     `json:"repopath"`
	Sum      string                     `json:"sum"`
	Size     int64                      `json:"pkgsize"`
	Deps     map[string]json.RawMessage `json:"deps"`
}

var sum256 = regexp.MustCompile(`^[0-9a-f]{64}$`)

// RequestDigest identifies what was asked for, for the lock file.
func RequestDigest(names []string, arch string) string {
	sorted := slices.Sorted(slices.Values(names))
	return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(fmt.Sprintf("pkg %q %q", slices.Compact(sorted), arch))))
}

// Resolve reads the catalogue and returns the packages with all they depend
// on, sorted by name.
func (p Pkg) Resolve(ctx context.Context, names []string) (recipes.PackageSet, error) {
	all, err := p.catalogue(ctx)
	if err != nil {
		return recipes.PackageSet{}, fmt.Errorf("reading the package repository %q: %w", p.Repository, err)
	}
	set := recipes.PackageSet{Request: RequestDigest(names, p.Arch)}
	seen := map[string]bool{}
	for todo := slices.Clone(names); len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		if seen[name] {
			continue
		}
		seen[name] = true
		o, ok := all[name]
		if !ok {
			return set, fmt.Errorf("the package repository %q has no package %q", p.Repository, name)
		}
		l, err := p.locked(o)
		if err != nil {
			return set, err
		}
		set.Packages = append(set.Packages, l)
		for d := range o.Deps {
			todo = append(todo, d)
		}
	}
	slices.SortFunc(set.Packages, func(a, b recipes.LockedPackage) int { return strings.Compare(a.Name, b.Name) })
	return set, nil
}

func (p Pkg) locked(o offered) (recipes.LockedPackage, error) {
	file := o.RepoPath
	if file == "" {
		file = o.Path
	}
	switch {
	case o.Name == "" || strings.ContainsAny(o.Name+o.Version, "/ \n\x00"):
		return recipes.LockedPackage{}, fmt.Errorf("the repository %q names a package %q %q: names hold no blank and no slash", p.Repository, o.Name, o.Version)
	case !sum256.MatchString(o.Sum):
		return recipes.LockedPackage{}, fmt.Errorf("the repository gives the package %q the sum %q, which is no sha256 in hexadecimal digits; make the catalogue anew with pkg repo", o.Name, o.Sum)
	case !filepath.IsLocal(file):
		return recipes.LockedPackage{}, fmt.Errorf("the repository says that the package %q lies at %q, which is outside it", o.Name, file)
	case !abiFits(o.ABI, p.Arch):
		return recipes.LockedPackage{}, fmt.Errorf("the repository %q is for %s, and the recipe's arch is %q; name the repository of that architecture", p.Repository, o.ABI, p.Arch)
	}
	return recipes.LockedPackage{Name: o.Name, Version: o.Version, Arch: p.Arch, File: file, Size: o.Size, SHA256: o.Sum}, nil
}

// abiFits compares the third part of "FreeBSD:15:amd64" (pkg.conf(5), "ABI").
func abiFits(abi, arch string) bool {
	parts := strings.Split(abi, ":")
	if abi == "" || len(parts) < 3 || parts[2] == "*" {
		return true
	}
	return parts[2] == map[string]string{"amd64": "amd64", "arm64": "aarch64"}[arch]
}

func (p Pkg) catalogue(ctx context.Context) (map[string]offered, error) {
	in, err := p.open(ctx, "packagesite.pkg")
	if err != nil {
		return nil, err
	}
	defer in.Close()
	plain, done, err := decompress(in)
	if err != nil {
		return nil, err
	}
	defer done()
	tr := tar.NewReader(plain)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil, errors.New("packagesite.pkg holds no packagesite.yaml; make the catalogue with pkg repo")
		}
		if err != nil {
			return nil, err
		}
		if h.Name == "packagesite.yaml" {
			return parseCatalogue(io.LimitReader(tr, maxCatalogue))
		}
	}
}

// parseCatalogue reads one JSON object a line.
func parseCatalogue(r io.Reader) (map[string]offered, error) {
	all := map[string]offered{}
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), 16<<20)
	for n := 1; lines.Scan(); n++ {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		var o offered
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			return nil, fmt.Errorf("packagesite.yaml, line %d: %w", n, err)
		}
		all[o.Name] = o
	}
	return all, lines.Err()
}

func (p Pkg) remote() bool { return strings.Contains(p.Repository, "://") }

func (p Pkg) open(ctx context.Context, name string) (io.ReadCloser, error) {
	if p.remote() {
		return p.Get(ctx, strings.TrimSuffix(p.Repository, "/")+"/"+name)
	}
	return os.Open(filepath.Join(p.Repository, filepath.FromSlash(name)))
}

// Fetch brings the packages into the cache, each checked against the set, and
// returns their files in its order.
func (p Pkg) Fetch(ctx context.Context, set recipes.PackageSet) ([]string, error) {
	if err := os.MkdirAll(p.Cache, 0o755); err != nil {
		return nil, fmt.Errorf("making the cache of packages: %w", err)
	}
	var files []string
	for _, l := range set.Packages {
		if !sum256.MatchString(l.SHA256) || !filepath.IsLocal(l.File) {
			return nil, fmt.Errorf("the lock file's package %q has no sha256, or lies outside the repository (%q); run \"rhizome lock\" again", l.Name, l.File)
		}
		file := filepath.Join(p.Cache, l.SHA256+".pkg")
		if sumOf(file) != l.SHA256 {
			if err := p.download(ctx, l, file); err != nil {
				return nil, fmt.Errorf("fetching the package %q %s from %q: %w", l.Name, l.Version, p.Repository, err)
			}
		}
		files = append(files, file)
	}
	return files, nil
}

func sumOf(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (p Pkg) download(ctx context.Context, l recipes.LockedPackage, file string) error {
	in, err := p.open(ctx, l.File)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.CreateTemp(p.Cache, "partial-*")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, h), io.LimitReader(in, l.Size+1))
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != l.SHA256 || n != l.Size {
		return fmt.Errorf("it is not the one that was locked (%d bytes with sha256 %s, not %d with %s); run \"rhizome lock\" again", n, got, l.Size, l.SHA256)
	}
	return os.Rename(out.Name(), file)
}

// decompress tells zstd, xz and gzip by their first bytes; pkg packs with any.
func decompress(r io.Reader) (io.Reader, func(), error) {
	b := bufio.NewReaderSize(r, 256<<10)
	head, err := b.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}): // RFC 8878, 3.1.1
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")): // .xz file format, 2.1.1.1
		x, err := xz.NewReader(b)
		return x, func() {}, err
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}): // RFC 1952, 2.3.1
		g, err := gzip.NewReader(b)
		return g, func() {}, err
	}
	return b, func() {}, nil
}
