package reads

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rhizome/registry/durable"
	"rhizome/serve/boot"
	"rhizome/serve/rootfs"
)

// view is a root of files of so many bytes; "a/" is a folder.
func view(t testing.TB, digest string, files map[string]int) *rootfs.View {
	t.Helper()
	var entries []rootfs.MemoryEntry
	for p, size := range files {
		e := rootfs.MemoryEntry{Path: p, Kind: rootfs.Regular, Mode: 0o755, Data: make([]byte, size)}
		if strings.HasSuffix(p, "/") {
			e.Kind, e.Data = rootfs.Dir, nil
		}
		entries = append(entries, e)
	}
	l, err := rootfs.MemoryLayer(entries...)
	if err != nil {
		t.Fatal(err)
	}
	v, err := rootfs.NewView(digest, []*rootfs.Layer{l})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func file(t *testing.T, v *rootfs.View, p string) rootfs.File {
	t.Helper()
	f, err := v.Locate(p)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// world is a book with a clock and one node.
type world struct {
	book *Book
	now  time.Time
	view *rootfs.View
	kept []Record
}

var client = netip.MustParseAddr("10.0.0.11")

func newWorld(t *testing.T, files map[string]int) *world {
	w := &world{now: time.Unix(1800000000, 0), view: view(t, "sha256:01", files)}
	w.book = NewBook("rack", func() time.Time { return w.now },
		func(a netip.Addr, id [16]byte) (Root, bool) {
			return Root{Node: "n1", Mode: "nfs", View: w.view}, a == client && id == w.view.ID()
		}, func(r Record) { w.kept = append(w.kept, r) })
	return w
}

func (w *world) event(k boot.Kind, detail string) {
	w.book.Event(boot.Event{Kind: k, Node: "n1", Digest: "sha256:01", Detail: detail})
	w.now = w.now.Add(time.Second)
}

// told lists the windows that were kept last, with their files.
func (w *world) told() string {
	if len(w.kept) == 0 {
		return ""
	}
	var b strings.Builder
	for _, win := range w.kept[len(w.kept)-1].Windows {
		fmt.Fprintf(&b, "%s:", win.Name)
		for _, f := range win.Files {
			fmt.Fprintf(&b, " %s=%d/%d/%d/%d", f.Path, f.Calls, f.Reads, f.Bytes, f.Searches)
		}
		b.WriteString("; ")
	}
	return b.String()
}

func TestWhatABootAndAJobAskedForIsToldApart(t *testing.T) {
	w := newWorld(t, map[string]int{"bin/sh": 100, "bin/cc": 100, "etc/": 0})
	m := w.book.Meter(client, w.view.ID())
	w.event(boot.MountDone, "")
	sh, cc := file(t, w.view, "/bin/sh"), file(t, w.view, "/bin/cc")
	m.Called(sh)
	m.Read(sh, 100)
	m.Searched(file(t, w.view, "/etc"))
	w.event(boot.NodeUp, "")
	if got, want := w.told(), "boot: /bin/sh=1/1/100/0 /etc=0/0/0/1; "; got != want {
		t.Errorf("the boot asked for %q, want %q", got, want)
	}
	m.Called(sh)
	w.event(boot.NodeJobBegin, "build")
	m.Called(cc)
	m.Called(sh)
	w.event(boot.NodeJobEnd, "build")
	if got, want := w.told(), "boot: /bin/sh=1/1/100/0 /etc=0/0/0/1; build: /bin/cc=1/0/0/0 /bin/sh=1/0/0/0; "; got != want {
		t.Errorf("kept %q, want %q", got, want)
	}
	w.book.Close()
	if len(w.kept) != 2 {
		t.Errorf("%d records were kept; what is kept already needs no other", len(w.kept))
	}
}

func TestEachBootIsCountedByItself(t *testing.T) {
	w := newWorld(t, map[string]int{"bin/sh": 100})
	m := w.book.Meter(client, w.view.ID())
	sh := file(t, w.view, "/bin/sh")
	m.Called(sh) // serve began in the middle of a boot
	for boots := range 3 {
		w.event(boot.DHCPDiscover, "")
		w.event(boot.MountDone, "")
		w.event(boot.MountDone, "") // FreeBSD's loader mounts for every file
		for range boots + 2 {
			m.Called(sh)
		}
	}
	w.book.Flush()
	w.book.Flush()
	w.book.Close()
	var got []string
	for _, r := range w.kept {
		got = append(got, fmt.Sprintf("%v %d", r.Partial, r.Windows[0].Files[0].Calls))
	}
	if want := []string{"true 1", "false 2", "false 3", "false 4"}; !slices.Equal(got, want) {
		t.Errorf("boots %v, want %v", got, want)
	}
}

func TestNobodyButANodeIsCounted(t *testing.T) {
	w := newWorld(t, map[string]int{"bin/sh": 100})
	if w.book.Meter(netip.MustParseAddr("10.0.0.99"), w.view.ID()) != nil {
		t.Error("a stranger is counted")
	}
}

// Counting is on the hot path: no allocation but the first time, and from many
// goroutines at once.
func TestCountingAllocatesOnceAndLosesNothing(t *testing.T) {
	w := newWorld(t, map[string]int{"bin/sh": 100, "bin/cc": 100})
	m := w.book.Meter(client, w.view.ID())
	w.event(boot.MountDone, "")
	sh := file(t, w.view, "/bin/sh")
	m.Called(sh)
	if n := testing.AllocsPerRun(100, func() { m.Called(sh); m.Read(sh, 10) }); n != 0 {
		t.Errorf("%v allocations for a call", n)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				m.Searched(sh)
			}
		})
	}
	wg.Wait()
	w.book.Close()
	if n := w.kept[0].Windows[0].Files[0].Searches; n != 8000 {
		t.Errorf("%d of 8000 calls were counted", n)
	}
}

