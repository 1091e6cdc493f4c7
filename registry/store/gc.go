package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rhizome/registry/layout"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Defaults of GCOptions.
const (
	DefaultGrace    = time.Hour
	DefaultCacheAge = 30 * 24 * time.Hour
	// keptRollbacks is how many earlier images of each cluster stay, so that
	// a rollback finds them.
	keptRollbacks = 2
)

// GCOptions steer a collection. The zero value removes what nothing needs.
type GCOptions struct {
	// DryRun removes nothing and says what would be.
	DryRun bool
	// Keep is how many tags of each name stay, the newest, beside those that
	// a pin or a node needs; 0 keeps every tag.
	Keep int
	// Grace keeps what was written or relied on more recently; 0 is
	// DefaultGrace, negative is none.
	Grace time.Duration
	// CacheAge forgets results of build steps that were not used for so long;
	// 0 is DefaultCacheAge, negative forgets all.
	CacheAge time.Duration
	// Needs tells what else needs images, beyond the store's own records; nil is
	// nothing. It is asked under the store's lock, and its error ends the
	// collection: what is needed is not known then.
	Needs func() ([]Need, error)
}

// Need is an image or manifest that must stay while it is here, and who needs
// it, for messages.
type Need struct {
	Digest digest.Digest
	Why    string
}

// GCReport says what a collection removed, or would remove.
type GCReport struct {
	DryRun bool `json:"dryRun"`
	// Untagged are tags that the retention rule dropped.
	Untagged []string        `json:"untagged,omitempty"`
	Blobs    []digest.Digest `json:"blobs,omitempty"`
	Derived  []digest.Digest `json:"derived,omitempty"`
	// Steps is how many results of build steps were forgotten.
	Steps int `json:"steps"`
	// Bytes is the size of what went, KeptBytes of what stayed.
	Bytes     int64 `json:"bytes"`
	KeptBytes int64 `json:"keptBytes"`
	// Young counts blobs that nothing needs but the grace period kept.
	Young int `json:"young"`
	// Leases are the running processes that were taken into account.
	Leases []LeaseInfo `json:"leases,omitempty"`
}

// GC removes what no tag, pin, mounted node, running build, cached step or other
// Need needs. An image of which the contents cannot be read stops it: what that
// image needs is not known then. A dry run of a store that is only looked at takes
// no lock, and may be a moment behind.
func (s *Store) GC(ctx context.Context, o GCOptions) (GCReport, error) {
	if s.images.Absent() {
		return GCReport{DryRun: o.DryRun}, nil
	}
	if !s.readOnly || !o.DryRun {
		release, err := s.images.Lock(ctx)
		if err != nil {
			return GCReport{}, err
		}
		defer release()
	}
	c := collection{s: s, o: o.withDefaults(), report: GCReport{DryRun: o.DryRun}, needed: map[digest.Digest]bool{}, strange: map[digest.Digest]bool{}}
	if err := c.run(ctx); err != nil {
		return c.report, fmt.Errorf("collecting garbage: %w", err)
	}
	return c.report, nil
}

func (o GCOptions) withDefaults() GCOptions {
	if o.Grace == 0 {
		o.Grace = DefaultGrace
	}
	if o.CacheAge == 0 {
		o.CacheAge = DefaultCacheAge
	}
	return o
}

// collection is one run, under the store's lock.
type collection struct {
	s      *Store
	o      GCOptions
	report GCReport
	needed map[digest.Digest]bool
	// strange are documents that were searched for what they name.
	strange map[digest.Digest]bool
	before  time.Time // what was used later stays
}

func (c *collection) run(ctx context.Context) error {
	if err := c.cutoff(); err != nil {
		return err
	}
	fixed, err := c.fixedRoots()
	if err != nil {
		return err
	}
	if err := c.retain(fixed); err != nil {
		return err
	}
	if err := c.markImages(ctx, fixed); err != nil {
		return err
	}
	if err := c.cachedSteps(); err != nil {
		return err
	}
	if err := c.sweepBlobs(); err != nil {
		return err
	}
	return c.sweepDerived()
}

// cutoff takes the grace period, or the beginning of the oldest running
// process that has not settled when that is earlier.
func (c *collection) cutoff() (err error) {
	c.before = c.s.now().Add(-max(c.o.Grace, 0))
	c.report.Leases, err = c.s.liveLeases()
	for _, l := range c.report.Leases {
		if !l.Settled && l.Since.Before(c.before) {
			c.before = l.Since
		}
	}
	return err
}

