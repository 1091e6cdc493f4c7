package bootspec

import (
	"path"
	"slices"
	"strings"
)

// nearest picks at most three names that were perhaps meant, by the edits
// between base names, nearest first.
func nearest(p string, names []string) []string {
	type scored struct {
		name string
		far  int
	}
	want := strings.ToLower(path.Base(p))
	list := make([]scored, 0, len(names))
	for _, n := range names {
		list = append(list, scored{n, edits(want, strings.ToLower(path.Base(n)))})
	}
	slices.SortStableFunc(list, func(a, b scored) int { return a.far - b.far })
	var out []string
	for _, s := range list[:min(3, len(list))] {
		out = append(out, s.name)
	}
	return out
}

// edits is the Levenshtein distance, over at most 64 bytes of each.
func edits(a, b string) int {
	a, b = a[:min(len(a), 64)], b[:min(len(b), 64)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
