package main

import (
	"context"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rhizome/registry/ref"
	"rhizome/registry/registrytest"
	"rhizome/registry/store"
	"rhizome/serve"
	"rhizome/serve/boot"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// site is a registry behind a proxy that can be pulled out, and the desk from
// which images are pushed to it.
type site struct {
	t     *testing.T
	proxy *registrytest.Proxy
	desk  *host
	name  string
	away  atomic.Bool
}

func newSite(t *testing.T) *site {
	s := &site{t: t, proxy: registrytest.NewProxy(t, registrytest.Docker(t, "docker-registry").Host), desk: testHost(t)}
	s.name = s.proxy.Host() + "/rack/web:1"
	s.proxy.SetHook(func(http.ResponseWriter, *http.Request) bool {
		if s.away.Load() {
			panic(http.ErrAbortHandler)
		}
		return false
	})
	return s
}

// push makes the tag mean an image of one node with a layer of its own.
func (s *site) push(seed uint64) ocispec.Descriptor {
	s.t.Helper()
	images := s.desk.store.Images()
	return s.pushIndex(registrytest.Index(s.t, images, registrytest.Manifest(s.t, images, "n1",
		registrytest.OurLayer(s.t, images, registrytest.Tar(seed, 1, 300_000)))))
}

func (s *site) pushIndex(index ocispec.Descriptor) ocispec.Descriptor {
	s.t.Helper()
	dest, err := ref.Parse(s.name)
	if err != nil {
		s.t.Fatal(err)
	}
	link, err := s.desk.link(registryFlags{plainHTTP: true}, s.desk.store)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := link.Push(context.Background(), index, dest); err != nil {
		s.t.Fatal(err)
	}
	return index
}

// looks asks once, and wants these events.
func looks(t *testing.T, h *host, want ...boot.Kind) []boot.Event {
	t.Helper()
	got := h.look(context.Background(), h.tag)
	var kinds []boot.Kind
	for _, e := range got {
		kinds = append(kinds, e.Kind)
	}
	if len(kinds) != len(want) {
		t.Fatalf("events %v, want %v", got, want)
	}
	for i := range want {
		if kinds[i] != want[i] {
			t.Fatalf("events %v, want %v", got, want)
		}
	}
	return got
}

func bootsFrom(t *testing.T, h *host, seed int) {
	t.Helper()
	if _, err := onlyMachine(t, h).View.Open("/data/file" + string(rune('0'+seed)) + "-0"); err != nil {
		t.Errorf("nodes do not boot image %d: %v", seed, err)
	}
}

// Issue 6, item 6: serve follows a tag of a registry: a new image is booted once
// it is there, a registry that goes away changes nothing, and each is told once.
func TestServeFollowsATagOfARegistry(t *testing.T) {
	s := newSite(t)
	s.push(1)
	h, began := remoteHost(t, s.name)
	close(h.serving)
	looks(t, h)

	second := s.push(2)
	if e := looks(t, h, boot.TagSwitched)[0]; e.Digest != second.Digest.String() || e.Error != "" || e.Detail != s.name {
		t.Errorf("event %+v", e)
	}
	bootsFrom(t, h, 2)
	looks(t, h)
	if v, err := h.fleet.ByID(began.View.ID(), began.Node.Address); err != nil || v != began.View {
		t.Errorf("a node that runs the first image has lost its root: %v", err)
	}

	s.away.Store(true)
	if e := looks(t, h, boot.RegistryAway)[0]; !strings.Contains(e.Error, "nodes go on booting what they did") {
		t.Errorf("event %+v", e)
	}
	looks(t, h)
	bootsFrom(t, h, 2)
	s.away.Store(false)
	looks(t, h, boot.RegistryBack)
	h.filling.Wait()
	if d, err := h.store.Resolve(context.Background(), "rack/web:1"); err != nil || d.Digest != second.Digest {
		t.Errorf("in the store the name means %s, %v", d.Digest, err)
	}
}

// A server that follows a tag keeps no image that nodes are done with: no layer, no
// file, nothing of the way that it came by. A node that runs the first one still has
// its root.
func TestServeKeepsNoImageThatNodesAreDoneWith(t *testing.T) {
	s := newSite(t)
	s.push(100)
	var clock atomic.Int64
	h := testHost(t)
	h.fleet = serve.NewFleet(func() time.Time { return time.Unix(clock.Load(), 0) })
	h.fleet.Shelf = h.shelf()
	startRemote(t, h, s.name)
	close(h.serving)
	first := onlyMachine(t, h).View.ID()
	var files []int
	var pushed []ocispec.Descriptor
	for seed := range uint64(12) {
		pushed = append(pushed, s.push(seed))
		looks(t, h, boot.TagSwitched)
		h.filling.Wait()
		clock.Add(3600)
		most := math.MaxInt
		if len(files) > 2 {
			most = files[2] + 2
		}
		files = append(files, h.settled(most))
	}
	if n := len(h.remotes.images); n != 1 {
		t.Errorf("%d images are still on their way", n)
	}
	if few, many := files[2], files[len(files)-1]; many > few+2 {
		t.Errorf("files of the store that were open after each image: %v", files)
	}
	if m, err := h.fleet.Open(first); err != nil {
		t.Errorf("the root of the first image: %v", err)
	} else if _, err := m.View.Open("/data/file100-0"); err != nil {
		t.Error(err)
	}
	// gc keeps the last, and the one before: boots that began with it may be under way.
	if _, err := h.store.GC(t.Context(), store.GCOptions{Grace: -1}); err != nil {
		t.Fatal(err)
	}
	for seed, index := range pushed {
		if kept, want := h.store.Images().Complete(t.Context(), index) == nil, seed >= len(pushed)-2; kept != want {
			t.Errorf("image %d of %d is kept: %v", seed, len(pushed), kept)
		}
	}
}

// settled lets go of what nodes do not use, as serve does now and then, until at most
// so many of the store's files are open, and counts them: the garbage collector closes
// them when it comes to it.
func (h *host) settled(most int) (files int) {
	for deadline := time.Now().Add(time.Minute); ; {
		h.fleet.CloseIdle()
		for range 20 {
			runtime.GC()
			time.Sleep(5 * time.Millisecond)
		}
		if files = h.openFiles(); files <= most || time.Now().After(deadline) {
			return files
		}
	}
}

func (h *host) openFiles() (files int) {
	fds, _ := filepath.Glob("/proc/self/fd/*")
	for _, fd := range fds {
		if name, err := os.Readlink(fd); err == nil && strings.HasPrefix(name, h.store.Dir()) {
			files++
		}
	}
	return files
}

// What cannot be booted is told of once; the nodes boot what they did until the
// tag means something better.
func TestAnImageThatCannotBeBootedIsNotSwitchedTo(t *testing.T) {
	s := newSite(t)
	s.push(1)
	h, _ := remoteHost(t, s.name)
	images := s.desk.store.Images()
	layer := registrytest.OurLayer(t, images, registrytest.Tar(7, 1, 1000))
	twins := registrytest.Index(t, images, registrytest.Manifest(t, images, "n1", layer), registrytest.Manifest(t, images, "n1", layer))
	s.pushIndex(twins)
	if e := looks(t, h, boot.TagSwitched)[0]; e.Digest != twins.Digest.String() || !strings.Contains(e.Error, "the new image is not booted") {
		t.Errorf("event %+v", e)
	}
	looks(t, h)
	bootsFrom(t, h, 1)
	s.push(3)
	looks(t, h, boot.TagSwitched)
	bootsFrom(t, h, 3)
}

// A server that starts while its registry is away boots what was pulled before;
// one that never pulled it says what is wrong.
func TestARegistryThatIsAwayAtTheStartCostsNoBoot(t *testing.T) {
	s := newSite(t)
	s.push(1)
	h, _ := remoteHost(t, s.name)
	close(h.serving)
	h.filling.Wait()
	h.closeRemotes()
	s.away.Store(true)
	startRemote(t, h, s.name)
	bootsFrom(t, h, 1)
	looks(t, h, boot.RegistryAway)
	s.away.Store(false)
	looks(t, h, boot.RegistryBack)

	s.away.Store(true)
	_, said, code := newDesk(t).rhizome("serve", "--plain-http", "--dry-run", s.name)
	if code != exitNetwork {
		t.Errorf("an empty store: exit code %d: %s", code, said)
	}
}

func TestTheWaitForARegistryGrowsAndIsBounded(t *testing.T) {
	for _, c := range []struct {
		every    time.Duration
		failures int
		chance   float64
		want     time.Duration
	}{
		{time.Minute, 0, 0.5, time.Minute},
		{time.Minute, 0, 0, 54 * time.Second},
		{time.Minute, 0, 1, 66 * time.Second},
		{time.Minute, 2, 0.5, 4 * time.Minute},
		{time.Minute, 9999, 0.5, 15 * time.Minute},
		{time.Hour, 3, 0.5, time.Hour},
		{time.Second, 4, 0.5, 16 * time.Second},
	} {
		if got := pollWait(c.every, c.failures, c.chance); got != c.want {
			t.Errorf("every %s after %d failures: %s, want %s", c.every, c.failures, got, c.want)
		}
	}
}
