package layerfmt

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestTarsThatNoLayerMayHoldAreRefusedByName(t *testing.T) {
	file := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name} }
	for name, c := range map[string]struct {
		want string
		h    []tar.Header
	}{
		"dots":             {`"a/../../b": it leads out`, []tar.Header{file("a/../../b")}},
		"absolute":         {`"/etc/passwd": an absolute path`, []tar.Header{file("/etc/passwd")}},
		"not UTF-8":        {`not UTF-8`, []tar.Header{file("caf\xe9")}},
		"long name":        {`a name of 256 bytes`, []tar.Header{file(strings.Repeat("n", 256))}},
		"long path":        {`a path of`, []tar.Header{file(strings.Repeat("nnnnnnnn/", 500) + "n")}},
		"twice":            {`"./a": it comes a second time (first as a file)`, []tar.Header{file("a"), file("./a")}},
		"file over dir":    {`comes a second time (first as a directory)`, []tar.Header{file("a/b"), file("a")}},
		"below a file":     {`it lies in "a", which is a file`, []tar.Header{file("a"), file("a/b")}},
		"link out":         {`a hard link to "../../etc/shadow"`, []tar.Header{{Typeflag: tar.TypeLink, Name: "a", Linkname: "../../etc/shadow"}}},
		"absolute link":    {`a hard link to "/etc/shadow"`, []tar.Header{{Typeflag: tar.TypeLink, Name: "a", Linkname: "/etc/shadow"}}},
		"link to dir":      {`which is a directory`, []tar.Header{file("d/x"), {Typeflag: tar.TypeLink, Name: "a", Linkname: "d"}}},
		"device":           {`a device where none belongs`, []tar.Header{{Typeflag: tar.TypeBlock, Name: "etc/sda", Devmajor: 8}}},
		"overlay whiteout": {`overlayfs whiteout`, []tar.Header{{Typeflag: tar.TypeChar, Name: "dev/gone"}}},
		"whiteout of root": {`a whiteout of "."`, []tar.Header{file(".wh..")}},
		"whiteout of up":   {`a whiteout of ".."`, []tar.Header{file("a/.wh...")}},
		"whiteout of none": {`a whiteout of ""`, []tar.Header{file("a/.wh.")}},
		"opaque root":      {`a whiteout of the root`, []tar.Header{file(".wh..wh..opq")}},
		"in a whiteout":    {`a whiteout holds nothing`, []tar.Header{file(".wh.a/b")}},
		"root as a file":   {`the root cannot be a symlink`, []tar.Header{{Typeflag: tar.TypeSymlink, Name: ".", Linkname: "x"}}},
		"contiguous":       {`tar type '7'`, []tar.Header{{Typeflag: tar.TypeCont, Name: "a"}}},
		"owner":            {`owner -1:0 is out of range`, []tar.Header{{Typeflag: tar.TypeReg, Name: "a", Uid: -1, Format: tar.FormatGNU}}},
	} {
		_, err := Encode(io.Discard, bytes.NewReader(makeTar(t, nil, c.h...)), Options{Jobs: 1})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

// Ten megabytes of gzip unpack to twenty million empty files: what is kept of them
// is bounded.
func TestATarOfAnyNumberOfEntriesIsRefusedOrHasRoom(t *testing.T) {
	b := newBuilder()
	b.tars = MaxEntries - 1
	if _, err := b.add(&entry{path: "last", inode: inode{kind: File}}); err != nil {
		t.Errorf("the last one that has room: %v", err)
	}
	if _, err := b.add(&entry{path: "more", inode: inode{kind: File}}); err == nil || !strings.Contains(err.Error(), "16777216") {
		t.Errorf("one more: %v", err)
	}
}

// Nobody walks deeper into an index than a path of a tar can lead: what such a
// walk keeps grows with the square of the depth.
func TestAnIndexDeeperThanAnyPathIsRefused(t *testing.T) {
	for depth, want := range map[int]bool{MaxPath / 2: true, MaxPath: false, 100_000: false} {
		b := newBuilder()
		if _, err := b.implied(strings.TrimSuffix(strings.Repeat("d/", depth), "/")); err != nil {
			t.Fatal(err)
		}
		data, err := b.marshal(nil, [32]byte{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := OpenIndex(data); (err == nil) != want || err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d folders in each other: %v", depth, err)
		}
	}
}

func TestWhatIsOddButAllowed(t *testing.T) {
	var global bytes.Buffer
	w := tar.NewWriter(&global)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header", PAXRecords: map[string]string{"comment": "git"}}); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	stream := makeTar(t, map[string][]byte{"x": []byte("1")},
		tar.Header{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o700}, tar.Header{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o711},
		tar.Header{Typeflag: tar.TypeReg, Name: "x"}, tar.Header{Typeflag: tar.TypeSymlink, Name: "out", Linkname: "../../../etc/shadow"},
		tar.Header{Typeflag: tar.TypeReg, Name: ".wh..wh.plnk"}, tar.Header{Typeflag: tar.TypeReg, Name: ".wh.d"}, tar.Header{Typeflag: tar.TypeReg, Name: ".wh.x"},
		tar.Header{Typeflag: tar.TypeReg, Name: ".wh.later"}, tar.Header{Typeflag: tar.TypeReg, Name: "later/in"},
		tar.Header{Typeflag: tar.TypeLink, Name: "below", Linkname: "./usr/bin/perl"},
		tar.Header{Typeflag: tar.TypeChar, Name: "srv/chroot/dev/null", Devmajor: 1, Devminor: 3})
	blob, _ := encode(t, append(global.Bytes(), stream...), 1)
	x := openBlob(t, blob, nil)
	d, kind, _ := x.Find(Root, "d")
	if kind != Dir || x.Attr(d).Mode != 0o711 || !x.Opaque(d) {
		t.Errorf("d: the last of two descriptions counts, and a whiteout beside a directory makes it opaque: %+v", x.Attr(d))
	}
	if _, kind, _ := x.Find(Root, "x"); kind != File {
		t.Errorf("a whiteout beside a file of its own layer hid it: %s", kind)
	}
	if l, kind, _ := x.Find(Root, "later"); kind != Dir || !x.Opaque(l) || !x.Implied(l) {
		t.Errorf("later: %s", kind)
	}
	if l, kind, _ := x.Find(Root, "below"); kind != Link || x.Readlink(l) != "usr/bin/perl" {
		t.Errorf("below: %s to %q", kind, x.Readlink(l))
	}
	if i, kind, _ := x.Find(Root, "out"); kind != Symlink || x.Readlink(i) != "../../../etc/shadow" {
		t.Errorf("out: %s to %q", kind, x.Readlink(i))
	}
}

func TestRealArchiversAreRead(t *testing.T) {
	dir := t.TempDir()
	long := strings.Repeat("d", 90) + "/" + strings.Repeat("n", 200)
	if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, long)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, long), []byte("deep"), 0o4711); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "hole"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	f.Close()
	for _, args := range [][]string{{"tar", "--format=gnu"}, {"tar", "--format=pax"}, {"bsdtar", "--format=ustar", "--exclude=" + strings.Repeat("n", 200)}, {"bsdtar", "--format=pax", "--no-read-sparse"}} {
		if _, err := exec.LookPath(args[0]); err != nil {
			t.Skipf("skipped: no %s here", args[0])
		}
		out, err := exec.Command(args[0], append(args[1:], "-C", dir, "-cf", "-", ".")...).Output()
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		blob, s := encode(t, out, 1)
		if rep, err := Verify(bytes.NewReader(blob), int64(len(blob)), s.Annotations()); err != nil || rep.Entries != s.Entries {
			t.Errorf("%v: %v", args, err)
		}
	}
	for _, format := range []string{"gnu", "pax"} {
		out, err := exec.Command("tar", "--format="+format, "--sparse", "-C", dir, "-cf", "-", ".").Output()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Encode(io.Discard, bytes.NewReader(out), Options{Jobs: 1}); err == nil || !strings.Contains(err.Error(), "sparse") {
			t.Errorf("a sparse file in a %s tar: %v", format, err)
		}
	}
}

