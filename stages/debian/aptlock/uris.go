package aptlock

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"rhizome/recipes"
)

// parseURIs reads what "apt-get --print-uris" prints for each package,
//
//	'URI' name_version_arch.deb SIZE SHA256:SUM
//
// with the version's colon written as %3a (apt-get(8)).
func parseURIs(out string, sources []Source) ([]recipes.LockedPackage, error) {
	var all []recipes.LockedPackage
	for _, line := range strings.Split(out, "\n") {
		if !strings.HasPrefix(line, "'") {
			continue
		}
		p, err := parseURI(line, sources)
		if err != nil {
			return nil, fmt.Errorf("reading apt's line %q: %w", line, err)
		}
		all = append(all, p)
	}
	return all, nil
}

func parseURI(line string, sources []Source) (recipes.LockedPackage, error) {
	var p recipes.LockedPackage
	f := strings.Fields(line)
	if len(f) != 4 || !strings.HasSuffix(f[1], ".deb") {
		return p, fmt.Errorf("it does not have the form 'URI' FILE.deb SIZE SHA256:SUM")
	}
	parts := strings.Split(strings.TrimSuffix(f[1], ".deb"), "_")
	if len(parts) != 3 {
		return p, fmt.Errorf("the file's name is not NAME_VERSION_ARCH.deb")
	}
	version, err := url.PathUnescape(parts[1])
	if err != nil {
		return p, fmt.Errorf("the version %q: %w", parts[1], err)
	}
	p.Name, p.Version, p.Arch = parts[0], version, parts[2]
	if p.Size, err = strconv.ParseInt(f[2], 10, 64); err != nil {
		return p, fmt.Errorf("the size %q is not a number", f[2])
	}
	sum, ok := strings.CutPrefix(f[3], "SHA256:")
	if !ok || len(sum) != 64 {
		return p, fmt.Errorf("%q is not a SHA256; the archive's index is too old a kind", f[3])
	}
	p.SHA256 = sum
	p.File, err = below(strings.Trim(f[0], "'"), sources)
	return p, err
}

// below cuts the archive's base off a package's URI.
func below(uri string, sources []Source) (string, error) {
	for _, s := range sources {
		if rest, ok := strings.CutPrefix(uri, s.URI+"/"); ok {
			return url.PathUnescape(rest)
		}
	}
	return "", fmt.Errorf("the URI %q lies in none of the archives", uri)
}

// escape writes a package's path for a URI as apt does, with the few
// characters quoted that mirrors are known to be picky about.
func escape(file string) string {
	var b strings.Builder
	for _, c := range []byte(file) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-_./", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02x", c)
		}
	}
	return b.String()
}
