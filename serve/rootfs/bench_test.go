package rootfs

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"rhizome/registry/layerfmt"

	"golang.org/x/sys/unix"
)

// baseEntries is a root of about 34,000 entries, shaped like Debian's.
func baseEntries() []ent {
	entries := []ent{{path: "./"}, {path: "etc/"}, {path: "var/"}, {path: "var/lib/"}, {path: "usr/"}}
	for i := range 200 {
		entries = append(entries, ent{path: fmt.Sprintf("etc/conf%03d", i), body: "x"})
	}
	for i := range 1500 {
		entries = append(entries, ent{path: fmt.Sprintf("usr/bin/prog%04d", i), body: "bin"})
	}
	for d := range 3000 {
		for f := range 10 {
			entries = append(entries, ent{path: fmt.Sprintf("usr/share/doc/package%04d/file%d", d, f)})
		}
	}
	return entries
}

// middleEntries is a layer of packages that touches 3,000 of the base's
// directories.
func middleEntries() []ent {
	var entries []ent
	for d := range 3000 {
		entries = append(entries, ent{path: fmt.Sprintf("usr/share/doc/package%04d/new", d)})
	}
	return entries
}

func nodeEntries(n int) []ent {
	entries := []ent{{path: "etc/hostname", body: fmt.Sprintf("node%d\n", n)}}
	for i := range 20 {
		entries = append(entries, ent{path: fmt.Sprintf("etc/conf%03d", i), body: fmt.Sprintf("node %d\n", n)})
	}
	for _, d := range []string{"etc/ssh", "etc/systemd/network", "var/lib/node", "boot/loader"} {
		entries = append(entries, ent{path: d + "/file", body: "x"})
	}
	return entries
}

