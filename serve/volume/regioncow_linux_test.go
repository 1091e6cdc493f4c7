package volume

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"rhizome/serve/node/nodeapi"
)

// writeBack leases a region of the node's /etc, and commits changes to it.
func writeBack(t *testing.T, w *world, paths []string, edits ...tarEdit) {
	t.Helper()
	h := holderOf("n1", addr1)
	l := leased(t, w, h, nodeapi.Write, paths...)
	streamed(t, w, h, l.ID)
	_, err := commitTo(w, h, l.ID, "c", changesOf(t, edits...))
	if err := errors.Join(err, w.volumes.Regions().Free(h, l.ID)); err != nil {
		t.Fatal(err)
	}
}

func (w *world) listed() (seen []string) {
	for _, ch := range w.trees()[0].Changes {
		seen = append(seen, ch.What+" "+ch.Path)
	}
	return seen
}

// What was written back stands among the node's changes as if it had been
// written over NFS, and the layer that is made of them has it.
func TestWhatWasWrittenBackStandsAmongTheChanges(t *testing.T) {
	w, c, root := cow(t)
	linked, shadow := c.walk(root, "linked"), c.walk(root, "shadow")
	writeBack(t, w, []string{"/etc/rc.d", "/etc/motd", "/etc/shadow", "/etc/linked", "/etc/linked.too"},
		wrote("etc/rc.d/one", "#!/bin/sh\nmine\n"), removed("etc/rc.d/two"), wrote("etc/rc.d/three", "3"), of(tar.TypeDir, "etc/rc.d/more/", ""),
		of(tar.TypeLink, "etc/rc.d/more/four", "etc/rc.d/three"), wrote("etc/motd", "mine"), meta("etc/shadow", 0o640), meta("etc/linked", 0o600), of(tar.TypeLink, "etc/linked.too", "etc/linked"))
	want := []string{"mode /etc/linked", "changed /etc/motd", "added /etc/rc.d/more", "added /etc/rc.d/more/four", "changed /etc/rc.d/one",
		"added /etc/rc.d/three", "removed /etc/rc.d/two", "mode /etc/shadow"}
	got := w.listed()
	for _, one := range want {
		if !slices.Contains(got, one) {
			t.Errorf("changes do not say %q; they say %q", one, got)
		}
	}
	for _, h := range []handle{linked, shadow} { // their bytes are the image's still
		if _, st := c.getattr(h); st != statusOK {
			t.Errorf("a file of which the mode alone changed has another handle: %v", st)
		}
	}
	seen := c.tree(root, "", map[string]string{})
	sameTree(t, seen, map[string]string{"passwd": "root:0:0\n", "shadow": "root:x\n", "motd": "mine", "mtab": "-> /proc/mounts", "linked": "twice", "linked.too": "twice",
		"rc.d/one": "#!/bin/sh\nmine\n", "rc.d/three": "3", "rc.d/more/four": "3"})
	var layer bytes.Buffer
	if err := WriteLayer(&layer, w.trees()[0], w.nodes.views[w.trees()[0].Image]); err != nil {
		t.Fatal(err)
	}
	inLayer := map[string]bool{}
	for r := tar.NewReader(&layer); ; {
		h, err := r.Next()
		if err != nil {
			break
		}
		inLayer[h.Name] = true
	}
	for _, name := range []string{"etc/motd", "etc/rc.d/.wh.two", "etc/rc.d/more/four", "etc/rc.d/one"} {
		if !inLayer[name] {
			t.Errorf("the layer has no %q: %v", name, inLayer)
		}
	}
	w.restart()
	c = w.dial(addr1)
	sameTree(t, c.tree(root, "", map[string]string{}), seen)
}

// A new image comes under what was written back, and what both changed is told.
func TestANewImageComesUnderWhatWasWrittenBack(t *testing.T) {
	w, _, root := cow(t)
	writeBack(t, w, []string{"/etc/rc.d", "/etc/passwd"}, wrote("etc/passwd", "mine"), removed("etc/rc.d/two"), wrote("etc/rc.d/three", "3"))
	w.nodes.boots(addr1, makeView(t, 2, version2(t)...))
	w.restart()
	c := w.dial(addr1)
	c.mustMount("/cow/n1/etc")
	sameTree(t, c.tree(root, "", map[string]string{}), map[string]string{"passwd": "mine", "shadow": "root:x\n", "motd": "welcome to version 2\n", "mtab": "-> /proc/mounts",
		"rc.d/one": "#!/bin/sh\n", "rc.d/three": "3", "added": "by version 2"})
	clashing := 0
	for _, ch := range w.trees()[0].Changes {
		if ch.Clash != "" && (ch.Path == "/etc/passwd" || ch.Path == "/etc/rc.d/two") {
			clashing++
		}
	}
	if clashing != 2 {
		t.Errorf("%d clashes in %+v", clashing, w.trees()[0].Changes)
	}
}

