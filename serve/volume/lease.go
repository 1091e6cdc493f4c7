package volume

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rhizome/registry/durable"
	"rhizome/serve/node/nodeapi"
)

// lease is a leased region as it is kept.
type lease struct {
	nodeapi.Lease
	// Boot is the holder's; a new one ends the lease.
	Boot string        `json:"boot"`
	TTL  time.Duration `json:"ttl"`
	// Regions are the leased paths as exports have them: the export's name,
	// and what lies below, so that two nodes' names for one place compare.
	Regions []string `json:"regions"`
	// Commit is the id of the last commit that was done, in Version.
	Commit string `json:"commit,omitempty"`
}

// leases are those of one cluster, in a file that is replaced with every
// change. They are few; a server that starts anew reads them again.
type leases struct {
	path string
	all  map[string]*lease
}

// keepExpired is how long a lease is known after its end: its holder may come
// back with changes yet.
const keepExpired = 7 * 24 * time.Hour

// openLeases reads the leases of a cluster. Nobody could renew while no server
// ran: all get their time anew.
func openLeases(path string, now time.Time) (*leases, error) {
	t := &leases{path: path, all: map[string]*lease{}}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &t.all)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the leases of regions: %w", err)
	}
	for id, l := range t.all {
		if l == nil || now.Sub(l.Expires) > keepExpired {
			delete(t.all, id)
			continue
		}
		if again := now.Add(l.TTL); l.Expires.Before(again) {
			l.Expires = again
		}
	}
	return t, nil
}

func (t *leases) save() error {
	data, err := json.Marshal(t.all)
	if err != nil {
		return err
	}
	if err := durable.WriteBytes(durable.OS{}, "", t.path, 0o600, append(data, '\n')); err != nil {
		return fmt.Errorf("noting a lease: %w", err)
	}
	return nil
}

// change does something to a lease and keeps it; what cannot be kept is undone.
func (t *leases) change(l *lease, with func(*lease)) error {
	old := *l
	with(l)
	if err := t.save(); err != nil {
		*l = old
		return err
	}
	return nil
}

func (t *leases) add(l *lease) error {
	t.all[l.ID] = l
	if err := t.save(); err != nil {
		delete(t.all, l.ID)
		return err
	}
	return nil
}

// maxLeases is how many leases of one node are known. All of a cluster lie in one
// file, which is written with each change.
const maxLeases = 512

// makeRoom sees to it that a node may have one more. Those that ended are forgotten
// first.
func (t *leases) makeRoom(node string) error {
	var oldest *lease
	n := 0
	for _, l := range t.all {
		if l.Node != node {
			continue
		}
		if n++; l.Expired && (oldest == nil || l.Expires.Before(oldest.Expires)) {
			oldest = l
		}
	}
	switch {
	case n < maxLeases:
		return nil
	case oldest == nil:
		return wrong("node %q has %d leases already: free some first", node, n)
	}
	delete(t.all, oldest.ID)
	return nil
}

// drop ends leases.
func (t *leases) drop(which func(*lease) bool) error {
	old := len(t.all)
	for id, l := range t.all {
		if which(l) {
			delete(t.all, id)
		}
	}
	if len(t.all) == old {
		return nil
	}
	return t.save()
}

// expire tells which leases ended since the last look.
func (t *leases) expire(now time.Time) (ended []*lease) {
	for id, l := range t.all {
		if !l.Expired && now.After(l.Expires) {
			l.Expired = true
			ended = append(ended, l)
		}
		if now.Sub(l.Expires) > keepExpired {
			delete(t.all, id)
		}
	}
	return ended
}

// clash is a lease that keeps another from having regions in a mode: one of
// the two writes, and one lies in the other.
func (t *leases) clash(regions []string, mode, except string) *lease {
	for _, l := range t.sorted() {
		if l.ID == except || l.Expired || mode == nodeapi.Read && l.Mode == nodeapi.Read {
			continue
		}
		if slices.ContainsFunc(regions, func(r string) bool {
			return slices.ContainsFunc(l.Regions, func(o string) bool { return overlap(r, o) })
		}) {
			return l
		}
	}
	return nil
}

func (t *leases) sorted() []*lease {
	var all []*lease
	for _, l := range t.all {
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b *lease) int { return strings.Compare(a.ID, b.ID) })
	return all
}

// overlap tells whether one of two regions is the other, or lies in it.
func overlap(a, b string) bool {
	return strings.HasPrefix(a+"/", b+"/") || strings.HasPrefix(b+"/", a+"/")
}

// taken is the refusal because of another's lease.
func taken(l *lease, now time.Time) error {
	return &nodeapi.ConflictError{Conflict: nodeapi.Conflict{
		Error:  fmt.Sprintf("node %q has %s leased to %s for %v more", l.Node, strings.Join(l.Paths, " "), l.Mode, l.Expires.Sub(now).Round(time.Second)),
		Holder: l.Node, Expires: l.Expires,
	}}
}

// leasesOf opens the leases of a cluster, or finds them open; r.mu is held.
func (r *Regions) leasesOf(cluster string) (*leases, error) {
	if t := r.clusters[cluster]; t != nil {
		return t, nil
	}
	state, err := r.v.state(cluster, sharedOwner)
	if err != nil {
		return nil, err
	}
	t, err := openLeases(filepath.Join(state.dir, "leases.json"), r.v.config.Now())
	if err != nil {
		return nil, err
	}
	if r.clusters == nil {
		r.clusters = map[string]*leases{}
	}
	r.clusters[cluster] = t
	return t, nil
}