// TestAThousandNodesOnOneBaseCostLittle holds the promise of 50 KB of heap a
// node: its own layer's index and the directories that it touches, while a
// layer of packages below it touches 3,000.
func TestAThousandNodesOnOneBaseCostLittle(t *testing.T) {
	c := NewCache(1)
	base, middle := layerOf(t, c, baseEntries()...), layerOf(t, c, middleEntries()...)
	first := viewOf(t, base, middle)
	const nodes = 1000
	tails := make([][]byte, nodes)
	for i := range nodes {
		blob, _ := blobOf(t, tarOf(t, nodeEntries(i)))
		tails[i] = blob
	}
	before := heap()
	views := make([]*View, nodes)
	for i, blob := range tails {
		views[i] = viewOf(t, base, middle, openLayer(t, c, blob, fmt.Sprint(i)))
	}
	each := (int64(heap()) - int64(before)) / nodes
	if each > 50<<10 {
		t.Errorf("%d bytes of heap a node", each)
	}
	t.Logf("%d bytes of heap a node", each)
	if b, err := readAll(views[77], "etc/hostname"); b != "node77\n" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	runtime.KeepAlive(views)
	runtime.KeepAlive(first)
	runtime.KeepAlive(tails)
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestTheCacheLiesOutsideTheHeap(t *testing.T) {
	before := heap()
	c := NewCache(256 << 20)
	l, _, _ := bigLayer(t, c, 64)
	l.blob.(*countedBlob).data = bytes.Clone(l.blob.(*countedBlob).data)
	v := viewOf(t, l)
	after := heap()
	for i := range 64 {
		if _, err := readAll(v, fmt.Sprintf("f%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if full := heap(); full > after+16<<20 {
		t.Errorf("64 MiB of frames took %d bytes of heap (%d before all)", full-after, before)
	}
	if s := c.Stats(); s.Bytes < 64*arenaStride {
		t.Errorf("%+v", s)
	}
}

func TestADirectoryOfAHundredThousandNames(t *testing.T) {
	c := NewCache(1)
	var lower, upper []ent
	for i := range 100_000 {
		lower = append(lower, ent{path: fmt.Sprintf("d/n%06d", i)})
		if i%1000 == 0 {
			upper = append(upper, ent{path: fmt.Sprintf("d/.wh.n%06d", i)}, ent{path: fmt.Sprintf("d/n%06d+", i)})
		}
	}
	v := viewOf(t, layerOf(t, c, lower...), layerOf(t, c, upper...))
	dir, err := v.Resolve("d")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	cookie := uint64(0)
	for done := false; !done; { // 37 names a call, as a client with little room reads
		n := 0
		done = true
		err := v.ReadDir(dir, cookie, func(d Dirent) bool {
			if n++; n > 37 {
				done = false
				return false
			}
			all, cookie = append(all, d.Name), d.Cookie
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(all) != 100_000 || all[0] != "n000000+" {
		t.Fatalf("%d names, the first %q", len(all), all[0])
	}
	for i := 1; i < len(all); i++ {
		if all[i-1] >= all[i] {
			t.Fatalf("%q comes before %q", all[i-1], all[i])
		}
	}
	for _, bad := range []uint64{1 << 40, 7 << 32, 0xffffffff} {
		if err := v.ReadDir(dir, bad, func(Dirent) bool { return true }); err == nil {
			t.Errorf("the cookie %x was taken", bad)
		}
	}
}

func benchView(b *testing.B) *View {
	c := NewCache(64 << 20)
	return viewOf(b, layerOf(b, c, baseEntries()...), layerOf(b, c, middleEntries()...), layerOf(b, c, nodeEntries(1)...))
}

func BenchmarkLookup(b *testing.B) {
	v := benchView(b)
	for _, p := range []string{"usr/bin/prog0777", "etc/conf150", "etc/conf007", "usr/share/doc/package1234/file3", "usr/bin/none"} {
		at := strings.LastIndexByte(p, '/')
		dir, err := v.Resolve(p[:at])
		if err != nil {
			b.Fatal(err)
		}
		b.Run(strings.ReplaceAll(p, "/", "-"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = v.Lookup(dir, p[at+1:])
			}
		})
	}
}

func BenchmarkAttr(b *testing.B) {
	v := benchView(b)
	for _, p := range []string{"usr/bin/prog0777", "etc", "usr/share/doc/package1234", "etc/conf007"} {
		f, err := v.Resolve(p)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(strings.ReplaceAll(p, "/", "-"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = v.Attr(f)
			}
		})
	}
}

func BenchmarkReadDirFromACookie(b *testing.B) {
	v := benchView(b)
	dir, _ := v.Resolve("usr/bin")
	var cookie uint64
	_ = v.ReadDir(dir, 0, func(d Dirent) bool { cookie = d.Cookie; return d.Name < "prog0700" })
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		_ = v.ReadDir(dir, cookie, func(Dirent) bool { n++; return n < 64 })
	}
}

func BenchmarkLendCached128K(b *testing.B) {
	c := NewCache(64 << 20)
	l, _, _ := bigLayer(b, c, 4)
	v := viewOf(b, l)
	f, _ := v.Resolve("f2")
	if _, err := readAll(v, "f2"); err != nil {
		b.Fatal(err)
	}
	room := make([]Loan, 0, 4)
	b.ReportAllocs()
	for b.Loop() {
		got, _, ok := v.LendCached(f, 128<<10, 128<<10, room)
		if !ok {
			b.Fatal("not there")
		}
		ReleaseAll(got)
	}
}

func BenchmarkNewView(b *testing.B) {
	c := NewCache(1)
	base, middle := layerOf(b, c, baseEntries()...), layerOf(b, c, middleEntries()...)
	keep := viewOf(b, base, middle)
	blob, _ := blobOf(b, tarOf(b, nodeEntries(1)))
	b.ReportAllocs()
	for b.Loop() {
		viewOf(b, base, middle, openLayer(b, c, blob, "n"))
	}
	runtime.KeepAlive(keep)
}

func BenchmarkOpenIndexOf100000(b *testing.B) {
	var entries []ent
	for d := range 10_000 {
		for f := range 10 {
			entries = append(entries, ent{path: fmt.Sprintf("usr/share/doc/package%05d/file%d", d, f), body: "x"})
		}
	}
	blob, _ := blobOf(b, tarOf(b, entries))
	index, err := layerfmt.ReadTail(bytes.NewReader(blob), int64(len(blob)), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	before := cpuTime(b)
	for b.Loop() {
		if _, err := layerfmt.OpenIndex(index); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N)/1e6, "cpu-ms/op")
	b.ReportMetric(float64(len(index))/1e6, "MB")
}

// cpuTime is what this process has used so far: where a machine is busy, it
// says more than the clock.
func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