// An image that came under a region meanwhile is a change of it, though all
// files of images are of one age.
func TestANewImageMeanwhileIsAConflict(t *testing.T) {
	w, c, _ := cow(t)
	h := holderOf("n1", addr1)
	l := leased(t, w, h, nodeapi.Write, "/etc/rc.d")
	streamed(t, w, h, l.ID)
	files := slices.Clone(etc)
	files[6].body = "#!/bin/ZZ\n"
	w.nodes.boots(addr1, makeView(t, 2, files...))
	c.mustMount("/cow/n1/etc")
	_, err := commitTo(w, h, l.ID, "c", changesOf(t, wrote("etc/rc.d/two", "mine")))
	var conflict *nodeapi.ConflictError
	if !errors.As(err, &conflict) || !strings.HasPrefix(conflict.Conflict.Kept, "/etc/.kept/rc.d-") {
		t.Errorf("the commit says %v", err)
	}
}

// A commit whose line may not be on the disk is not told to be done.
func TestACommitThatCannotBeSyncedIsNotDone(t *testing.T) {
	w := worldAt(t, fastDir(t))
	w.volumes = New(w.config())
	h := holderOf("n1", addr1)
	l := leased(t, w, h, nodeapi.Write, "/etc/rc.d")
	streamed(t, w, h, l.ID)
	o := w.overlayOf(t, "/etc")
	body := changesOf(t, wrote("etc/rc.d/two", "mine"))
	w.volumes.config.step = func(what string) {
		if what == "written" {
			_ = o.journal.fail(errors.New("a disk that is broken"))
		}
	}
	for range 2 {
		if _, err := commitTo(w, h, l.ID, "c", body); err == nil || !strings.Contains(err.Error(), "broken") {
			t.Errorf("the commit says %v", err)
		}
	}
	_ = w.volumes.Close() // which says that the journal is broken
	w.volumes = New(w.config())
	defer w.volumes.Close()
	if _, err := commitTo(w, h, l.ID, "c", body); err != nil {
		t.Errorf("asking again of the next server: %v", err)
	}
}

// A commit that was done and could not be noted is found done when the client
// asks again.
func TestACommitThatCannotBeNotedIsNotDoneTwice(t *testing.T) {
	w, c, root := cow(t)
	h := holderOf("n1", addr1)
	l := leased(t, w, h, nodeapi.Write, "/etc/rc.d")
	streamed(t, w, h, l.ID)
	table := w.volumes.regions.clusters["c"]
	good := table.path
	w.volumes.config.step = func(what string) {
		if what == "synced" {
			table.path = "/proc/no such folder/leases.json"
		}
	}
	body := changesOf(t, wrote("etc/rc.d/two", "mine"))
	if _, err := commitTo(w, h, l.ID, "c", body); err == nil {
		t.Error("what could not be noted was told to be done")
	}
	table.path = good
	if _, err := commitTo(w, h, l.ID, "c", body); err != nil {
		t.Errorf("asking again: %v", err)
	}
	if got := c.content(c.walk(root, "rc.d", "two")); got != "mine" {
		t.Errorf("the file has %q", got)
	}
}

// A commit that goes on when its server stops takes away what it made for nothing, and
// not what the next server made meanwhile.
func TestAServersLastCommitHarmsNotTheNext(t *testing.T) {
	needRoot(t)
	w := worldAt(t, fastDir(t))
	w.volumes = New(w.config())
	h := holderOf("n1", addr1)
	l := leased(t, w, h, nodeapi.Write, "/etc/rc.d")
	streamed(t, w, h, l.ID)
	closed := make(chan error, 1)
	puts := func() {
		w.volumes = New(w.config())
		(&region{world: w, mount: "/etc"}).with(func(root object) error {
			f, err := root.create("next", &newObject{kind: kindRegular, mode: 0o644})
			if err == nil {
				err = errors.Join(f.writeAt([]byte("by the next server"), 0), f.sync())
			}
			return err
		})
	}
	old := w.volumes
	old.config.step = func(what string) {
		if what != "flushed" {
			return
		}
		go func() { closed <- old.Close() }()
		select {
		case err := <-closed:
			closed <- err
			puts()
		case <-time.After(200 * time.Millisecond):
		}
	}
	_, _ = old.Regions().Commit(t.Context(), h, l.ID, "c", bytes.NewReader(changesOf(t, wrote("etc/rc.d/two", "mine"))))
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	if w.volumes == old {
		puts()
	}
	if err := w.volumes.Close(); err != nil {
		t.Fatal(err)
	}
	w.start()
	defer w.stop()
	c := w.dial(addr1)
	if got := c.content(c.walk(c.mustMount("/cow/n1/etc"), "next")); got != "by the next server" {
		t.Errorf("what the next server wrote is %q", got)
	}
}