// root is an image that must stay, and why.
type root struct {
	digest digest.Digest
	why    string
	// wanted says that it may be gone already: an earlier image of a cluster.
	wanted bool
}

// fixedRoots lists all that is needed whatever the tags say.
func (c *collection) fixedRoots() (roots []root, err error) {
	for _, l := range c.report.Leases {
		for _, d := range l.Needs {
			roots = append(roots, root{d, fmt.Sprintf("process %d (%s)", l.PID, l.Purpose), true})
		}
	}
	mounts, err := c.s.Mounts()
	if err != nil {
		return nil, err
	}
	for _, m := range mounts {
		roots = append(roots, root{m.Manifest, fmt.Sprintf("the node %q, which has it mounted", m.Node), true})
	}
	clusters, err := c.s.Clusters()
	if err != nil {
		return nil, err
	}
	for _, name := range clusters {
		p, err := c.s.Pins(name)
		if err != nil {
			return nil, err
		}
		roots = append(roots, pinRoots(p)...)
	}
	return c.otherRoots(roots)
}

// otherRoots adds what the caller knows to be needed. It may be gone already:
// what needs it then has to do without.
func (c *collection) otherRoots(roots []root) ([]root, error) {
	if c.o.Needs == nil {
		return roots, nil
	}
	needs, err := c.o.Needs()
	for _, n := range needs {
		roots = append(roots, root{n.Digest, n.Why, true})
	}
	return roots, err
}

// pinRoots lists what a cluster boots, and what a rollback would.
func pinRoots(p Pins) []root {
	why := fmt.Sprintf("the pins of the cluster %q", p.Cluster)
	roots := []root{{p.Head, why, false}, {p.Boot, why, false}}
	for _, d := range p.Nodes {
		roots = append(roots, root{d, why, false})
	}
	kept := 0
	for _, change := range slices.Backward(p.History) {
		if kept == keptRollbacks {
			break
		}
		for _, m := range change.Moves {
			if m.From != "" {
				roots = append(roots, root{m.From, why, true})
			}
		}
		kept++
	}
	return roots
}

// retain drops tags by the retention rule.
func (c *collection) retain(fixed []root) error {
	if c.o.Keep <= 0 {
		return nil
	}
	tags, err := c.s.images.Tags(context.Background())
	if err != nil {
		return err
	}
	dated := make([]datedTag, 0, len(tags))
	for _, t := range tags {
		dated = append(dated, datedTag{t.Name, c.holds(t.Descriptor), c.s.taggedAt(t)})
	}
	c.report.Untagged = expired(dated, fixed, c.o.Keep)
	if c.o.DryRun || len(c.report.Untagged) == 0 {
		return nil
	}
	return c.s.changeTagsLocked(fmt.Sprintf("retention: the last %d are kept", c.o.Keep), func(idx *ocispec.Index) ([]TagChange, error) {
		var changes []TagChange
		for _, name := range c.report.Untagged {
			was, _ := layout.FindTag(*idx, name)
			layout.DropTag(idx, name)
			changes = append(changes, TagChange{Ref: name, From: was.Digest})
		}
		return changes, nil
	})
}

// holds are an image's digest and its nodes' manifests': a node has one of these
// mounted, and a cluster the whole image pinned. Of an image that cannot be read
// it is the first alone; marking stops at that.
func (c *collection) holds(d ocispec.Descriptor) []digest.Digest {
	all := []digest.Digest{d.Digest}
	nodes, err := c.s.Nodes(context.Background(), d)
	if err != nil {
		return all
	}
	for _, n := range nodes {
		all = append(all, n.Descriptor.Digest)
	}
	return all
}

type datedTag struct {
	name  string
	holds []digest.Digest
	at    time.Time
}

// expired decides which tags go: of each name all but the newest keep, unless
// something else needs the image.
func expired(tags []datedTag, fixed []root, keep int) []string {
	slices.SortStableFunc(tags, func(a, b datedTag) int { return b.at.Compare(a.at) })
	seen := map[string]int{}
	var gone []string
	for _, t := range tags {
		name := repository(t.name)
		seen[name]++
		needed := slices.ContainsFunc(fixed, func(r root) bool { return slices.Contains(t.holds, r.digest) })
		if seen[name] > keep && !needed {
			gone = append(gone, t.name)
		}
	}
	slices.Sort(gone)
	return gone
}

