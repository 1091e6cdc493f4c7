package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"rhizome/serve/boot"
	"rhizome/serve/rootfs"
)

// cow makes a world and mounts the node's /etc.
func cow(t *testing.T) (*world, *client, handle) {
	needRoot(t)
	w := newWorld(t, nil)
	c := w.dial(addr1)
	return w, c, c.mustMount("/cow/n1/etc")
}

// read names: everything of a directory tree with what it reads.
func (c *client) tree(dir handle, at string, into map[string]string) map[string]string {
	c.t.Helper()
	for name, i := range c.list(dir) {
		p := at + name
		switch i.attr.kind {
		case kindDir:
			c.tree(i.handle, p+"/", into)
		case kindSymlink:
			target, _ := c.readlink(i.handle)
			into[p] = "-> " + target
		default:
			into[p] = c.content(i.handle)
		}
	}
	return into
}

func sameTree(t *testing.T, got, want map[string]string) {
	t.Helper()
	for p, s := range want {
		if g, ok := got[p]; !ok || g != s {
			t.Errorf("%s: %q (%t), want %q", p, g, ok, s)
		}
	}
	for p := range got {
		if _, ok := want[p]; !ok {
			t.Errorf("%s is there, and should not be", p)
		}
	}
}

func TestACopyOnWriteExportBeginsAsTheImage(t *testing.T) {
	w, c, root := cow(t)
	want := map[string]string{"passwd": "root:0:0\n", "shadow": "root:x\n", "motd": "welcome to version 1\n", "mtab": "-> /proc/mounts",
		"rc.d/one": "#!/bin/sh\n", "rc.d/two": "#!/bin/sh\ntwo\n", "linked": "twice", "linked.too": "twice"}
	sameTree(t, c.tree(root, "", map[string]string{}), want)
	if up := c.walk(root, ".."); string(up) != string(root) {
		t.Error("the export's root has a parent: the rest of the image would be reachable")
	}
	a, _ := c.getattr(c.walk(root, "linked"))
	if string(c.walk(root, "linked")) != string(c.walk(root, "linked.too")) || a.nlink != 2 {
		t.Error("two names of one file in the image are two files in the export")
	}
	if trees := w.trees(); len(trees) != 1 || len(trees[0].Changes) != 0 {
		t.Errorf("reading alone made changes: %+v", trees)
	}
}

