package reads

import "slices"

// Picked is what there is to learn from.
type Picked struct {
	Windows []Window
	// Bundled counts windows left out because the node held a bundle, and did
	// not ask for what is in it.
	Bundled int
	// Names are those of all windows that are known.
	Names []string
}

// Pick takes the windows with these names out of the newest boots of each node
// that have any. Records are those of Shelf.Load: by nodes, the newest first. A
// boot that was seen in part is no measure of a boot, though its jobs are.
func Pick(records []Record, names []string, boots int) Picked {
	var p Picked
	taken := map[string]int{}
	for _, r := range records {
		found := 0
		for _, w := range r.Windows {
			if !slices.Contains(p.Names, w.Name) {
				p.Names = append(p.Names, w.Name)
			}
			if !slices.Contains(names, w.Name) || w.Name == BootWindow && r.Partial || taken[r.Node] >= boots {
				continue
			}
			if r.Bundle {
				p.Bundled++
				continue
			}
			found = 1
			p.Windows = append(p.Windows, w)
		}
		taken[r.Node] += found
	}
	slices.Sort(p.Names)
	return p
}
