package precache

import (
	"path"
	"strings"
)

// match compares a path with a glob, component by component. "**" stands for
// any number of components, none included; the rest is as in path.Match.
func match(glob, p string) bool { return components(split(glob), split(p)) }

func split(p string) []string {
	return strings.FieldsFunc(p, func(r rune) bool { return r == '/' })
}

func components(glob, p []string) bool {
	for i, g := range glob {
		if g == "**" {
			for j := 0; j <= len(p); j++ {
				if components(glob[i+1:], p[j:]) {
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
