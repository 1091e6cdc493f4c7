package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxPinHistory bounds the log in a pin file; the oldest changes go first.
const maxPinHistory = 1000

// Pins say what a cluster boots. Head gives the nodes' identities and the
// network; it only moves forward, with a pin of the whole cluster, so that
// rolling roots back never brings an old card or address back.
type Pins struct {
	Cluster string `json:"cluster"`
	// Generation rises by one with every change.
	Generation int `json:"generation"`
	// Head and Boot are digests of cluster images; Boot is what a node boots
	// that is not in Nodes.
	Head  digest.Digest            `json:"head"`
	Boot  digest.Digest            `json:"boot"`
	Nodes map[string]digest.Digest `json:"nodes,omitempty"`
	// History holds the changes, the oldest first.
	History []PinChange `json:"history"`
}

// PinChange is one atomic switch.
type PinChange struct {
	Time time.Time `json:"time"`
	Who  string    `json:"who,omitempty"`
	Why  string    `json:"why"`
	// Generation is the one that the switch made.
	Generation int           `json:"generation"`
	HeadFrom   digest.Digest `json:"headFrom,omitempty"`
	HeadTo     digest.Digest `json:"headTo,omitempty"`
	Moves      []PinMove     `json:"moves"`
}

// PinMove says which nodes went from one image to another. Without Nodes it
// is every node that no other move of the same change names.
type PinMove struct {
	From  digest.Digest `json:"from,omitempty"`
	To    digest.Digest `json:"to"`
	Nodes []string      `json:"nodes,omitempty"`
}

// Of returns the image that a node boots next.
func (p Pins) Of(node string) digest.Digest {
	if d, ok := p.Nodes[node]; ok {
		return d
	}
	return p.Boot
}

// PinRequest asks for a switch.
type PinRequest struct {
	Cluster string
	Image   ocispec.Descriptor
	// Nodes limits the switch; nil is the whole cluster, and moves the head.
	Nodes []string
	// Generation is the one that the caller has seen; 0 accepts any. Another
	// one found is a *ConflictError.
	Generation int
}

func pinFile(cluster string) string { return filepath.Join(dirPins, cluster+".json") }

// Pins reads what a cluster boots; a *NotFoundError says that nobody pinned it.
func (s *Store) Pins(cluster string) (Pins, error) {
	var p Pins
	if err := checkName("cluster", cluster); err != nil {
		return p, err
	}
	err := s.readJSON(pinFile(cluster), &p)
	if errors.Is(err, fs.ErrNotExist) {
		return p, &NotFoundError{What: fmt.Sprintf("the cluster %q", cluster), Hint: fmt.Sprintf("rhizome pin %s REF makes it", cluster)}
	}
	return p, err
}

// Clusters lists the names that pins were made for.
func (s *Store) Clusters() ([]string, error) {
	names, err := s.Names(dirPins, ".json")
	for i, f := range names {
		names[i] = strings.TrimSuffix(f, ".json")
	}
	return names, err
}

// Pin makes nodes boot an image next, in one atomic switch. The image must be
// whole, and must know the nodes. It returns the pins before and after.
func (s *Store) Pin(ctx context.Context, r PinRequest) (before, after Pins, err error) {
	if err := s.images.Complete(ctx, r.Image); err != nil {
		return before, after, fmt.Errorf("pinning the cluster %q: %w", r.Cluster, err)
	}
	if err := s.checkNodes(ctx, r.Image, r.Nodes); err != nil {
		return before, after, fmt.Errorf("pinning the cluster %q: %w", r.Cluster, err)
	}
	return s.switchPins(ctx, r.Cluster, r.Generation, func(p Pins) (Pins, error) { return pinned(p, r) })
}

// checkNodes refuses nodes that the image does not have.
func (s *Store) checkNodes(ctx context.Context, image ocispec.Descriptor, want []string) error {
	if len(want) == 0 {
		return nil
	}
	nodes, err := s.Nodes(ctx, image)
	if err != nil {
		return err
	}
	have := nodeNames(nodes)
	for _, n := range want {
		if !slices.Contains(have, n) {
			return &NotFoundError{What: fmt.Sprintf("the node %q of the image %s", n, image.Digest), Hint: "rhizome inspect lists its nodes"}
		}
	}
	return nil
}