func (w *world) trees() []Tree {
	w.t.Helper()
	all, err := Trees(filepath.Join(w.dir, "cow", "c", "n1"))
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

func TestWhatANodeChangesLiesOverItsImage(t *testing.T) {
	w, c, root := cow(t)
	passwd := c.walk(root, "passwd")
	before, _ := c.getattr(passwd)
	st, _, _ := c.write(passwd, 5, fileSync, "1")
	c.must("writing to a file of the image", st, statusOK)
	if got := c.content(passwd); got != "root:1:0\n" {
		t.Fatalf("after copy-up, the handle from before reads %q", got)
	}
	now, _ := c.getattr(passwd)
	if now.fileid != before.fileid || now.mode != before.mode || now.size != before.size || string(c.walk(root, "passwd")) != string(passwd) {
		t.Error("copy-up made another file of it")
	}
	// A change through one of two names is a change of both.
	st, _, _ = c.write(c.walk(root, "linked.too"), 0, fileSync, "TW")
	c.must("writing to a linked file", st, statusOK)
	c.must("removing", c.remove(root, "motd"), statusOK)
	c.must("removing", c.remove(c.walk(root, "rc.d"), "one"), statusOK)
	c.must("renaming", c.rename(root, "rc.d", root, "init.d"), statusOK)
	c.put(root, "new", "new")
	c.must("chmod", c.setattr(c.walk(root, "shadow"), sattr{mode: ptr(uint32(0o640))}), statusOK)
	want := map[string]string{"passwd": "root:1:0\n", "shadow": "root:x\n", "mtab": "-> /proc/mounts",
		"init.d/two": "#!/bin/sh\ntwo\n", "linked": "TWice", "linked.too": "TWice", "new": "new"}
	sameTree(t, c.tree(root, "", map[string]string{}), want)
	w.restart()
	c = w.dial(addr1)
	sameTree(t, c.tree(root, "", map[string]string{}), want)
	if a, _, _ := c.lookup(root, "shadow"); a != nil {
		if a, _ := c.getattr(a); a.mode != 0o640 {
			t.Errorf("mode %o after a restart", a.mode)
		}
	}
	// A directory that is made anew where one of the image was has none of
	// the image's names.
	fresh, st := c.mkdir(root, "rc.d", 0o755)
	c.must("mkdir", st, statusOK)
	if len(c.list(fresh)) != 0 {
		t.Error("a new directory shows what the image had by its name")
	}
	var seen []string
	for _, ch := range w.trees()[0].Changes {
		seen = append(seen, ch.What+" "+ch.Path)
	}
	for _, s := range []string{"changed /etc/passwd", "removed /etc/motd", "moved /etc/init.d", "removed /etc/init.d/one", "added /etc/rc.d",
		"added /etc/new", "mode /etc/shadow", "changed /etc/linked"} {
		if !slices.Contains(seen, s) {
			t.Errorf("changes do not say %q; they say %q", s, seen)
		}
	}
}

// version2 is the image after an update: motd, passwd and rc.d/two changed,
// linked is gone, added is new.
func version2(t *testing.T) []file {
	return []file{imgDir("etc", 0o755), imgFile("etc/passwd", 0o644, "root:0:0\nnew:5:5\n"), imgFile("etc/shadow", 0o600, "root:x\n"),
		imgFile("etc/motd", 0o644, "welcome to version 2\n"), imgLink("etc/mtab", "/proc/mounts"),
		imgDir("etc/rc.d", 0o755), imgFile("etc/rc.d/one", 0o755, "#!/bin/sh\n"), imgFile("etc/rc.d/two", 0o755, "#!/bin/sh\nversion 2\n"),
		imgFile("etc/added", 0o644, "by version 2")}
}

func TestANewImageComesUnderTheNodesChanges(t *testing.T) {
	w, c, root := cow(t)
	motd, two := c.walk(root, "motd"), c.walk(root, "rc.d", "two")
	c.put(root, "passwd", "mine:0:0\n") // also changed by version 2
	c.put(root, "added", "by the node") // also added by version 2
	c.put(root, "linked", "kept")       // removed by version 2
	c.must("chmod", c.setattr(c.walk(root, "shadow"), sattr{mode: ptr(uint32(0o640))}), statusOK)
	linked := c.walk(root, "linked")
	w.nodes.boots(addr1, makeView(t, 2, version2(t)...))
	// A node that runs goes on with what it began with, over a restart too.
	w.restart()
	c = w.dial(addr1)
	if got := c.content(motd); got != "welcome to version 1\n" {
		t.Fatalf("a running node was given another image: %q", got)
	}
	if again := c.mustMount("/cow/n1/etc"); string(again) != string(root) {
		t.Error("the root has another handle under a new image")
	}
	sameTree(t, c.tree(root, "", map[string]string{}), map[string]string{"passwd": "mine:0:0\n\x00"[:9], "shadow": "root:x\n",
		"motd": "welcome to version 2\n", "mtab": "-> /proc/mounts", "rc.d/one": "#!/bin/sh\n", "rc.d/two": "#!/bin/sh\nversion 2\n",
		"added": "by the node", "linked": "kepte"})
	for name, h := range map[string]handle{"motd": motd, "two": two, "linked": linked} {
		if _, st := c.getattr(h); st != statusOK {
			t.Errorf("the handle of %s did not outlive the image: %v", name, st)
		}
	}
	clashes := map[string]bool{}
	for _, e := range w.heard(boot.ChangesClash) {
		if e.Node != "n1" || e.Error == "" {
			t.Errorf("a clash that says nothing: %+v", e)
		}
		clashes[e.File] = true
	}
	for _, p := range []string{"/etc/passwd", "/etc/added", "/etc/linked"} {
		if !clashes[p] {
			t.Errorf("no event tells of the clash at %s; told of %v", p, clashes)
		}
	}
	if clashes["/etc/shadow"] || len(clashes) != 3 {
		t.Errorf("events tell of %v", clashes)
	}
	c.mustMount("/cow/n1/etc")
	if n := len(w.heard(boot.ChangesClash)); n != 3 {
		t.Errorf("mounting again told of clashes again: %d events", n)
	}
}

func TestChangesAreDroppedOnlyWhenNoServerHasThem(t *testing.T) {
	w, c, root := cow(t)
	c.put(root, "new", "new")
	c.must("removing", c.remove(root, "motd"), statusOK)
	state := filepath.Join(w.dir, "cow", "c", "n1")
	var busy *BusyError
	if err := Drop(state); !errors.As(err, &busy) || !strings.Contains(err.Error(), "stop it first") {
		t.Fatalf("dropping changes under a server: %v", err)
	}
	w.stop()
	if err := Drop(state); err != nil {
		t.Fatal(err)
	}
	w.start()
	c = w.dial(addr1)
	root = c.mustMount("/cow/n1/etc")
	if got := c.content(c.walk(root, "motd")); got != "welcome to version 1\n" {
		t.Errorf("after the drop, motd reads %q", got)
	}
	if _, _, st := c.lookup(root, "new"); st != statusNoEnt {
		t.Errorf("after the drop, the node's file is %v", st)
	}
}

func TestAJournalCutAtAnyByteLosesNoEarlierChange(t *testing.T) {
	w, c, root := cow(t)
	for _, name := range []string{"a", "b", "c"} {
		c.put(root, name, name)
	}
	w.stop()
	defer w.start()
	dir := filepath.Join(w.dir, "cow", "c", "n1", "changes", "%2Fetc")
	whole, err := os.ReadFile(filepath.Join(dir, journalName))
	if err != nil {
		t.Fatal(err)
	}
	last := -1
	for cut := 0; cut <= len(whole); cut += 7 {
		r := newRecords()
		size, err := replayJournal(strings.NewReader(string(whole[:cut])), r)
		if err != nil || size > int64(cut) {
			t.Fatalf("cut at %d: %d bytes, %v", cut, size, err)
		}
		n := len(r.names[rootID])
		if n < last {
			t.Fatalf("cut at %d shows %d names, an earlier cut %d", cut, n, last)
		}
		last = n
		if strings.Count(string(whole[:cut]), "\n") != strings.Count(string(whole[:size]), "\n") {
			t.Fatalf("cut at %d: a whole line was not read", cut)
		}
	}
}

// What could not be written down did not happen: the content of a file whose
// removal failed must not go with the next sync.
func TestARemovalThatFailsTakesNoContentAway(t *testing.T) {
	now := func() moment { return moment{Sec: 1} }
	o, err := openOverlay(overlayConfig{dir: t.TempDir(), now: now})
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	root := o.object(rootID)
	f, err := root.create("f", &newObject{kind: kindRegular, mode: 0o600})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.writeAt([]byte("content"), 0), f.sync()); err != nil {
		t.Fatal(err)
	}
	good := o.journal.file
	o.journal.file, err = os.Open(o.journal.path) // which cannot be written
	if err != nil {
		t.Fatal(err)
	}
	if err := root.remove("f", false); err == nil {
		t.Fatal("a removal that could not be written down was answered with success")
	}
	o.journal.file.Close()
	o.journal.file = good
	o.journal.failed.Store(nil)
	if err := o.sync(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 7)
	if _, err := f.readAt(got, 0); err != nil || string(got) != "content" {
		t.Errorf("after the removal that failed, the file reads %q, %v", got, err)
	}
}