// overlayOf is the overlay of the node n1's export at a path.
func (w *world) overlayOf(t *testing.T, mount string) (o *overlay) {
	t.Helper()
	r := &region{world: w, mount: mount}
	r.with(func(root object) error {
		o = root.(*overlayObject).o
		return nil
	})
	return o
}

// A transaction that could not be read again is refused, and changes nothing.
func TestAnEndlessTransactionIsRefused(t *testing.T) {
	o, err := openOverlay(overlayConfig{dir: t.TempDir(), now: func() moment { return moment{Sec: 1} }})
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	o.journal.most = 1 << 20
	tx := []change{{ID: 7, Put: &record{Kind: kindSymlink, Target: make([]byte, 1<<20)}}}
	if err := o.commit(tx); !errors.Is(err, errLong) || o.objects[7] != nil {
		t.Errorf("it was answered with %v", err)
	}
}

// Both kinds of tree make the same of the same changes, whatever they are.
func TestBothKindsOfTreeMakeTheSameOfChanges(t *testing.T) {
	needRoot(t)
	files := []string{"src/a", "a", "src/b", "b", "src/d/a", "da", "src/d/b", "db", "src/d/e/a", "dea", "src/e/a", "ea"}
	rng := rand.New(rand.NewPCG(7, 11))
	taken := 0
	for round := range 150 {
		linked := rng.IntN(2) == 0
		var plans []func(r *region) tarEdit
		for _, p := range []string{"src/a", "src/b", "src/c", "src/d", "src/d/a", "src/d/b", "src/d/e", "src/d/e/a", "src/e", "src/e/a", "src/f", "src/f/a"} {
			if rng.IntN(2) == 0 {
				plans = append(plans, randomEdit(rng, p))
			}
		}
		var results []string
		for _, kind := range regionKinds {
			r := regionOf(worldAt(t, fastDir(t)), kind, files)
			r.start()
			if kind != "cow" {
				r.lay(files...)
			}
			if linked {
				r.link("src/a", "src/d/linked")
				r.link("src/b", "out")
			}
			var edits []tarEdit
			for _, plan := range plans {
				edits = append(edits, plan(r))
			}
			l := leased(t, r.world, r.h1, nodeapi.Write, r.on("src"))
			streamed(t, r.world, r.h1, l.ID)
			_, err := commitTo(r.world, r.h1, l.ID, "c", changesOf(t, edits...))
			r.mustLeave(t)
			r.restart()
			results = append(results, fmt.Sprintf("taken: %v\n%s", err == nil, r.shown()))
			if err == nil {
				taken++
			}
			r.stop()
			os.RemoveAll(r.dir)
		}
		for i, got := range results {
			if got != results[0] {
				t.Fatalf("round %d: %s\n%s\n%s\n%s", round, regionKinds[0], results[0], regionKinds[i], got)
			}
		}
	}
	if taken < 4*40 {
		t.Errorf("%d commits were taken: the test tests nothing", taken)
	}
}

// randomEdit is some change of a path.
func randomEdit(rng *rand.Rand, p string) func(r *region) tarEdit {
	what, text, mode := rng.IntN(12), fmt.Sprint("new ", rng.IntN(100)), int64(0o600+rng.IntN(0o100))
	isFile := strings.HasSuffix(p, "a") || strings.HasSuffix(p, "b") || strings.HasSuffix(p, "c")
	return func(r *region) tarEdit {
		switch {
		case what == 0:
			return removed(r.in(p))
		case what == 1:
			return of(tar.TypeSymlink, r.in(p), "/etc")
		case what == 2:
			return wrote(r.in(p), text)
		case what == 3:
			return of(tar.TypeLink, r.in(p), r.in("src/a"))
		case !isFile:
			e := of(tar.TypeDir, r.in(p)+"/", "")
			e.Mode = mode
			return e
		case what < 7 && p != "src/c" && p != "src/f/a":
			return meta(r.in(p), mode)
		}
		return wrote(r.in(p), text)
	}
}