// pinned decides what a pin makes of a cluster's pins.
func pinned(p Pins, r PinRequest) (Pins, error) {
	if p.Head == "" && strings.ContainsFunc(r.Cluster, oddInName) {
		return p, &NameError{What: "cluster", Name: r.Cluster, Rule: "it may not hold a space or one of : @ , * ? [ ] \\"}
	}
	if len(r.Nodes) == 0 {
		return p.with(r.Image.Digest, r.Image.Digest, nil, "pin"), nil
	}
	if p.Head == "" {
		return p, &NotFoundError{What: fmt.Sprintf("the cluster %q", r.Cluster), Hint: "pin the whole cluster once before single nodes"}
	}
	nodes := cloneNodes(p.Nodes)
	for _, n := range r.Nodes {
		nodes[n] = r.Image.Digest
	}
	return p.with(p.Head, p.Boot, nodes, "pin"), nil
}

// oddInName says whether a letter keeps a new cluster from being told from an
// image or a set of nodes, or from standing in a table.
func oddInName(r rune) bool {
	return unicode.IsSpace(r) || !unicode.IsPrint(r) || strings.ContainsRune(`:@,*?[]\`, r)
}

// RollbackRequest asks for an earlier image.
type RollbackRequest struct {
	Cluster string
	// Nodes limits the rollback; nil is the whole cluster.
	Nodes []string
	// To names the image; empty takes the last switch back, or with Nodes
	// each node's last one. So a second rollback undoes the first.
	To         digest.Digest
	Generation int
}

// Rollback makes nodes boot an earlier image next, in one atomic switch. The
// head stays: only roots go back.
func (s *Store) Rollback(ctx context.Context, r RollbackRequest) (before, after Pins, err error) {
	return s.switchPins(ctx, r.Cluster, r.Generation, func(p Pins) (Pins, error) {
		next, err := rolledBack(p, r)
		if err != nil {
			return p, fmt.Errorf("rolling back the cluster %q: %w", r.Cluster, err)
		}
		return next, s.checkTargets(ctx, next)
	})
}

// checkTargets refuses pins to images that are not whole, and of single nodes
// to images that do not have them.
func (s *Store) checkTargets(ctx context.Context, p Pins) error {
	targets := map[digest.Digest][]string{p.Boot: nil}
	for n, d := range p.Nodes {
		targets[d] = append(targets[d], n)
	}
	for d, nodes := range targets {
		desc, err := s.images.Describe(ctx, d)
		if err == nil {
			err = s.images.Complete(ctx, desc)
		}
		if err == nil {
			err = s.checkNodes(ctx, desc, nodes)
		}
		if err != nil {
			return fmt.Errorf("rolling back the cluster %q: %w", p.Cluster, err)
		}
	}
	return nil
}

// rolledBack decides what a rollback makes of a cluster's pins.
func rolledBack(p Pins, r RollbackRequest) (Pins, error) {
	if p.Head == "" {
		return p, &NotFoundError{What: fmt.Sprintf("the cluster %q", r.Cluster), Hint: "it was never pinned"}
	}
	switch {
	case len(r.Nodes) > 0:
		return nodesBack(p, r)
	case r.To != "":
		return p.with(p.Head, r.To, nil, "rollback"), nil
	}
	return lastUndone(p)
}

// lastUndone takes the last switch back, whatever nodes it moved.
func lastUndone(p Pins) (Pins, error) {
	boot, nodes := p.Boot, cloneNodes(p.Nodes)
	for _, c := range slices.Backward(p.History) {
		if len(c.Moves) == 0 {
			continue // a pin to what was pinned already
		}
		for _, m := range c.Moves {
			if m.From == "" {
				break
			}
			if len(m.Nodes) == 0 {
				boot = m.From
			}
			for _, n := range m.Nodes {
				nodes[n] = m.From
			}
		}
		break
	}
	next := p.with(p.Head, boot, nodes, "rollback")
	if len(next.History[len(next.History)-1].Moves) == 0 {
		return p, noEarlier("")
	}
	return next, nil
}

func nodesBack(p Pins, r RollbackRequest) (Pins, error) {
	nodes := cloneNodes(p.Nodes)
	for _, n := range r.Nodes {
		to := r.To
		if to == "" {
			var err error
			if to, err = earlier(p, n); err != nil {
				return p, err
			}
		}
		nodes[n] = to
	}
	return p.with(p.Head, p.Boot, nodes, "rollback"), nil
}

func cloneNodes(nodes map[string]digest.Digest) map[string]digest.Digest {
	if nodes == nil {
		return map[string]digest.Digest{}
	}
	return maps.Clone(nodes)
}

// earlier finds what a node booted before its last change.
func earlier(p Pins, node string) (digest.Digest, error) {
	for _, c := range slices.Backward(p.History) {
		if m, ok := c.moveOf(node); ok && m.From != "" && m.From != m.To {
			return m.From, nil
		}
	}
	return "", noEarlier(node)
}

func noEarlier(node string) error {
	what := "an earlier image of the cluster"
	if node != "" {
		what = fmt.Sprintf("an earlier image of the node %q", node)
	}
	return &NotFoundError{What: what, Hint: "it has had one image only; name another with --to"}
}

// moveOf finds the move that a change made to a node, by name or as one of all.
func (c PinChange) moveOf(node string) (PinMove, bool) {
	var all *PinMove
	for _, m := range c.Moves {
		if slices.Contains(m.Nodes, node) {
			return m, true
		}
		if len(m.Nodes) == 0 {
			all = &m
		}
	}
	if all == nil {
		return PinMove{}, false
	}
	return *all, true
}

// with makes the next generation. Nodes that boot what all boot need no entry.
func (p Pins) with(head, boot digest.Digest, nodes map[string]digest.Digest, why string) Pins {
	next := p
	next.Head, next.Boot, next.Nodes = head, boot, maps.Clone(nodes)
	maps.DeleteFunc(next.Nodes, func(_ string, d digest.Digest) bool { return d == boot })
	next.Generation++
	change := PinChange{Why: why, Generation: next.Generation, Moves: moves(p, next)}
	if p.Head != head {
		change.HeadFrom, change.HeadTo = p.Head, head
	}
	next.History = append(slices.Clone(p.History), change)
	if n := len(next.History); n > maxPinHistory {
		next.History = next.History[n-maxPinHistory:]
	}
	return next
}

// moves lists what changed between two states: one move for all, and one for
// each group of nodes that differ.
func moves(from, to Pins) []PinMove {
	all := []PinMove{}
	if from.Boot != to.Boot {
		all = append(all, PinMove{From: from.Boot, To: to.Boot})
	}
	groups := map[[2]digest.Digest][]string{}
	for _, n := range union(from.Nodes, to.Nodes) {
		pair := [2]digest.Digest{from.Of(n), to.Of(n)}
		// A node that stays while all others move is named too, or it would
		// count as moved.
		if pair[0] != pair[1] || from.Boot != to.Boot {
			groups[pair] = append(groups[pair], n)
		}
	}
	for _, pair := range slices.SortedFunc(maps.Keys(groups), func(a, b [2]digest.Digest) int {
		return strings.Compare(string(a[0]+a[1]), string(b[0]+b[1]))
	}) {
		all = append(all, PinMove{From: pair[0], To: pair[1], Nodes: groups[pair]})
	}
	return all
}

func union(a, b map[string]digest.Digest) []string {
	names := cloneNodes(a)
	maps.Copy(names, b)
	return slices.Sorted(maps.Keys(names))
}

// switchPins replaces a cluster's pin file by what decide makes of it, under
// the store's lock.
func (s *Store) switchPins(ctx context.Context, cluster string, generation int, decide func(Pins) (Pins, error)) (before, after Pins, err error) {
	release, err := s.images.Lock(ctx)
	if err != nil {
		return before, after, err
	}
	defer release()
	before, err = s.Pins(cluster)
	var missing *NotFoundError
	if err != nil && !errors.As(err, &missing) {
		return before, after, err
	}
	before.Cluster = cluster
	if generation != 0 && generation != before.Generation {
		return before, after, &ConflictError{What: fmt.Sprintf("the cluster %q", cluster),
			Want: fmt.Sprintf("generation %d", generation), Have: fmt.Sprintf("generation %d", before.Generation)}
	}
	if after, err = decide(before); err != nil {
		return before, after, err
	}
	last := &after.History[len(after.History)-1]
	last.Time, last.Who = s.now().UTC(), s.who
	return before, after, s.writeJSON(pinFile(cluster), after)
}
