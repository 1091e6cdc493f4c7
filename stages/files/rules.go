package files

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"rhizome/recipes"
)

// rule gives an owner or a mode to the paths that a glob matches.
type rule struct {
	glob     string
	uid, gid uint32
	mode     uint32
	used     bool
}

// rules are in the order of their weight: the longest glob first.
type rules struct{ owners, modes []*rule }

func newRules(f recipes.Files) (*rules, error) {
	var out rules
	for glob, text := range f.Owners {
		u, g, _ := strings.Cut(text, ":")
		uid, errU := strconv.ParseUint(u, 10, 32)
		gid, errG := strconv.ParseUint(g, 10, 32)
		if errU != nil || errG != nil {
			return nil, fmt.Errorf("the owner %q of %q is not of the form uid:gid", text, glob)
		}
		out.owners = append(out.owners, &rule{glob: glob, uid: uint32(uid), gid: uint32(gid)})
	}
	for glob, text := range f.Modes {
		mode, err := strconv.ParseUint(text, 8, 32)
		if err != nil || mode > 0o7777 {
			return nil, fmt.Errorf("the mode %q of %q is not octal", text, glob)
		}
		out.modes = append(out.modes, &rule{glob: glob, mode: uint32(mode)})
	}
	slices.SortFunc(out.owners, heavier)
	slices.SortFunc(out.modes, heavier)
	return &out, nil
}

func heavier(a, b *rule) int {
	if len(a.glob) != len(b.glob) {
		return len(b.glob) - len(a.glob)
	}
	return strings.Compare(a.glob, b.glob)
}

// owner looks up who a path belongs to.
func (r *rules) owner(p string) (uid, gid uint32, ok bool) {
	for _, rule := range r.owners {
		if !match(rule.glob, p) {
			continue
		}
		rule.used = true
		if !ok {
			uid, gid, ok = rule.uid, rule.gid, true
		}
	}
	return uid, gid, ok
}

// mode looks up permission bits. A folder's path ends in "/", and only globs
// that end so match it: "/srv/**: 0640" must not close the folders.
func (r *rules) mode(p string) (mode uint32, ok bool) {
	for _, rule := range r.modes {
		if strings.HasSuffix(rule.glob, "/") != strings.HasSuffix(p, "/") || !match(rule.glob, p) {
			continue
		}
		rule.used = true
		if !ok {
			mode, ok = rule.mode, true
		}
	}
	return mode, ok
}

// unused names a rule that matched nothing: most likely it is misspelt.
func (r *rules) unused() string {
	for _, rule := range slices.Concat(r.owners, r.modes) {
		if !rule.used {
			return rule.glob
		}
	}
	return ""
}

// match compares a path with a glob, component by component. "**" stands for
// any number of components, none included; the rest is as in path.Match.
func match(glob, p string) bool {
	return components(split(glob), split(p))
}

func split(p string) []string { return strings.Split(strings.Trim(p, "/"), "/") }

func components(glob, p []string) bool {
	for i, g := range glob {
		if g == "**" {
			rest := glob[i+1:]
			for j := 0; j <= len(p); j++ {
				if components(rest, p[j:]) {
					return true
				}
			}
			return false
		}
		if len(p) == 0 {
			return false
		}
		if ok, err := path.Match(g, p[0]); !ok || err != nil {
			return false
		}
		p = p[1:]
	}
	return len(p) == 0
}