// overImage is an overlay over an image's /etc.
func overImage(t *testing.T, q *quota, view *rootfs.View) *overlay {
	t.Helper()
	o, err := openOverlay(overlayConfig{dir: fastDir(t), path: "/etc", quota: q, now: func() moment { return moment{Sec: 1} }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.close() })
	if _, err := o.rebase(view); err != nil {
		t.Fatal(err)
	}
	return o
}

// A file is copied out of the image that lies below when it is copied: a new image
// may come below while a write is on its way.
func TestAFileIsCopiedFromTheImageThatLiesBelow(t *testing.T) {
	const files = 400
	image := func(version int, first ...file) *rootfs.View {
		all := append([]file{imgDir("etc", 0o755)}, first...)
		for i := range files {
			all = append(all, imgFile(fmt.Sprintf("etc/f%03d", i), 0o644, fmt.Sprintf("-f%03d", i)))
		}
		return makeView(t, version, all...)
	}
	views := []*rootfs.View{image(1), image(2, imgFile("etc/before", 0o644, "-before"))}
	o := overImage(t, nil, views[0])
	stop := make(chan struct{})
	var other sync.WaitGroup
	other.Go(func() {
		for i := 1; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := o.rebase(views[i%2]); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for i := range files {
		name := fmt.Sprintf("f%03d", i)
		f, err := o.object(rootID).lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.writeAt([]byte("+"), 0); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	other.Wait()
	for i := range files {
		name := fmt.Sprintf("f%03d", i)
		f, err := o.object(rootID).lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 20)
		if n, _ := f.readAt(got, 0); string(got[:n]) != "+"+name {
			t.Fatalf("%s holds %q", name, got[:n])
		}
	}
}

// A copy that cannot be noted, as on a full disk, leaves nothing behind: neither on
// the disk nor in the quota, however often it is tried.
func TestACopyThatCannotBeNotedCostsNothing(t *testing.T) {
	q := newQuota(1 << 20)
	o := overImage(t, q, makeView(t, 1, etc...))
	before := q.used.Load()
	f, err := o.object(rootID).lookup("motd")
	if err != nil {
		t.Fatal(err)
	}
	o.journal.most = 10 // no change fits
	for range 3 {
		if err := f.writeAt([]byte("x"), 0); err == nil {
			t.Fatal("a copy that could not be noted was answered with success")
		}
	}
	if bodies, _ := os.ReadDir(filepath.Join(o.dir, "bodies")); q.used.Load() != before || len(bodies) != 0 {
		t.Errorf("the quota counts %d bytes more, and %d bodies lie there", q.used.Load()-before, len(bodies))
	}
}

// What is cut while it is removed gets no body that nothing needs.
func TestAFileCutWhileItIsRemovedLeavesNothing(t *testing.T) {
	o := overImage(t, nil, makeView(t, 1, etc...))
	root := o.object(rootID)
	for i := range 3000 {
		f, err := root.create("f", &newObject{kind: kindRegular, mode: 0o600})
		if err != nil {
			t.Fatal(err)
		}
		var cut sync.WaitGroup
		cut.Go(func() { _ = f.set(&setAttrs{hasSize: true, size: 1}) })
		if i%2 == 0 {
			runtime.Gosched()
		}
		if err := errors.Join(root.remove("f", false), o.sync()); err != nil {
			t.Fatal(err)
		}
		cut.Wait()
	}
	if bodies, _ := os.ReadDir(filepath.Join(o.dir, "bodies")); len(bodies) != 0 {
		t.Errorf("%d bodies of files that are no more", len(bodies))
	}
}