func TestATarThatEndsEarlyIsRefused(t *testing.T) {
	stream := makeTar(t, map[string][]byte{"a": bytes.Repeat([]byte("a"), 5000)}, tar.Header{Typeflag: tar.TypeReg, Name: "a"})
	for _, n := range []int{100, 511, 513, 5000, 5511} {
		if _, err := Encode(io.Discard, bytes.NewReader(stream[:n]), Options{Jobs: 1}); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	// A source that breaks off, such as a gzip cut short, is not an end.
	_, err := Encode(io.Discard, io.MultiReader(bytes.NewReader(stream), broken{}), Options{Jobs: 1})
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a source that breaks off behind the archive: %v", err)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// TestEveryFlippedBitIsFound flips bits all over a blob. Each must be found by
// Verify.
func TestEveryFlippedBitIsFound(t *testing.T) {
	stream, _ := mixed(t)
	blob, s := encode(t, stream, 2)
	rng := rand.New(rand.NewPCG(7, 7))
	places := []int64{0, s.IndexOffset - 1, s.IndexOffset, s.IndexOffset + 5, s.IndexOffset + skippableHead, s.IndexOffset + s.IndexSize, s.Size - 1, s.Size - 9, s.Size - 5}
	for range 12 {
		places = append(places, rng.Int64N(s.Size), s.IndexOffset+rng.Int64N(s.IndexSize))
	}
	for _, at := range places {
		bad := bytes.Clone(blob)
		bad[at] ^= 1 << rng.IntN(8)
		if _, err := Verify(bytes.NewReader(bad), s.Size, nil); err == nil {
			t.Errorf("a flipped bit at byte %d of %d was not found", at, s.Size)
		}
	}
	if _, err := Verify(bytes.NewReader(blob), s.Size, s.Annotations()); err != nil {
		t.Errorf("the whole blob: %v", err)
	}
	for _, n := range []int64{s.Size - 1, s.IndexOffset, 8, 0} {
		if _, err := Verify(bytes.NewReader(blob[:n]), n, nil); err == nil {
			t.Errorf("a blob of %d bytes of %d was taken", n, s.Size)
		}
	}
}

func TestAnIndexOfAnotherBlobIsFound(t *testing.T) {
	a, sa := encode(t, makeTar(t, map[string][]byte{"f": []byte("one")}, tar.Header{Typeflag: tar.TypeReg, Name: "f"}), 1)
	b, sb := encode(t, makeTar(t, map[string][]byte{"f": []byte("two")}, tar.Header{Typeflag: tar.TypeReg, Name: "f"}), 1)
	if _, err := ReadTail(bytes.NewReader(a), sa.Size, sb.Annotations()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("another descriptor's annotations were taken: %v", err)
	}
	// The index that lies is right in itself: same frames, other bodies.
	forged := append(append(bytes.Clone(a[:sa.IndexOffset]), b[sb.IndexOffset:sb.IndexOffset+sb.IndexSize]...), b[sb.IndexOffset+sb.IndexSize:]...)
	if sa.IndexOffset == sb.IndexOffset {
		if _, err := Verify(bytes.NewReader(forged), int64(len(forged)), nil); !errors.Is(err, ErrCorrupt) {
			t.Errorf("a forged index: %v", err)
		}
	}
}

// TestLyingCountsCostNothing sets every count of an index to what would take
// gigabytes, with a CRC that is right.
func TestLyingCountsCostNothing(t *testing.T) {
	stream, _ := mixed(t)
	blob, _ := encode(t, stream, 1)
	good := openBlob(t, blob, nil).Bytes()
	for _, at := range []int{headInodes, headDirents, headFrames, headXattrs, headBodies, headHeap, headLength, headStream} {
		for _, v := range []uint32{10_000_000, 0xffffffff, 0} {
			bad := bytes.Clone(good)
			le.PutUint32(bad[at:], v)
			le.PutUint32(bad[headCRC:], indexCRC(bad))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := OpenIndex(bad)
			runtime.ReadMemStats(&after)
			if err == nil && !bytes.Equal(bad, good) || after.TotalAlloc-before.TotalAlloc > 1<<20 {
				t.Errorf("count at %d set to %d: %v, %d bytes allocated", at, v, err, after.TotalAlloc-before.TotalAlloc)
			}
		}
	}
}

func TestSeekTablesThatLie(t *testing.T) {
	stream, _ := mixed(t)
	blob, s := encode(t, stream, 1)
	table := s.IndexOffset + s.IndexSize
	set := func(at int64, v uint32) []byte {
		b := bytes.Clone(blob)
		le.PutUint32(b[at:], v)
		return b
	}
	for name, bad := range map[string][]byte{
		"more frames than bytes": set(s.Size-9, 0x0fffffff),
		"no frames":              set(s.Size-9, 0),
		"its own length":         set(table+4, 17),
		"another magic":          set(table, indexMagic),
		"a frame's length":       set(table+skippableHead, 99),
		"a frame's content":      set(table+skippableHead+4, 99),
		"the index's length":     set(s.Size-9-8, 16),
		"the index's content":    set(s.Size-9-4, 1),
	} {
		if _, err := ReadTail(bytes.NewReader(bad), s.Size, nil); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNoIndex) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, foreign := range map[string][]byte{"a tar": stream, "nothing": nil, "a gzip": {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0}} {
		if _, err := ReadTail(bytes.NewReader(foreign), int64(len(foreign)), nil); !errors.Is(err, ErrNoIndex) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