func TestThereIsAnEndToTheMemoryThatCountersTake(t *testing.T) {
	w := newWorld(t, map[string]int{"bin/sh": 100})
	w.book.room.Store(7)
	m := w.book.Meter(client, w.view.ID())
	w.event(boot.MountDone, "")
	m.Called(file(t, w.view, "/bin/sh"))
	w.event(boot.NodeUp, "")
	if !w.kept[0].Truncated || w.book.room.Load() != 7 {
		t.Errorf("kept %+v with %d bytes left", w.kept[0], w.book.room.Load())
	}
	w.book.room.Store(memory)
	w.event(boot.DHCPDiscover, "")
	w.event(boot.MountDone, "")
	m.Called(file(t, w.view, "/bin/sh"))
	w.book.Close()
	if w.kept[1].Truncated || w.book.room.Load() != memory {
		t.Errorf("%d of %d bytes came back", w.book.room.Load(), memory)
	}
}

func TestAShelfKeepsTheNewestBoots(t *testing.T) {
	dir := t.TempDir()
	s := Shelf{Dir: filepath.Join(dir, "reads"), Temp: dir, FS: durable.OS{}}
	if all, err := s.Load(); err != nil || len(all) != 0 {
		t.Errorf("an empty shelf has %d records, %v", len(all), err)
	}
	for i := range keepBoots + 3 {
		r := Record{Version: Version, Node: "n1", Began: time.Unix(int64(1000+i), 0), Windows: []Window{{Name: BootWindow, Files: []File{{"/bin/sh", Counts{Calls: 1}}}}}}
		for range 2 {
			if err := s.Keep(r); err != nil {
				t.Fatal(err)
			}
		}
	}
	all, err := s.Load()
	if err != nil || len(all) != keepBoots || all[0].Began.Unix() != 1000+keepBoots+2 || all[0].Windows[0].Files[0].Calls != 1 {
		t.Errorf("%d records, %v, %+v", len(all), err, all[0])
	}
	names, _ := filepath.Glob(filepath.Join(s.Dir, "n1", "*"))
	if err := os.WriteFile(names[0], []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(); err == nil || !strings.Contains(err.Error(), "remove the file") {
		t.Errorf("a torn record: %v", err)
	}
}

func cost(size int64) int64 { return (size+4095)&^4095 + 1024 }

func learned(t *testing.T, v *rootfs.View, w Wish, files ...File) *List {
	t.Helper()
	w.Cost = cost
	l, err := Learn(v, []Window{{Name: BootWindow, Files: files}}, w)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func pathsOf(l *List) string {
	var out []string
	for _, s := range l.Steps {
		out = append(out, s.Path)
	}
	return strings.Join(out, " ")
}

func TestTheHottestForItsMemoryComesFirst(t *testing.T) {
	v := view(t, "sha256:02", map[string]int{"usr/lib/big": 4 << 20, "usr/lib/cold": 64 << 20, "usr/bin/small": 4096, "usr/bin/other": 8 << 20})
	counts := []File{
		{"/usr/lib/big", Counts{Calls: 10, Reads: 128, Bytes: 4 << 20}},
		{"/usr/bin/small", Counts{Calls: 10, Reads: 1, Bytes: 4096}},
		{"/usr/lib", Counts{Searches: 20}},
		{"/gone", Counts{Calls: 1}},
	}
	l := learned(t, v, Wish{}, counts...)
	if got := pathsOf(l); got != "/usr/bin/small /usr/lib/big" {
		t.Errorf("learned %q: a folder of 64 MiB is not worth 20 calls", got)
	}
	last := l.Steps[len(l.Steps)-1]
	if last.Calls != 149 || last.Bytes != 4<<20+4096 || last.Memory != cost(4096)+cost(4<<20) || l.Total.All() != 170 || l.Gone != 1 {
		t.Errorf("%+v of %+v, %d gone", last, l.Total, l.Gone)
	}
	if got := pathsOf(learned(t, v, Wish{Limit: 1 << 20}, counts...)); got != "/usr/bin/small" {
		t.Errorf("in 1 MiB: %q", got)
	}
}

func TestWhatIsReadBeforeABundleIsNotHeldForItsOwnSake(t *testing.T) {
	v := view(t, "sha256:02", map[string]int{"usr/sbin/node": 4096, "usr/sbin/cold": 64 << 20, "usr/bin/sh": 4096})
	l := learned(t, v, Wish{Before: func(p string) bool { return p == "/usr/sbin/node" }},
		File{"/usr/sbin/node", Counts{Calls: 2, Reads: 44, Bytes: 4 << 20}}, File{"/usr/bin/sh", Counts{Calls: 1}})
	if got := pathsOf(l); got != "/usr/bin/sh" || l.Total.All() != 47 || l.Gone != 0 {
		t.Errorf("learned %q of %+v", got, l.Total)
	}
}

func TestAFolderIsHeldWholeWhereItsNamesAreAskedFor(t *testing.T) {
	v := view(t, "sha256:02", map[string]int{"usr/lib/py/a": 4096, "usr/lib/py/b": 4096, "usr/lib/own/mine": 10, "usr/lib/own/x": 10})
	l := learned(t, v, Wish{Apart: func(p string, _ rootfs.File) bool { return p == "/usr/lib/own/mine" }},
		File{"/usr/lib/py", Counts{Calls: 2, Searches: 100}}, File{"/usr/lib/py/a", Counts{Calls: 3}},
		File{"/usr/lib/own", Counts{Searches: 100}}, File{"/usr/lib/own/x", Counts{Calls: 1}})
	if got := pathsOf(l); got != "/usr/lib/py /usr/lib/own/x" {
		t.Errorf("learned %q; a folder with a node's own file cannot be held whole", got)
	}
	if s := l.Steps[0]; !s.Whole || s.Calls != 105 {
		t.Errorf("%+v", s)
	}
}

// What boots read in great part comes first, however hot a job makes the rest; the
// more boots are known, the better a list, not the longer.
func TestWhatBootsReadComesFirst(t *testing.T) {
	v := view(t, "sha256:02", map[string]int{"usr/bin/init": 1 << 20, "usr/bin/cc": 1 << 20, "usr/lib/half": 1 << 20, "usr/lib/rare": 1 << 20})
	boot := Window{Name: BootWindow, Files: []File{
		{"/usr/bin/init", Counts{Calls: 2, Reads: 8, Bytes: 1 << 20}},
		{"/usr/lib/half", Counts{Reads: 2, Bytes: 256 << 10}},
		{"/usr/lib/rare", Counts{Calls: 3}}}}
	job := Window{Name: "build", Files: []File{{"/usr/bin/cc", Counts{Calls: 500, Reads: 8, Bytes: 1 << 20}}}}
	for n := range 3 {
		windows := []Window{job}
		for range n + 1 {
			windows = append(windows, boot)
		}
		l, err := Learn(v, windows, Wish{Cost: cost})
		if err != nil {
			t.Fatal(err)
		}
		if got := pathsOf(l); got != "/usr/bin/init /usr/bin/cc /usr/lib/half" || l.First != cost(1<<20) || !l.Steps[0].First || l.Steps[1].First {
			t.Errorf("after %d boots: %q, the first %d bytes: %+v", n+1, got, l.First, l.Steps)
		}
	}
}

func TestFreeBSDLearnsFolders(t *testing.T) {
	v := view(t, "sha256:02", map[string]int{"usr/bin/a": 4096, "usr/bin/b": 4096, "usr/lib/c": 4096, "sbin/d": 4096})
	l := learned(t, v, Wish{Folders: true, MaxFolders: 2}, File{"/usr/bin/a", Counts{Calls: 9}}, File{"/usr/lib/c", Counts{Calls: 30}}, File{"/sbin/d", Counts{Calls: 20}})
	if got := pathsOf(l); got != "/usr/lib /sbin" {
		t.Errorf("learned %q", got)
	}
}

// What counting adds to a call, for docs/benchmarks.md.
func BenchmarkCall(b *testing.B) {
	v := view(b, "sha256:03", map[string]int{"bin/sh": 100})
	book := NewBook("rack", time.Now, func(netip.Addr, [16]byte) (Root, bool) { return Root{Node: "n1", View: v}, true }, func(Record) {})
	m := book.Meter(client, v.ID())
	f, err := v.Locate("/bin/sh")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		m.Called(f)
	}
}
