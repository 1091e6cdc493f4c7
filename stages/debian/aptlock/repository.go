package aptlock

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"rhizome/recipes"
	"rhizome/stages/debian/tool"
)

// Repository writes an archive into dir that holds a set and nothing else, and
// returns the sources.list line for it. files are what Fetch returned. The
// archive needs no signature: each of its files was checked against the set.
func Repository(ctx context.Context, dir string, set recipes.PackageSet, arch string, files []string) (string, error) {
	bin, err := tool.Find("dpkg-deb", "dpkg")
	if err != nil {
		return "", err
	}
	suite := filepath.Join(dir, "dists", set.Suite)
	index := filepath.Join("main", "binary-"+arch)
	for _, d := range []string{filepath.Join(dir, "pool"), filepath.Join(suite, index)} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return "", fmt.Errorf("making the folder of locked packages: %w", err)
		}
	}
	var packages strings.Builder
	for i, p := range set.Packages {
		control, err := readControl(ctx, bin, files[i], p)
		if err != nil {
			return "", err
		}
		name := poolName(p)
		if err := os.Symlink(files[i], filepath.Join(dir, name)); err != nil && !os.IsExist(err) {
			return "", fmt.Errorf("laying out the locked packages: %w", err)
		}
		fmt.Fprintf(&packages, "%s\nFilename: %s\nSize: %d\nSHA256: %s\n\n", control, name, p.Size, p.SHA256)
	}
	for name, text := range map[string]string{
		filepath.Join(suite, index, "Packages"): packages.String(),
		filepath.Join(suite, "Release"):         release(set.Suite, arch, filepath.Join(index, "Packages"), packages.String()),
	} {
		if err := replace(name, text); err != nil {
			return "", fmt.Errorf("writing the index of locked packages: %w", err)
		}
	}
	uri := url.URL{Scheme: "copy", Path: dir}
	return fmt.Sprintf("deb [trusted=yes] %s %s main", uri.String(), set.Suite), nil
}

func poolName(p recipes.LockedPackage) string {
	return fmt.Sprintf("pool/%s_%s_%s.deb", p.Name, strings.ReplaceAll(p.Version, ":", "%3a"), p.Arch)
}

// release is the archive's Release file; apt finds the suite's name in it.
func release(suite, arch, index, packages string) string {
	return fmt.Sprintf("Origin: rhizome\nSuite: %s\nCodename: %s\nArchitectures: %s\nComponents: main\nDate: Thu, 01 Jan 1970 00:00:00 UTC\nSHA256:\n %x %d %s\n",
		suite, suite, arch, sha256.Sum256([]byte(packages)), len(packages), index)
}

// readControl takes the control paragraph out of a package and checks that it
// is the package the lock file says it is.
func readControl(ctx context.Context, bin, file string, p recipes.LockedPackage) (string, error) {
	var out strings.Builder
	c := tool.Command{Doing: fmt.Sprintf("reading the package %q", p.Name), Args: []string{bin, "--field", file}, Stdout: &out}
	if err := c.Run(ctx); err != nil {
		return "", err
	}
	control := strings.TrimSpace(out.String())
	stanzas, err := parseStanzas(control)
	if err != nil || len(stanzas) != 1 {
		return "", fmt.Errorf("the package %q has a control file that is not one paragraph", p.Name)
	}
	if s := stanzas[0]; s["package"] != p.Name || s["version"] != p.Version || s["architecture"] != p.Arch {
		return "", fmt.Errorf("the lock file's %q %s (%s) has the sum of %q %s (%s); run \"rhizome lock\" again",
			p.Name, p.Version, p.Arch, s["package"], s["version"], s["architecture"])
	}
	return control, nil
}
