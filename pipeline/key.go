package pipeline

import (
	"fmt"
	"sort"
	"strings"

	"github.com/opencontainers/go-digest"
)

// stepKey is the digest of all that a step's output depends on: its kind and
// version, what it says of its inputs, and the content of the layers below it.
func stepKey(info Info, in Inputs, needs []Result) digest.Digest {
	var b strings.Builder
	fmt.Fprintf(&b, "rhizome stage key 1\nkind %q\nversion %d\n", info.Kind, info.Version)
	for _, name := range sortedNames(in) {
		fmt.Fprintf(&b, "input %q %q\n", name, in[name])
	}
	for i, r := range needs {
		for _, l := range r.Layers {
			fmt.Fprintf(&b, "below %d %s\n", i, l.DiffID)
		}
		for _, name := range sortedNames(r.Facts) {
			fmt.Fprintf(&b, "fact %d %q %q\n", i, name, r.Facts[name])
		}
	}
	return digest.FromString(b.String())
}

func sortedNames(m map[string]string) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// whyMiss says in a few words which input is not what it was when the step was
// last recorded.
func whyMiss(now, before Inputs, known bool) string {
	if !known {
		return "never built here"
	}
	var changed []string
	for _, n := range sortedNames(now) {
		if old, ok := before[n]; !ok {
			changed = append(changed, n+" is new")
		} else if old != now[n] {
			changed = append(changed, n+" changed")
		}
	}
	for _, n := range sortedNames(before) {
		if _, ok := now[n]; !ok {
			changed = append(changed, n+" is gone")
		}
	}
	if len(changed) == 0 {
		return "a layer below it changed, or rhizome's own stage did"
	}
	return strings.Join(changed, ", ")
}
