package volume

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rhizome/serve/node/nodeapi"
)

// regionWorld has two nodes that share an export, mounted at /shared.
func regionWorld(t *testing.T) (w *world, h1, h2 nodeapi.Holder) {
	t.Helper()
	needRoot(t)
	w = newWorld(t, func(n *Node) { n.Shared = "/shared" })
	return w, holderOf("n1", addr1), holderOf("n2", addr2)
}

func holderOf(name, addr string) nodeapi.Holder {
	return nodeapi.Holder{Cluster: "c", Node: name, Boot: "b1", Addr: netip.MustParseAddr(addr)}
}

// sharedDir is where the shared export lies.
func sharedDir(w *world) string { return filepath.Join(w.dir, "persist", "c", sharedOwner) }

// lay writes files below the shared export, as the operator would.
func lay(t *testing.T, w *world, files ...string) {
	t.Helper()
	for i := 0; i < len(files); i += 2 {
		p := filepath.Join(sharedDir(w), files[i])
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(files[i+1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// shown is the tree below the shared export as text: path, mode, content.
func shown(t *testing.T, w *world) string {
	t.Helper()
	var b strings.Builder
	root := sharedDir(w)
	err := filepath.Walk(root, func(p string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		if rel == "." || rel == stageName {
			if rel == stageName {
				return filepath.SkipDir
			}
			return nil
		}
		if strings.HasPrefix(rel, keptFolder) {
			return nil
		}
		fmt.Fprintf(&b, "%s %v", rel, info.Mode())
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %s", data)
		}
		if target, err := os.Readlink(p); err == nil {
			fmt.Fprintf(&b, " -> %s", target)
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

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

func TestChangesToARegionBecomeTheServersAtOnce(t *testing.T) {
	w, h1, _ := regionWorld(t)
	lay(t, w, "src/a.c", "old a", "src/b.c", "old b", "src/sub/deep.c", "deep", "src/gone/x", "x", "other", "other")
	if err := os.Link(filepath.Join(sharedDir(w), "src/b.c"), filepath.Join(sharedDir(w), "src/b2.c")); err != nil {
		t.Fatal(err)
	}
	l := leased(t, w, h1, nodeapi.Write, "/shared/src")
	tree := streamed(t, w, h1, l.ID)
	if tree["shared/src/b2.c"].Typeflag != tar.TypeLink || tree["shared/src/b2.c"].Linkname != "shared/src/b.c" || tree["shared/other"] != nil || l.Bytes != 5+5+4+1 {
		t.Fatalf("the stream has %v, %d bytes", tree, l.Bytes)
	}
	_, err := commitTo(w, h1, l.ID, "one", changesOf(t,
		of(tar.TypeDir, "shared/src/", ""), wrote("shared/src/a.c", "new a"), wrote("shared/src/a.o", "object"), meta("shared/src/b.c", 0o600), of(tar.TypeLink, "shared/src/b2.c", "shared/src/b.c"),
		removed("shared/src/gone"), of(tar.TypeSymlink, "shared/src/latest", "a.o"), of(tar.TypeDir, "shared/src/newdir/", ""), wrote("shared/src/newdir/f", "f")))
	if err != nil {
		t.Fatal(err)
	}
	want := `other -rw-r--r-- other
src drwxr-xr-x
src/a.c -rw-r--r-- new a
src/a.o -rw-r--r-- object
src/b.c -rw------- old b
src/b2.c -rw------- old b
src/latest Lrwxrwxrwx -> a.o
src/newdir drwxr-xr-x
src/newdir/f -rw-r--r-- f
src/sub drwxr-xr-x
src/sub/deep.c -rw-r--r-- deep
`
	if got := shown(t, w); got != want {
		t.Errorf("the export is\n%s\nand not\n%s", got, want)
	}
	info, err := os.Stat(filepath.Join(sharedDir(w), "src/a.c"))
	if err != nil || info.ModTime().UnixNano() != 1_700_000_000_000_000_042 {
		t.Errorf("its time is %v, %v", info.ModTime(), err)
	}
	if left, _ := os.ReadDir(filepath.Join(sharedDir(w), stageName)); len(left) != 0 {
		t.Errorf("%d stages are left", len(left))
	}
	if _, err := commitTo(w, h1, l.ID, "one", nil); err != nil {
		t.Errorf("the same commit again, whose answer was lost: %v", err)
	}
	if _, err := commitTo(w, h1, l.ID, "two", changesOf(t, wrote("shared/src/a.c", "newer a"))); err != nil {
		t.Errorf("a second commit under the lease: %v", err)
	}
}

func TestTwoNodesCannotWriteOneRegion(t *testing.T) {
	w, h1, h2 := regionWorld(t)
	lay(t, w, "src/a", "a", "src/sub/b", "b", "data/c", "c")
	l := leased(t, w, h1, nodeapi.Write, "/shared/src/sub")
	for _, p := range []string{"/shared/src", "/shared/src/sub", "/shared/src/sub/b"} {
		for _, mode := range []string{nodeapi.Write, nodeapi.Read} {
			_, err := w.volumes.Regions().Lease(t.Context(), h2, nodeapi.LeaseRequest{Paths: []string{p}, Mode: mode, TTL: 60})
			var taken *nodeapi.ConflictError
			if !errors.As(err, &taken) || taken.Conflict.Holder != "n1" {
				t.Errorf("%s of %s: %v", mode, p, err)
			}
		}
	}
	leased(t, w, h2, nodeapi.Write, "/shared/src/a", "/shared/data")
	if err := w.volumes.Regions().Free(h2, l.ID); err == nil {
		t.Error("another node freed the lease")
	}
	if err := w.volumes.Regions().Rebooted("c", "n1"); err != nil {
		t.Fatal(err)
	}
	leased(t, w, h2, nodeapi.Read, "/shared/src/sub")
	leased(t, w, h1, nodeapi.Read, "/shared/src/sub")
}

func TestARegionThatChangedMeanwhileIsNotOverwritten(t *testing.T) {
	for name, meddle := range map[string]func(w *world, h1, h2 nodeapi.Holder, id string){
		"written": func(w *world, _, _ nodeapi.Holder, _ string) { lay(t, w, "src/a", "theirs, longer") },
		"added":   func(w *world, _, _ nodeapi.Holder, _ string) { lay(t, w, "src/sub/new", "theirs") },
		"mode":    func(w *world, _, _ nodeapi.Holder, _ string) { os.Chmod(filepath.Join(sharedDir(w), "src/a"), 0o600) },
		"lease ended and taken": func(w *world, _, h2 nodeapi.Holder, _ string) {
			w.later(time.Hour)
			leased(t, w, h2, nodeapi.Write, "/shared/src")
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, h1, h2 := regionWorld(t)
			lay(t, w, "src/a", "ours", "src/sub/b", "b")
			l := leased(t, w, h1, nodeapi.Write, "/shared/src")
			streamed(t, w, h1, l.ID)
			meddle(w, h1, h2, l.ID)
			before := shown(t, w)
			changes := changesOf(t, wrote("shared/src/a", "mine"), removed("shared/src/sub"))
			_, err := commitTo(w, h1, l.ID, "c", changes)
			var conflict *nodeapi.ConflictError
			if !errors.As(err, &conflict) || !strings.HasPrefix(conflict.Conflict.Kept, "/shared/.kept/src-") {
				t.Fatalf("the commit says %v", err)
			}
			if after := shown(t, w); after != before {
				t.Errorf("the export became\n%s", after)
			}
			kept, err := os.ReadFile(filepath.Join(sharedDir(w), strings.TrimPrefix(conflict.Conflict.Kept, "/shared/")))
			if err != nil || !bytes.Equal(kept, changes) {
				t.Errorf("what is kept: %d bytes, %v", len(kept), err)
			}
		})
	}
}

func TestALeaseOutlivesTheServer(t *testing.T) {
	w, h1, h2 := regionWorld(t)
	lay(t, w, "src/a", "a")
	l := leased(t, w, h1, nodeapi.Write, "/shared/src")
	streamed(t, w, h1, l.ID)
	w.restart()
	if _, err := w.volumes.Regions().Lease(t.Context(), h2, nodeapi.LeaseRequest{Paths: []string{"/shared"}, Mode: nodeapi.Read, TTL: 60}); err == nil {
		t.Error("another node leased it after the restart")
	}
	if _, err := w.volumes.Regions().Renew(h1, l.ID, time.Minute); err != nil {
		t.Error(err)
	}
	if _, err := commitTo(w, h1, l.ID, "c", changesOf(t, wrote("shared/src/a", "b"))); err != nil {
		t.Error(err)
	}
}

func TestWhatANodeMaySendBackIsInsideOfTheRegion(t *testing.T) {
	w, h1, _ := regionWorld(t)
	lay(t, w, "src/a", "a", "src/sub/b", "b", "secret", "s")
	if err := os.Symlink("/etc", filepath.Join(sharedDir(w), "src/etc")); err != nil {
		t.Fatal(err)
	}
	l := leased(t, w, h1, nodeapi.Write, "/shared/src")
	streamed(t, w, h1, l.ID)
	before := shown(t, w)
	for name, edits := range map[string][]tarEdit{
		"above":              {wrote("shared/secret", "x")},
		"dots":               {wrote("shared/src/../secret", "x")},
		"other mount":        {wrote("etc/passwd", "x")},
		"over a symlink":     {wrote("shared/src/etc/passwd", "x")},
		"over a new symlink": {of(tar.TypeSymlink, "shared/src/out", "/etc"), wrote("shared/src/out/passwd", "x")},
		"link outside":       {of(tar.TypeLink, "shared/src/out", "shared/secret")},
		"twice":              {wrote("shared/src/x", "x"), wrote("shared/src/x", "y")},
		"the region":         {removed("shared/src")},
		"the region a file":  {wrote("shared/src", "x")},
		"device":             {of(tar.TypeBlock, "shared/src/sda", "")},
		"in a file":          {wrote("shared/src/a/x", "x")},
		"no folder":          {wrote("shared/src/missing/x", "x")},
	} {
		if _, err := commitTo(w, h1, l.ID, name, changesOf(t, edits...)); err == nil {
			t.Errorf("%s was taken", name)
		}
		if after := shown(t, w); after != before {
			t.Fatalf("%s: the export became\n%s", name, after)
		}
	}
	if _, err := commitTo(w, h1, l.ID, "cut", changesOf(t, wrote("shared/src/a", strings.Repeat("x", 5000)))[:3000]); err == nil {
		t.Error("changes that were cut off were taken")
	}
	for _, p := range []string{"/shared", "/shared/missing", "/shared/src/etc", "/other/x", "/shared/.rhizome"} {
		if l, err := w.volumes.Regions().Lease(t.Context(), h1, nodeapi.LeaseRequest{Paths: []string{p}, Mode: nodeapi.Write, TTL: 60}); err == nil {
			t.Errorf("%s was leased: %+v", p, l)
		}
	}
}

// Who reads a region over NFS while it is written back gets the old bytes, the
// new ones, or is told that its handle is stale.
func TestAnNFSClientNeverReadsAMix(t *testing.T) {
	w, h1, _ := regionWorld(t)
	lay(t, w, "src/a", "old", "src/same", "same", "src/dir/b", "old b")
	c := w.dial(addr2)
	root := c.mustMount("/shared/c")
	handles := map[string]handle{}
	for _, p := range []string{"src", "src/a", "src/same", "src/dir", "src/dir/b"} {
		handles[p] = c.walk(root, strings.Split(p, "/")...)
	}
	l := leased(t, w, h1, nodeapi.Write, "/shared/src")
	streamed(t, w, h1, l.ID)
	if _, err := commitTo(w, h1, l.ID, "c", changesOf(t, wrote("shared/src/a", "new"), removed("shared/src/dir"))); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]status{"src": statusStale, "src/a": statusStale, "src/same": statusOK, "src/dir": statusStale, "src/dir/b": statusStale} {
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
	w := newWorld(t, func(n *Node) { n.PersistQuota = 1 << 20 })
	h := holderOf("n1", addr1)
	dir := filepath.Join(w.dir, "persist", "c", "n1", "src")
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "a"), []byte("old"), 0o644)); err != nil {
		t.Fatal(err)
	}
	l := leased(t, w, h, nodeapi.Write, "/persist/src")
	streamed(t, w, h, l.ID)
	_, err := commitTo(w, h, l.ID, "big", changesOf(t, wrote("persist/src/a", strings.Repeat("x", 2<<20))))
	var full *nodeapi.FullError
	if !errors.As(err, &full) {
		t.Errorf("the commit says %v", err)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "a")); err != nil || string(data) != "old" {
		t.Errorf("the file has %q, %v", data, err)
	}
	for i := range 10 { // each leaves as much room as it found
		if _, err := commitTo(w, h, l.ID, fmt.Sprint(i), changesOf(t, wrote("persist/src/a", strings.Repeat("x", 200<<10)))); err != nil {
			t.Fatalf("commit %d: %v", i, err)
		}
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
