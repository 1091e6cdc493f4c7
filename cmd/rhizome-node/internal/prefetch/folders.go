package prefetch

import (
	"archive/tar"
	"maps"
	"path"
	"slices"
	"strings"
)

// maxOutdated is how many paths are asked about anew.
const maxOutdated = 1000

// outdated lists the folders that changed paths lie in, from those around the
// leased paths downwards, and what may have new attributes under its old
// handle: folders, and files whose bytes stayed.
func outdated(tops []string, changed []Change) []string {
	all := map[string]bool{}
	for _, top := range tops {
		all[path.Dir(top)] = true
		for _, c := range changed {
			if !strings.HasPrefix(c.Path, top+"/") {
				continue
			}
			for d := path.Dir(c.Path); len(d) >= len(top); d = path.Dir(d) {
				all[d] = true
			}
			if c.kept() {
				all[c.Path] = true
			}
		}
	}
	sorted := slices.Sorted(maps.Keys(all)) // parents are first: they are shorter
	return sorted[:min(len(sorted), maxOutdated)]
}

func (c *Change) kept() bool {
	return !c.Removed && (c.Meta || c.Entry.Type == tar.TypeDir)
}
