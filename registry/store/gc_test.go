package store_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rhizome/registry/registrytest"
	"rhizome/registry/store"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// old makes the whole store older than every grace period and collects.
func collect(t *testing.T, s *store.Store, o store.GCOptions) store.GCReport {
	t.Helper()
	age(t, s, 3*time.Hour)
	report, err := s.GC(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func whole(s *store.Store, d ocispec.Descriptor) bool {
	return s.Images().Complete(context.Background(), d) == nil
}

func TestGarbageIsWhatNothingNeeds(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		name string
		need func(t *testing.T, s *store.Store, image ocispec.Descriptor)
		kept bool
	}{
		{"nothing", func(*testing.T, *store.Store, ocispec.Descriptor) {}, false},
		{"a tag", func(t *testing.T, s *store.Store, d ocispec.Descriptor) { tag(t, s, d, "web:1") }, true},
		{"a tag that was dropped", func(t *testing.T, s *store.Store, d ocispec.Descriptor) {
			tag(t, s, d, "web:1")
			if err := s.Untag(ctx, "web:1"); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"a pin", func(t *testing.T, s *store.Store, d ocispec.Descriptor) { pin(t, s, d) }, true},
		{"a pin that a rollback would find", func(t *testing.T, s *store.Store, d ocispec.Descriptor) {
			pin(t, s, d)
			pin(t, s, registrytest.Cluster(t, s.Images(), 50))
		}, true},
		{"a process that names it", func(t *testing.T, s *store.Store, d ocispec.Descriptor) {
			lease, err := s.Lease(ctx, "serve", d.Digest)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(lease.Close)
		}, true},
		{"a process that ended", func(t *testing.T, s *store.Store, d ocispec.Descriptor) {
			lease, err := s.Lease(ctx, "serve", d.Digest)
			if err != nil {
				t.Fatal(err)
			}
			lease.Close()
		}, false},
		{"a name that another program wrote into the index", func(t *testing.T, s *store.Store, d ocispec.Descriptor) {
			if err := s.Images().Tag(ctx, d, "anything"); err != nil {
				t.Fatal(err)
			}
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t, t.TempDir(), store.Options{})
			image := registrytest.Cluster(t, s.Images(), 1)
			c.need(t, s, image)
			dry := collect(t, s, store.GCOptions{DryRun: true})
			if !whole(s, image) {
				t.Fatal("a dry run removed it")
			}
			wet := collect(t, s, store.GCOptions{})
			if whole(s, image) != c.kept {
				t.Errorf("kept: %v", whole(s, image))
			}
			if !slices.Equal(dry.Blobs, wet.Blobs) || dry.Bytes != wet.Bytes {
				t.Errorf("the dry run said %d blobs, %d went", len(dry.Blobs), len(wet.Blobs))
			}
		})
	}
}

func pin(t *testing.T, s *store.Store, d ocispec.Descriptor) {
	t.Helper()
	if _, _, err := s.Pin(context.Background(), store.PinRequest{Cluster: "web", Image: d}); err != nil {
		t.Fatal(err)
	}
}

func TestANodeKeepsTheManifestThatItHasMounted(t *testing.T) {
	ctx := context.Background()
	s := open(t, t.TempDir(), store.Options{})
	image := registrytest.Cluster(t, s.Images(), 1)
	nodes, err := s.Nodes(ctx, image)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetMounted("web", "n1", nodes[0].Descriptor.Digest); err != nil {
		t.Fatal(err)
	}
	collect(t, s, store.GCOptions{})
	if !whole(s, nodes[0].Descriptor) || whole(s, nodes[1].Descriptor) {
		t.Errorf("n1 whole: %v, n2 whole: %v", whole(s, nodes[0].Descriptor), whole(s, nodes[1].Descriptor))
	}
	if err := s.ClearMounted("web", "n1"); err != nil {
		t.Fatal(err)
	}
	collect(t, s, store.GCOptions{})
	if whole(s, nodes[0].Descriptor) {
		t.Error("it stays although the node is off")
	}
}

func TestWhatOthersNeedStaysAndNotKnowingItStopsTheCollection(t *testing.T) {
	s := open(t, t.TempDir(), store.Options{})
	image := registrytest.Cluster(t, s.Images(), 1)
	nodes, err := s.Nodes(context.Background(), image)
	if err != nil {
		t.Fatal(err)
	}
	unknown := errors.New("the changes cannot be read")
	age(t, s, 3*time.Hour)
	if _, err := s.GC(context.Background(), store.GCOptions{Needs: func() ([]store.Need, error) { return nil, unknown }}); !errors.Is(err, unknown) {
		t.Fatalf("not knowing what is needed, it collected: %v", err)
	}
	gone := digest.FromString("an image that went before its changes were looked at")
	collect(t, s, store.GCOptions{Needs: func() ([]store.Need, error) {
		return []store.Need{{Digest: nodes[0].Descriptor.Digest, Why: "n1"}, {Digest: gone, Why: "n2"}}, nil
	}})
	if !whole(s, nodes[0].Descriptor) || whole(s, nodes[1].Descriptor) {
		t.Errorf("n1 whole: %v, n2 whole: %v", whole(s, nodes[0].Descriptor), whole(s, nodes[1].Descriptor))
	}
}

func TestTheYoungAreSparedAndTheGracePeriodSaysHowYoung(t *testing.T) {
	ctx := context.Background()
	s := open(t, t.TempDir(), store.Options{})
	image := registrytest.Cluster(t, s.Images(), 1)
	report, err := s.GC(ctx, store.GCOptions{})
	if err != nil || !whole(s, image) || report.Young == 0 {
		t.Errorf("a young image: %+v, %v", report, err)
	}
	report, err = s.GC(ctx, store.GCOptions{Grace: -1})
	if err != nil || whole(s, image) || report.Bytes == 0 {
		t.Errorf("without grace: %+v, %v", report, err)
	}
}

// What a build wrote long ago must stay while it runs, whatever the grace.
func TestARunningBuildKeepsWhatItWrote(t *testing.T) {
	ctx := context.Background()
	s := open(t, t.TempDir(), store.Options{})
	lease, err := s.Lease(ctx, "build")
	if err != nil {
		t.Fatal(err)
	}
	image := registrytest.Cluster(t, s.Images(), 1)
	report, err := s.GC(ctx, store.GCOptions{Grace: -1})
	if err != nil || !whole(s, image) || len(report.Leases) != 1 || report.Leases[0].PID != os.Getpid() {
		t.Errorf("while it runs: %+v, %v", report, err)
	}
	lease.Close()
	if _, err := s.GC(ctx, store.GCOptions{Grace: -1}); err != nil || whole(s, image) {
		t.Errorf("after it ended: whole %v, %v", whole(s, image), err)
	}
}

// A server that has been up for a year must not keep the year's builds.
func TestAServerKeepsWhatItServesAndNotAllThatWasWrittenSinceItBegan(t *testing.T) {
	ctx := context.Background()
	s := open(t, t.TempDir(), store.Options{})
	lease, err := s.Lease(ctx, "serve")
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Close()
	first, second, others := registrytest.Cluster(t, s.Images(), 1), registrytest.Cluster(t, s.Images(), 2), registrytest.Cluster(t, s.Images(), 3)
	if err := lease.Need(first.Digest); err != nil {
		t.Fatal(err)
	}
	if err := lease.Settle(second.Digest); err != nil {
		t.Fatal(err)
	}
	if _, err := s.GC(ctx, store.GCOptions{Grace: -1}); err != nil {
		t.Fatal(err)
	}
	if whole(s, first) || !whole(s, second) || whole(s, others) {
		t.Errorf("whole: served before %v, served %v, of others %v", whole(s, first), whole(s, second), whole(s, others))
	}
}

func TestLayersOfCachedStepsStayAsLongAsTheSteps(t *testing.T) {
	ctx := context.Background()
	s := open(t, t.TempDir(), store.Options{})
	layer := registrytest.OurLayer(t, s.Images(), registrytest.Tar(1, 1, 1000))
	key := digest.FromString("key")
	if err := s.CachePut(ctx, key, "web", "base", []byte(`{}`), []ocispec.Descriptor{layer.Descriptor}); err != nil {
		t.Fatal(err)
	}
	collect(t, s, store.GCOptions{})
	if _, ok, err := s.CacheGet(ctx, key); !ok || err != nil {
		t.Errorf("after a collection: %v, %v", ok, err)
	}
	report := collect(t, s, store.GCOptions{CacheAge: time.Hour})
	if _, ok, _ := s.CacheGet(ctx, key); ok || report.Steps != 1 || len(report.Blobs) != 1 {
		t.Errorf("it is still cached: %v, %+v", ok, report)
	}
}

func TestTheRetentionRuleKeepsTheLastTagsAndAllThatIsPinned(t *testing.T) {
	c := &clock{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	s := open(t, t.TempDir(), store.Options{Now: c.now})
	var images []ocispec.Descriptor
	for i, name := range []string{"web:1", "web:2", "web:3", "web:4", "db:1"} {
		d := registrytest.Cluster(t, s.Images(), uint64(i+1))
		images = append(images, d)
		tag(t, s, d, name)
	}
	pin(t, s, images[0])
	c.t = time.Now().Add(3 * time.Hour)
	dry, err := s.GC(context.Background(), store.GCOptions{Keep: 2, DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	report, err := s.GC(context.Background(), store.GCOptions{Keep: 2})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"web:2"}; !slices.Equal(report.Untagged, want) || !slices.Equal(dry.Untagged, want) || !slices.Equal(dry.Blobs, report.Blobs) {
		t.Errorf("untagged %q (dry %q), want %q", report.Untagged, dry.Untagged, want)
	}
	for i, want := range []bool{true, false, true, true, true} {
		if whole(s, images[i]) != want {
			t.Errorf("image %d whole: %v", i, !want)
		}
	}
	if h, err := s.History(context.Background(), "web:2"); err != nil || h[0].To != "" || !strings.Contains(h[0].Why, "retention") {
		t.Errorf("the history does not say why: %+v, %v", h, err)
	}
}

// TestTheRetentionRuleKeepsTheTagOfAMountedImage: a node has one manifest of an
// image mounted, and the tag names the whole.
func TestTheRetentionRuleKeepsTheTagOfAMountedImage(t *testing.T) {
	ctx := context.Background()
	s := open(t, t.TempDir(), store.Options{})
	for i, name := range []string{"web:1", "web:2", "web:3"} {
		d := registrytest.Cluster(t, s.Images(), uint64(i+1))
		tag(t, s, d, name)
		if name != "web:1" {
			continue
		}
		nodes, err := s.Nodes(ctx, d)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.SetMounted("web", "n2", nodes[1].Descriptor.Digest); err != nil {
			t.Fatal(err)
		}
	}
	report := collect(t, s, store.GCOptions{Keep: 1})
	if want := []string{"web:2"}; !slices.Equal(report.Untagged, want) {
		t.Errorf("untagged %q, want %q", report.Untagged, want)
	}
}

// TestACollectionLeavesAloneWhatIsTheNodes: nothing but blobs, copies and
// results of steps goes, however old the rest is.
func TestACollectionLeavesAloneWhatIsTheNodes(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, store.Options{})
	registrytest.Cluster(t, s.Images(), 1)
	files := []string{
		"persist/web/n1/home/ada/thesis.tex", "cow/web/n1/changes/%2Fetc/journal", "cow/web/n1/changes/%2Fetc/bodies/7",
		"cow/web/n1/persist/journal", "secrets/web/n1/ssh/ssh_host_rsa_key", "events/web/2026-01-01.jsonl", "reads/web/n1",
		"what/a/later/version/keeps",
	}
	for _, f := range files {
		name := filepath.Join(dir, filepath.FromSlash(f))
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(f), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	age(t, s, 400*24*time.Hour)
	report, err := s.GC(context.Background(), store.GCOptions{Keep: 1, Grace: -1, CacheAge: -1})
	if err != nil || len(report.Blobs) == 0 {
		t.Fatalf("%+v, %v", report, err)
	}
	open(t, dir, store.Options{}) // which sweeps
	for _, f := range files {
		if got, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(f))); string(got) != f {
			t.Errorf("%s: %v", f, err)
		}
	}
}

func TestACopyGoesWithItsLayer(t *testing.T) {
	ctx := context.Background()
	s := open(t, t.TempDir(), store.Options{})
	layer := registrytest.GzipLayer(t, s.Images(), registrytest.Tar(1, 1, 1000))
	image := registrytest.Manifest(t, s.Images(), "n1", layer)
	tag(t, s, image, "web:1")
	if err := s.DeriveAll(ctx, image); err != nil {
		t.Fatal(err)
	}
	if report := collect(t, s, store.GCOptions{}); len(report.Derived) != 0 {
		t.Errorf("a copy of a tagged image went: %+v", report)
	}
	if err := s.Untag(ctx, "web:1"); err != nil {
		t.Fatal(err)
	}
	if report := collect(t, s, store.GCOptions{}); len(report.Derived) != 1 {
		t.Errorf("the copy of an image that went stays: %+v", report)
	}
	if left, _ := os.ReadDir(s.Dir() + "/derived"); len(left) > 0 {
		t.Errorf("derived/ has %v", left)
	}
}

// What a damaged manifest needs is not known, so nothing may go.
func TestADamagedManifestStopsTheCollection(t *testing.T) {
	ctx := context.Background()
	s := open(t, t.TempDir(), store.Options{})
	image := registrytest.Cluster(t, s.Images(), 1)
	tag(t, s, image, "web:1")
	nodes, _ := s.Nodes(ctx, image)
	path, _ := s.Images().Path(nodes[0].Descriptor.Digest)
	flip(t, path)
	before, _ := s.Images().Blobs()
	_, err := s.GC(ctx, store.GCOptions{Grace: -1})
	if err == nil || !strings.Contains(err.Error(), "verify --repair") {
		t.Errorf("it gives %v", err)
	}
	if after, _ := s.Images().Blobs(); len(after) != len(before) {
		t.Errorf("%d of %d blobs are left", len(after), len(before))
	}
}

// A build that was stopped goes on in its folder; the folder of a step that nobody
// builds any more went nowhere, and grew with every change of a recipe.
func TestTheWorkOfAStepThatNobodyBuildsIsSwept(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	s := open(t, dir, store.Options{})
	work := func(step string) (folder string, unlock func()) {
		key := digest.FromString(step)
		unlock, err := s.LockKey(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		if folder, err = s.WorkDir(key); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(folder, "obj", "deep"), 0o755); err != nil {
			t.Fatal(err)
		}
		return folder, unlock
	}
	old, unlock := work("old")
	unlock()
	busy, unlockBusy := work("busy")
	defer unlockBusy()
	again, unlock := work("used again")
	unlock()
	age(t, s, 60*24*time.Hour)
	other := filepath.Join(dir, "tmp", "somebody-elses")
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := s.WorkDir(digest.FromString("used again")); err != nil {
		t.Fatal(err)
	}
	open(t, dir, store.Options{}) // which sweeps
	for folder, want := range map[string]bool{old: false, busy: true, again: true, other: true} {
		if _, err := os.Stat(folder); (err == nil) != want {
			t.Errorf("%s is there: %t, want %t", filepath.Base(folder), err == nil, want)
		}
	}
}
