package aptlock

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Source is one archive that apt takes packages from: one line of a
// sources.list, or one combination of a .sources paragraph.
type Source struct {
	// URI is the archive's base, without a slash at the end.
	URI   string
	Suite string
	// Components are "main", "contrib"...
	Components []string
	// Archs limits the entry to these architectures; nil means any.
	Archs []string
	// SignedBy is a keyring's path, several with commas, or a key itself;
	// empty means every key that apt trusts.
	SignedBy string
}

// ParseList reads the one-line format (sources.list(5), "One-Line-Style
// Format"). Entries for source packages and for flat archives are left out.
func ParseList(text string) ([]Source, error) {
	var all []Source
	for i, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		s, ok, err := parseLine(strings.TrimSpace(line))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		if ok {
			all = append(all, s)
		}
	}
	return all, nil
}

func parseLine(line string) (Source, bool, error) {
	kind, rest, _ := strings.Cut(strings.ReplaceAll(line, "\t", " "), " ")
	if kind != "deb" {
		return Source{}, false, nil
	}
	var s Source
	rest = strings.TrimSpace(rest)
	if strings.HasPrefix(rest, "[") {
		options, after, ok := strings.Cut(rest[1:], "]")
		if !ok {
			return s, false, fmt.Errorf("%q has an option list without its end, \"]\"", line)
		}
		s.takeOptions(options)
		rest = after
	}
	words := strings.Fields(rest)
	if len(words) < 2 {
		return s, false, fmt.Errorf("%q names no suite", line)
	}
	s.URI, s.Suite, s.Components = strings.TrimSuffix(words[0], "/"), words[1], words[2:]
	return s, !flat(s.Suite), nil
}

func (s *Source) takeOptions(options string) {
	for _, o := range strings.Fields(options) {
		name, value, _ := strings.Cut(o, "=")
		switch strings.ToLower(name) {
		case "arch":
			s.Archs = strings.Split(value, ",")
		case "signed-by":
			s.SignedBy = value
		}
	}
}

// ParseSources reads the deb822 format (sources.list(5), "deb822-Style
// Format"), with the same omissions as ParseList.
func ParseSources(text string) ([]Source, error) {
	stanzas, err := parseStanzas(text)
	if err != nil {
		return nil, err
	}
	var all []Source
	for _, st := range stanzas {
		if !slices.Contains(strings.Fields(st["types"]), "deb") || disabled(st["enabled"]) {
			continue
		}
		for _, uri := range strings.Fields(st["uris"]) {
			for _, suite := range strings.Fields(st["suites"]) {
				if flat(suite) {
					continue
				}
				all = append(all, Source{
					URI: strings.TrimSuffix(uri, "/"), Suite: suite, Components: strings.Fields(st["components"]),
					Archs: fields(st["architectures"]), SignedBy: st["signed-by"],
				})
			}
		}
	}
	return all, nil
}

// fields is strings.Fields, but nil for nothing.
func fields(s string) []string {
	if strings.TrimSpace(s) == "" {
		return nil
	}
	return strings.Fields(s)
}

// disabled knows the words that apt takes for no (apt.conf(5)).
func disabled(v string) bool {
	return slices.Contains([]string{"no", "false", "without", "off", "disable", "0"}, strings.ToLower(v))
}

// flat tells an archive without suites, whose suite is a path.
func flat(suite string) bool { return strings.HasSuffix(suite, "/") }

// debianComponents are all that Debian's own archive has; "bookworm stable"
// or "bookworm nginx" is somebody else's archive.
var debianComponents = []string{"main", "contrib", "non-free", "non-free-firmware"}

// ForSuite picks Debian's own archives of a suite, with its updates and its
// security updates, out of a system's list, and cuts their components to those
// wanted. What others publish under the same suite is left out: it has
// components of its own, or is signed with a key of its own.
func ForSuite(all []Source, suite, arch string, components []string, keyring string) []Source {
	suites := []string{suite, suite + "-updates", suite + "-security", suite + "/updates"}
	var picked []Source
	for _, s := range all {
		s.Components = slices.DeleteFunc(slices.Clone(s.Components), func(c string) bool {
			return !slices.Contains(components, c) || !slices.Contains(debianComponents, c)
		})
		ok := slices.Contains(suites, s.Suite) && len(s.Components) > 0 && debianKey(s.SignedBy, keyring) &&
			(s.Archs == nil || slices.Contains(s.Archs, arch))
		s.Archs, s.SignedBy = nil, keyring
		if ok && !slices.ContainsFunc(picked, func(p Source) bool { return p.line(arch) == s.line(arch) }) {
			picked = append(picked, s)
		}
	}
	return picked
}

// debianKey says whether an entry's signed-by allows it to be Debian's: none
// at all, Debian's keyrings by their names, or the one that the recipe names.
func debianKey(signedBy, keyring string) bool {
	if signedBy == "" {
		return true
	}
	for _, k := range strings.FieldsFunc(signedBy, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' }) {
		if k == keyring || path.IsAbs(k) && strings.HasPrefix(path.Base(k), "debian-archive-") {
			return true
		}
	}
	return false
}

// line writes the entry as sources.list wants it.
func (s Source) line(arch string) string {
	return fmt.Sprintf("deb [arch=%s signed-by=%s] %s %s %s", arch, s.SignedBy, s.URI, s.Suite, strings.Join(s.Components, " "))
}
