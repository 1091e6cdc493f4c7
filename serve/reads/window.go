package reads

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"rhizome/serve/rootfs"
)

// maxFiles is how many files of one window are kept: those that were asked
// about most.
const maxFiles = 20000

// snapshot is what a boot has counted so far, by root.
func (c *bootCount) snapshot() map[[16]byte]map[rootfs.File]Counts {
	out := map[[16]byte]map[rootfs.File]Counts{}
	for id, t := range c.tables {
		out[id] = t.snapshot()
	}
	return out
}

// grown says whether there is more than was kept last.
func (c *bootCount) grown() bool {
	total := uint64(0)
	for _, t := range c.tables {
		for _, n := range t.snapshot() {
			total += n.All()
		}
	}
	grown := total > c.kept
	c.kept = total
	return grown
}

// closeBoot writes what was counted since the mount into the record.
func (c *bootCount) closeBoot(now time.Time, up bool) {
	w := Window{Name: BootWindow, Began: c.record.Began, Ended: now.UTC(), Open: !up, Files: c.files(nil)}
	c.record.Windows = slices.DeleteFunc(c.record.Windows, func(w Window) bool { return w.Name == BootWindow })
	c.record.Windows = append([]Window{w}, c.record.Windows...)
	c.record.Truncated = c.full.Load()
	c.up = c.up || up
}

// finish is the record of a boot that is over, if there is more of it than was
// kept.
func (c *bootCount) finish(now time.Time) []Record {
	if c.up || !c.grown() {
		return nil
	}
	c.closeBoot(now, false)
	return []Record{c.record.clone()}
}

// files are the counts since then by path, those with most calls first. A file
// of two images counts once.
func (c *bootCount) files(then map[[16]byte]map[rootfs.File]Counts) []File {
	byPath := map[string]Counts{}
	for id, t := range c.tables {
		now := t.snapshot()
		for f, n := range now {
			if n = n.since(then[id][f]); n.All() == 0 {
				delete(now, f)
			} else {
				now[f] = n
			}
		}
		for p, n := range paths(c.views[id], now) {
			sum := byPath[p]
			sum.Add(n)
			byPath[p] = sum
		}
	}
	out := make([]File, 0, len(byPath))
	for p, n := range byPath {
		out = append(out, File{p, n})
	}
	slices.SortFunc(out, func(a, b File) int {
		return cmp.Or(cmp.Compare(b.All(), a.All()), strings.Compare(a.Path, b.Path))
	})
	return out[:min(len(out), maxFiles)]
}
