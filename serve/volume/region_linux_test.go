package volume

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rhizome/serve/node/nodeapi"
)

func leased(t *testing.T, w *world, h nodeapi.Holder, mode string, paths ...string) nodeapi.Lease {
	t.Helper()
	l, err := w.volumes.Regions().Lease(t.Context(), h, nodeapi.LeaseRequest{Paths: paths, Mode: mode, TTL: 60})
	if err != nil {
		t.Fatalf("leasing %q: %v", paths, err)
	}
	return l
}

// streamed reads a lease's region: the names in it, with their headers.
func streamed(t *testing.T, w *world, h nodeapi.Holder, id string) map[string]*tar.Header {
	t.Helper()
	var buf bytes.Buffer
	if err := w.volumes.Regions().Stream(t.Context(), h, id, &buf); err != nil {
		t.Fatalf("streaming: %v", err)
	}
	all := map[string]*tar.Header{}
	for r := tar.NewReader(&buf); ; {
		hdr, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(hdr.Name, "/")] = hdr
	}
}

// tarEdit is one entry of a tar of changes.
type tarEdit struct {
	tar.Header
	body string
}

func wrote(name, body string) tarEdit {
	return tarEdit{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(body)), ModTime: time.Unix(1_700_000_000, 42)}, body}
}

func removed(name string) tarEdit {
	return tarEdit{Header: tar.Header{Typeflag: tar.TypeReg, Name: filepath.Dir(name) + "/.wh." + filepath.Base(name), PAXRecords: map[string]string{nodeapi.PAXRemoved: "1"}}}
}

func meta(name string, mode int64) tarEdit {
	return tarEdit{Header: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Uid: 7, PAXRecords: map[string]string{nodeapi.PAXMeta: "1"}}}
}

func of(kind byte, name, target string) tarEdit {
	return tarEdit{Header: tar.Header{Typeflag: kind, Name: name, Linkname: target, Mode: 0o755}}
}

