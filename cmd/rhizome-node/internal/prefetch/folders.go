package prefetch

import (
	"maps"
	"path"
	"slices"
	"strings"
)

// maxFolders is how many folders are asked about anew.
const maxFolders = 1000

// foldersOf lists the folders that changed paths lie in, from those around the
// leased paths downwards.
func foldersOf(tops []string, changed []Change) []string {
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
		}
	}
	sorted := slices.Sorted(maps.Keys(all)) // parents are first: they are shorter
	return sorted[:min(len(sorted), maxFolders)]
}
