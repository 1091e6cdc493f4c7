package reads

import (
	"strings"
	"testing"
)

func TestTheNewestBootsOfEachNodeAreLearnedFrom(t *testing.T) {
	record := func(node, root string, names ...string) Record {
		r := Record{Node: node, Bundle: root == "bundle", Partial: root == "partial"}
		for _, n := range names {
			r.Windows = append(r.Windows, Window{Name: n, Files: []File{{node + " " + root, Counts{Calls: 1}}}})
		}
		return r
	}
	records := []Record{
		record("n1", "bundle", "boot"), record("n1", "partial", "boot", "build"), record("n1", "new", "boot"),
		record("n1", "old", "boot"), record("n1", "older", "boot"), record("n2", "new", "boot", "build"),
	}
	for _, c := range []struct {
		names   string
		boots   int
		want    string
		bundled int
	}{
		{"boot", 2, "n1 new, n1 old, n2 new", 1},
		{"build", 2, "n1 partial, n2 new", 0},
		{"boot build", 1, "n1 partial, n2 new, n2 new", 1},
		{"nothing", 1, "", 0},
	} {
		p := Pick(records, strings.Fields(c.names), c.boots)
		var got []string
		for _, w := range p.Windows {
			got = append(got, w.Files[0].Path)
		}
		if s := strings.Join(got, ", "); s != c.want || p.Bundled != c.bundled {
			t.Errorf("%s of %d boots: %q with %d left out, want %q and %d", c.names, c.boots, s, p.Bundled, c.want, c.bundled)
		}
	}
}