func changesOf(t testing.TB, edits ...tarEdit) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range edits {
		e.Format = tar.FormatPAX
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func commitTo(w *world, h nodeapi.Holder, id, commit string, body []byte) (nodeapi.Committed, error) {
	return w.volumes.Regions().Commit(context.Background(), h, id, commit, bytes.NewReader(body))
}

// mustLeave holds a commit to what it may leave beside the tree: nothing.
func (r *region) mustLeave(t *testing.T) {
	t.Helper()
	if left := r.left(); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestChangesToARegionBecomeTheServersAtOnce(t *testing.T) {
	files := []string{"src/a.c", "old a", "src/b.c", "old b", "src/sub/deep.c", "deep", "src/gone/x", "x", "src/gone/y/z", "z", "src/file", "f", "src/dir/in", "in", "other", "other"}
	onRegions(t, files, func(t *testing.T, r *region) {
		r.link("src/b.c", "src/b2.c")
		l := leased(t, r.world, r.h1, nodeapi.Write, r.on("src"))
		tree := streamed(t, r.world, r.h1, l.ID)
		if tree[r.in("src/b2.c")].Typeflag != tar.TypeLink || tree[r.in("src/b2.c")].Linkname != r.in("src/b.c") || tree[r.in("other")] != nil || l.Bytes != 5+5+4+1+1+1+2 {
			t.Fatalf("the stream has %v, %d bytes", tree, l.Bytes)
		}
		_, err := commitTo(r.world, r.h1, l.ID, "one", changesOf(t,
			of(tar.TypeDir, r.in("src")+"/", ""), wrote(r.in("src/a.c"), "new a"), wrote(r.in("src/a.o"), "object"), meta(r.in("src/b.c"), 0o600), of(tar.TypeLink, r.in("src/b2.c"), r.in("src/b.c")),
			wrote(r.in("src/dir"), "a file now"), wrote(r.in("src/empty"), ""), of(tar.TypeDir, r.in("src/file")+"/", ""), wrote(r.in("src/file/g"), "g"),
			removed(r.in("src/gone")), of(tar.TypeSymlink, r.in("src/latest"), "a.o"), of(tar.TypeDir, r.in("src/newdir")+"/", ""), wrote(r.in("src/newdir/f"), "f"),
			of(tar.TypeLink, r.in("src/newdir/twice"), r.in("src/newdir/f")), of(tar.TypeFifo, r.in("src/pipe"), ""), removed(r.in("src/was-never"))))
		if err != nil {
			t.Fatal(err)
		}
		want := `other 644 0:0 1 other
src d755
src/a.c 644 0:0 1 new a
src/a.o 644 0:0 1 object
src/b.c 600 7:0 2 old b
src/b2.c 600 7:0 2 old b
src/dir 644 0:0 1 a file now
src/empty 644 0:0 1 
src/file d755
src/file/g 644 0:0 1 g
src/latest -> a.o
src/newdir d755
src/newdir/f 644 0:0 2 f
src/newdir/twice 644 0:0 2 f
src/pipe 7 755
src/sub d755
src/sub/deep.c 644 0:0 1 deep
`
		if got := r.shown(); got != want {
			t.Errorf("the export is\n%s\nand not\n%s", got, want)
		}
		for _, p := range []string{"src/a.c", "src/empty"} {
			if at := streamed(t, r.world, r.h1, l.ID)[r.in(p)].ModTime; at.UnixNano() != 1_700_000_000_000_000_042 {
				t.Errorf("the time of %s is %v", p, at)
			}
		}
		r.mustLeave(t)
		if _, err := commitTo(r.world, r.h1, l.ID, "one", nil); err != nil {
			t.Errorf("the same commit again, whose answer was lost: %v", err)
		}
		if _, err := commitTo(r.world, r.h1, l.ID, "two", changesOf(t, wrote(r.in("src/a.c"), "newer a"), removed(r.in("src/file")))); err != nil {
			t.Errorf("a second commit under the lease: %v", err)
		}
		seen := r.shown()
		r.restart()
		if again := r.shown(); again != seen || !strings.Contains(seen, "src/a.c 644 0:0 1 newer a\n") {
			t.Errorf("before the server was started again\n%s\nand then\n%s", seen, again)
		}
	})
}

// What is around a change stays as it is: the times of folders that the node
// says nothing of, and names of a file that lie out of the region.
func TestWhatIsAroundARegionStays(t *testing.T) {
	onRegions(t, []string{"src/a", "a", "src/b", "b", "src/sub/c", "c"}, func(t *testing.T, r *region) {
		r.link("src/a", "outside")
		r.link("src/sub/c", "src/c")
		timesOf := func() map[string]moment {
			all := map[string]moment{}
			for _, p := range []string{"src", "src/sub", "."} {
				if p == "." && r.kind == "disk" {
					continue // the stage of commits is made in it
				}
				r.at(path.Join(p, "x"), func(dir object, _ string) error {
					a, err := dir.attr()
					all[p] = a.mtime
					return err
				})
			}
			return all
		}
		before := timesOf()
		l := leased(t, r.world, r.h1, nodeapi.Write, r.on("src"))
		streamed(t, r.world, r.h1, l.ID)
		if _, err := commitTo(r.world, r.h1, l.ID, "1", changesOf(t, meta(r.in("src/a"), 0o600), removed(r.in("src/b")), wrote(r.in("src/sub/c"), "new c"), of(tar.TypeLink, r.in("src/c"), r.in("src/sub/c")))); err != nil {
			t.Fatal(err)
		}
		want := "outside 644 0:0 1 a\nsrc d755\nsrc/a 600 7:0 1 a\nsrc/c 644 0:0 2 new c\nsrc/sub d755\nsrc/sub/c 644 0:0 2 new c\n"
		if got := r.shown(); got != want {
			t.Errorf("the export is\n%s\nand not\n%s", got, want)
		}
		if now := timesOf(); !maps.Equal(now, before) {
			t.Errorf("the folders' times were %v and are %v", before, now)
		}
		// A lease of single files: both, or none.
		r.must(t, r.world.volumes.Regions().Free(r.h1, l.ID))
		l = leased(t, r.world, r.h1, nodeapi.Write, r.on("outside"), r.on("src/a"))
		streamed(t, r.world, r.h1, l.ID)
		if _, err := commitTo(r.world, r.h1, l.ID, "2", changesOf(t, wrote(r.in("outside"), "out"), meta(r.in("src/a"), 0o640))); err != nil {
			t.Fatal(err)
		}
		if got := r.shown(); !strings.HasPrefix(got, "outside 644 0:0 1 out\nsrc d755\nsrc/a 640 7:0 1 a\n") {
			t.Errorf("after a commit of two files, the export is\n%s", got)
		}
		if now := timesOf(); !maps.Equal(now, before) {
			t.Errorf("the folders' times were %v and are %v", before, now)
		}
	})
}

func (r *region) must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestTwoCannotWriteOneRegion(t *testing.T) {
	onRegions(t, []string{"src/a", "a", "src/sub/b", "b", "data/c", "c"}, func(t *testing.T, r *region) {
		l := leased(t, r.world, r.h1, nodeapi.Write, r.on("src/sub"))
		for _, p := range []string{"src", "src/sub", "src/sub/b"} {
			for _, mode := range []string{nodeapi.Write, nodeapi.Read} {
				_, err := r.volumes.Regions().Lease(t.Context(), r.h2, nodeapi.LeaseRequest{Paths: []string{r.on(p)}, Mode: mode, TTL: 60})
				var taken *nodeapi.ConflictError
				if !errors.As(err, &taken) || taken.Conflict.Holder != "n1" {
					t.Errorf("%s of %s: %v", mode, p, err)
				}
			}
		}
		leased(t, r.world, r.h2, nodeapi.Write, r.on("src/a"), r.on("data"))
		if err := r.volumes.Regions().Free(holderOf("n2", addr2), l.ID); err == nil {
			t.Error("another node freed the lease")
		}
		r.must(t, r.volumes.Regions().Rebooted("c", "n1"))
		leased(t, r.world, r.h2, nodeapi.Read, r.on("src/sub"))
		leased(t, r.world, r.h1, nodeapi.Read, r.on("src/sub"))
	})
}

func TestARegionThatChangedMeanwhileIsNotOverwritten(t *testing.T) {
	for name, meddle := range map[string]func(t *testing.T, r *region){
		"written": func(_ *testing.T, r *region) { r.lay("src/a", "theirs, longer") },
		"replaced": func(_ *testing.T, r *region) {
			r.at("src/a", func(dir object, name string) error { return dir.remove(name, false) })
			r.lay("src/a", "ours")
		},
		"added": func(_ *testing.T, r *region) { r.lay("src/sub/new", "theirs") },
		"mode":  func(_ *testing.T, r *region) { r.chmod("src/a", 0o600) },
		"lease ended and taken": func(t *testing.T, r *region) {
			r.later(time.Hour)
			leased(t, r.world, r.h2, nodeapi.Write, r.on("src"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			onRegions(t, []string{"src/a", "ours", "src/sub/b", "b"}, func(t *testing.T, r *region) {
				l := leased(t, r.world, r.h1, nodeapi.Write, r.on("src"))
				streamed(t, r.world, r.h1, l.ID)
				meddle(t, r)
				before := r.shown()
				changes := changesOf(t, wrote(r.in("src/a"), "mine"), removed(r.in("src/sub")))
				_, err := commitTo(r.world, r.h1, l.ID, "c", changes)
				var conflict *nodeapi.ConflictError
				if !errors.As(err, &conflict) || !strings.HasPrefix(conflict.Conflict.Kept, r.on(".kept/src-")) {
					t.Fatalf("the commit says %v", err)
				}
				if after := r.shown(); after != before {
					t.Errorf("the export became\n%s", after)
				}
				kept := r.read(strings.TrimPrefix(conflict.Conflict.Kept, r.mount+"/"))
				if !bytes.Equal(kept, changes) {
					t.Errorf("what is kept: %d bytes", len(kept))
				}
				r.mustLeave(t)
			})
		})
	}
}

func TestALeaseOutlivesTheServer(t *testing.T) {
	onRegions(t, []string{"src/a", "a"}, func(t *testing.T, r *region) {
		l := leased(t, r.world, r.h1, nodeapi.Write, r.on("src"))
		streamed(t, r.world, r.h1, l.ID)
		r.restart()
		if _, err := r.volumes.Regions().Lease(t.Context(), r.h2, nodeapi.LeaseRequest{Paths: []string{r.mount}, Mode: nodeapi.Read, TTL: 60}); err == nil {
			t.Error("another leased it after the restart")
		}
		if _, err := r.volumes.Regions().Renew(r.h1, l.ID, time.Minute); err != nil {
			t.Error(err)
		}
		r.later(time.Hour) // nobody took it: the changes go through
		if _, err := commitTo(r.world, r.h1, l.ID, "c", changesOf(t, wrote(r.in("src/a"), "b"))); err != nil {
			t.Error(err)
		}
	})
}

func TestWhatANodeMaySendBackIsInsideOfTheRegion(t *testing.T) {
	onRegions(t, []string{"src/a", "a", "src/sub/b", "b", "secret", "s"}, func(t *testing.T, r *region) {
		r.symlink("src/etc", "/etc")
		l := leased(t, r.world, r.h1, nodeapi.Write, r.on("src"))
		streamed(t, r.world, r.h1, l.ID)
		before := r.shown()
		bad := map[string][]tarEdit{
			"above":              {wrote(r.in("secret"), "x")},
			"dots":               {wrote(r.in("src")+"/../secret", "x")},
			"other mount":        {wrote("usr/passwd", "x")},
			"over a symlink":     {wrote(r.in("src/etc/passwd"), "x")},
			"over a new symlink": {of(tar.TypeSymlink, r.in("src/out"), "/etc"), wrote(r.in("src/out/passwd"), "x")},
			"link outside":       {of(tar.TypeLink, r.in("src/out"), r.in("secret"))},
			"link to a folder":   {of(tar.TypeLink, r.in("src/out"), r.in("src/sub"))},
			"bytes of a folder":  {meta(r.in("src/sub"), 0o600)},
			"bytes of nothing":   {meta(r.in("src/none"), 0o600)},
			"twice":              {wrote(r.in("src/x"), "x"), wrote(r.in("src/x"), "y")},
			"the region":         {removed(r.in("src"))},
			"the region a file":  {wrote(r.in("src"), "x")},
			"in a file":          {wrote(r.in("src/a/x"), "x")},
			"no folder":          {wrote(r.in("src/missing/x"), "x")},
			"half of it":         {wrote(r.in("src/a"), "new"), wrote(r.in("src/missing/x"), "x")},
		}
		if r.kind == "disk" {
			bad["device"] = []tarEdit{of(tar.TypeBlock, r.in("src/sda"), "")}
		}
		for name, edits := range bad {
			if _, err := commitTo(r.world, r.h1, l.ID, name, changesOf(t, edits...)); err == nil {
				t.Errorf("%s was taken", name)
			}
			if after := r.shown(); after != before {
				t.Fatalf("%s: the export became\n%s", name, after)
			}
			r.mustLeave(t)
		}
		if _, err := commitTo(r.world, r.h1, l.ID, "cut", changesOf(t, wrote(r.in("src/a"), strings.Repeat("x", 5000)))[:3000]); err == nil {
			t.Error("changes that were cut off were taken")
		}
		for _, p := range []string{r.mount, r.on("missing"), r.on("src/etc"), "/other/x", r.on(stageName)} {
			if l, err := r.volumes.Regions().Lease(t.Context(), r.h1, nodeapi.LeaseRequest{Paths: []string{p}, Mode: nodeapi.Write, TTL: 60}); err == nil {
				t.Errorf("%s was leased: %+v", p, l)
			}
		}
	})
}

// Who reads a region over NFS while it is written back gets the old bytes, the
// new ones, or is told that its handle is stale.
func TestAnNFSClientNeverReadsAMix(t *testing.T) {
	onRegions(t, []string{"src/a", "old", "src/same", "same", "src/mode", "mode", "src/dir/b", "old b"}, func(t *testing.T, r *region) {
		c := r.dial(r.h2.Addr.String())
		root := c.mustMount(r.export)
		handles := map[string]handle{}
		for _, p := range []string{"src", "src/a", "src/same", "src/mode", "src/dir", "src/dir/b"} {
			handles[p] = c.walk(root, strings.Split(p, "/")...)
		}
		l := leased(t, r.world, r.h1, nodeapi.Write, r.on("src"))
		streamed(t, r.world, r.h1, l.ID)
		if _, err := commitTo(r.world, r.h1, l.ID, "c", changesOf(t, wrote(r.in("src/a"), "new"), removed(r.in("src/dir")))); err != nil {
			t.Fatal(err)
		}
		folders := statusOK // records make no folder anew
		if r.kind == "disk" {
			folders = statusStale
		}
		for p, want := range map[string]status{"src": folders, "src/a": statusStale, "src/same": statusOK, "src/mode": statusOK, "src/dir": statusStale, "src/dir/b": statusStale} {
			if _, got := c.getattr(handles[p]); got != want {
				t.Errorf("the old handle of %s gives %v, and not %v", p, got, want)
			}
		}
		if got := c.content(c.walk(root, "src", "a")); got != "new" {
			t.Errorf("by its name, the file has %q", got)
		}
		if got := c.content(handles["src/same"]); got != "same" {
			t.Errorf("by its old handle, the file that nobody changed has %q", got)
		}
	})
}

// FuzzRegionChanges: whatever a node sends is refused, or names nothing outside
// of the region, nothing twice, and bytes that are in the stream.
func FuzzRegionChanges(f *testing.F) {
	at := []place{{spec: spec{name: "/shared/c", mount: "/shared"}, node: "/shared/src", below: "src"}}
	f.Add(changesOf(f, wrote("shared/src/a", "abc"), removed("shared/src/b"), of(tar.TypeSymlink, "shared/src/l", "/etc")))
	f.Add(changesOf(f, wrote("shared/src/../x", "abc")))
	f.Add(changesOf(f, meta("shared/src/a", 0o600), of(tar.TypeLink, "shared/src/b", "shared/src/a")))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := readChanges(bytes.NewReader(data), at)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, c := range all {
			inside := func(p string) bool { return p == "src" || strings.HasPrefix(p, "src/") && filepath.Clean(p) == p }
			if !inside(c.path) || c.link != "" && !inside(c.link) || seen[c.path] || c.offset < 0 || c.offset+c.size > int64(len(data))+1024 {
				t.Errorf("%+v", c)
			}
			seen[c.path] = true
		}
		_ = units(all, &regionList{}, at)
	})
}

func TestChangesBeyondTheQuotaChangeNothing(t *testing.T) {
	needRoot(t)
	for _, kind := range regionKinds {
		t.Run(kind, func(t *testing.T) {
			w := worldAt(t, fastDir(t))
			r := regionOf(w, kind, []string{"src/a", "old"})
			if kind == "disk" { // what is shared has no quota
				r.mount, r.export = "/persist", "/persist/n1"
			}
			limit(w, 1<<20)
			w.start()
			t.Cleanup(func() { w.stop() })
			if kind != "cow" {
				r.lay("src/a", "old")
			}
			l := leased(t, w, r.h1, nodeapi.Write, r.on("src"))
			streamed(t, w, r.h1, l.ID)
			before := r.shown()
			_, err := commitTo(w, r.h1, l.ID, "big", changesOf(t, wrote(r.in("src/a"), strings.Repeat("x", 2<<20))))
			var full *nodeapi.FullError
			if !errors.As(err, &full) {
				t.Errorf("the commit says %v", err)
			}
			if after := r.shown(); after != before {
				t.Errorf("the export became\n%s", after)
			}
			for i := range 10 { // each leaves as much room as it found
				if _, err := commitTo(w, r.h1, l.ID, fmt.Sprint(i), changesOf(t, wrote(r.in("src/a"), strings.Repeat("x", 200<<10)))); err != nil {
					t.Fatalf("commit %d: %v", i, err)
				}
			}
		})
	}
}

func limit(w *world, quota int64) {
	for a, n := range w.nodes.nodes {
		n.PersistQuota = quota
		w.nodes.nodes[a] = n
	}
}

func TestOnlyNodesOfTheClusterMountWhatItShares(t *testing.T) {
	w := newWorld(t, func(n *Node) {
		if n.Name == "n1" {
			n.Shared = "/shared"
		}
	})
	one, two := w.dial(addr1), w.dial(addr2)
	root := one.mustMount("/shared/c")
	one.put(root, "file", "content")
	if _, status := two.mount("/shared/c"); status == 0 {
		t.Error("a node whose recipe does not have it mounted it")
	}
	if _, status := two.getattr(root); status == statusOK {
		t.Error("its handle is good for a node whose recipe does not have it")
	}
	if _, status := one.mount("/shared/other"); status == 0 {
		t.Error("a node mounted what another cluster shares")
	}
	if _, status := one.mkdir(root, stageName, 0o755); status == statusOK {
		t.Error("a node made the folder that is for commits")
	}
}

// A node can have only so many leases, which others' are kept beside. Those that ended
// make room.
func TestANodesLeasesAreBounded(t *testing.T) {
	w := worldAt(t, fastDir(t))
	w.volumes = New(w.config())
	defer w.volumes.Close()
	lease := func(ttl int) error {
		_, err := w.volumes.Regions().Lease(t.Context(), holderOf("n1", addr1), nodeapi.LeaseRequest{Paths: []string{"/etc/rc.d"}, Mode: nodeapi.Read, TTL: ttl})
		return err
	}
	for range maxLeases / 2 {
		if err := errors.Join(lease(60), lease(6000)); err != nil {
			t.Fatal(err)
		}
	}
	var input *nodeapi.InputError
	if err := lease(60); !errors.As(err, &input) || !strings.Contains(err.Error(), "free some") {
		t.Errorf("one lease too many: %v", err)
	}
	leased(t, w, holderOf("n2", addr2), nodeapi.Read, "/etc/rc.d")
	w.later(10 * time.Minute)
	for range maxLeases / 2 {
		if err := lease(6000); err != nil {
			t.Fatalf("with room for those that ended: %v", err)
		}
	}
	if all, err := w.volumes.Regions().List("c"); err != nil || len(all) != maxLeases+1 {
		t.Errorf("%d leases are known, %v", len(all), err)
	}
}