// markImages marks all that roots and remaining tags need.
func (c *collection) markImages(ctx context.Context, roots []root) error {
	idx, err := c.s.images.ReadIndex()
	if err != nil {
		return err
	}
	for _, d := range idx.Manifests {
		name := d.Annotations[ocispec.AnnotationRefName]
		if slices.Contains(c.report.Untagged, name) && name != "" {
			continue // still there in a dry run
		}
		if err := c.mark(ctx, d, fmt.Sprintf("the tag %q", name)); err != nil {
			return err
		}
	}
	for _, r := range roots {
		if err := c.markRoot(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

func (c *collection) markRoot(ctx context.Context, r root) error {
	if c.needed[r.digest] {
		return nil
	}
	d, err := c.s.images.Describe(ctx, r.digest)
	var missing *layout.NotFoundError
	if r.wanted && errors.As(err, &missing) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading what %s needs: %w", r.why, err)
	}
	return c.mark(ctx, d, r.why)
}

func (c *collection) mark(ctx context.Context, d ocispec.Descriptor, why string) error {
	if !layout.IsManifest(d.MediaType) {
		return c.markStrange(ctx, d, why)
	}
	return c.s.images.Walk(ctx, d, func(d ocispec.Descriptor, err error) error {
		c.needed[d.Digest] = true
		if err != nil {
			return unreadable(why, err)
		}
		return c.markListed(ctx, d, why)
	})
}

// cachedSteps forgets old results and marks the layers of the others.
func (c *collection) cachedSteps() error {
	files, err := c.s.Names(dirCache, ".json")
	if err != nil {
		return err
	}
	oldest := c.s.now().Add(-max(c.o.CacheAge, 0))
	for _, name := range files {
		file := c.s.path(dirCache, name)
		info, err := os.Stat(file)
		if err != nil {
			continue
		}
		if info.ModTime().Before(oldest) && info.ModTime().Before(c.before) {
			if err := c.forget(file); err != nil {
				return err
			}
			continue
		}
		c.markStep(file)
	}
	return nil
}

func (c *collection) forget(file string) error {
	if !strings.HasPrefix(filepath.Base(file), "last-") {
		c.report.Steps++
	}
	if c.o.DryRun {
		return nil
	}
	return c.s.fs.Remove(file)
}

// markStep keeps a step's layers. An entry that cannot be read is none.
func (c *collection) markStep(file string) {
	var e CacheEntry
	if c.s.readJSON(filepath.Join(dirCache, filepath.Base(file)), &e) != nil {
		return
	}
	for _, d := range e.Layers {
		c.needed[d.Digest] = true
	}
}

func (c *collection) sweepBlobs() error {
	blobs, err := c.s.images.Blobs()
	if err != nil {
		return err
	}
	for _, b := range blobs {
		if err := c.sweepBlob(b); err != nil {
			return err
		}
	}
	return nil
}

func (c *collection) sweepBlob(b layout.Stored) error {
	young := !b.Used.Before(c.before)
	if c.needed[b.Digest] || young {
		if young && !c.needed[b.Digest] {
			c.report.Young++
		}
		c.report.KeptBytes += b.Size
		return nil
	}
	if !c.o.DryRun {
		if gone, err := c.s.images.Collect(b.Digest, c.before); err != nil || !gone {
			return err
		}
	}
	c.report.Blobs = append(c.report.Blobs, b.Digest)
	c.report.Bytes += b.Size
	return nil
}

// sweepDerived removes copies of layers that went, and files that no note
// names: a crash came between the two.
func (c *collection) sweepDerived() error {
	files, err := c.s.Names(dirDerived, ".tar.zst")
	if err != nil {
		return err
	}
	for _, name := range files {
		info, err := os.Stat(c.s.path(dirDerived, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		diffID := digest.NewDigestFromEncoded(digest.SHA256, strings.TrimSuffix(name, ".tar.zst"))
		have, ok := c.s.derived(diffID)
		if ok && c.needed[have.Source] || !info.ModTime().Before(c.before) {
			c.report.KeptBytes += info.Size()
			continue
		}
		c.report.Derived = append(c.report.Derived, diffID)
		c.report.Bytes += info.Size()
		if c.o.DryRun {
			continue
		}
		if err := c.s.removeDerived(diffID); err != nil {
			return err
		}
	}
	return nil
}
