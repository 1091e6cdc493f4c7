package layerfmt

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"testing"
)

func seedTars(t testing.TB) [][]byte {
	every := makeTar(t, map[string][]byte{"d/f": []byte("body"), "big": bytes.Repeat([]byte{1, 2, 3, 4}, 1000)},
		tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755}, tar.Header{Typeflag: tar.TypeReg, Name: "d/f", Mode: 0o4755, PAXRecords: map[string]string{"SCHILY.xattr.user.a": "b", "SCHILY.fflags": "schg"}},
		tar.Header{Typeflag: tar.TypeLink, Name: "d/l", Linkname: "d/f"}, tar.Header{Typeflag: tar.TypeSymlink, Name: "s", Linkname: "../d"},
		tar.Header{Typeflag: tar.TypeReg, Name: "big"}, tar.Header{Typeflag: tar.TypeChar, Name: "dev/null", Devmajor: 1, Devminor: 3},
		tar.Header{Typeflag: tar.TypeFifo, Name: "p"}, tar.Header{Typeflag: tar.TypeReg, Name: "d/.wh.x"}, tar.Header{Typeflag: tar.TypeReg, Name: "d/.wh..wh..opq"},
		tar.Header{Typeflag: tar.TypeLink, Name: "below", Linkname: "usr/x"})
	return [][]byte{nil, every, every[:1024], makeTar(t, nil)}
}

// FuzzEncode's law: what Encode takes, it gives back byte for byte, under its
// own sha256, the same for any number of jobs; the index that it makes opens
// and is right; and its length is bound by the input's.
func FuzzEncode(f *testing.F) {
	for _, s := range seedTars(f) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		var one, three bytes.Buffer
		s, err := Encode(&one, bytes.NewReader(stream), Options{Jobs: 1})
		s3, err3 := Encode(&three, bytes.NewReader(stream), Options{Jobs: 3})
		if (err == nil) != (err3 == nil) || err == nil && (s != s3 || !bytes.Equal(one.Bytes(), three.Bytes())) {
			t.Fatalf("jobs matter: %v, %v", err, err3)
		}
		if err != nil {
			return
		}
		sum := sha256.Sum256(stream)
		if s.DiffID.Encoded() != hex.EncodeToString(sum[:]) {
			t.Fatal("another DiffID than the input's sha256")
		}
		if _, err := Verify(bytes.NewReader(one.Bytes()), s.Size, s.Annotations()); err != nil {
			t.Fatalf("what Encode wrote is not right: %v", err)
		}
		if limit := int64(1024 + 128*len(stream)); s.IndexSize > limit {
			t.Fatalf("an index of %d bytes for a tar of %d", s.IndexSize, len(stream))
		}
	})
}

// FuzzOpenIndex's law: whatever opens can be walked from end to end without a
// panic, in steps bound by its length, and never leads outside of itself. The
// CRC is put right, so that the fuzzer gets behind it.
func FuzzOpenIndex(f *testing.F) {
	for _, s := range seedTars(f) {
		var b bytes.Buffer
		sum, err := Encode(&b, bytes.NewReader(s), Options{Jobs: 1})
		if err != nil {
			continue
		}
		f.Add(b.Bytes()[sum.IndexOffset+skippableHead : sum.IndexOffset+sum.IndexSize])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if data = bytes.Clone(data); len(data) >= headLen {
			le.PutUint32(data[headCRC:], indexCRC(data))
		}
		x, err := OpenIndex(data)
		if err != nil {
			return
		}
		steps := walkIndex(t, x, Root)
		if steps > x.Len()+int(x.nDirents) {
			t.Fatalf("%d steps through %d inodes and %d names", steps, x.Len(), x.nDirents)
		}
		for i := Inode(0); int(i) <= x.Len()+1; i++ {
			touch(x, i)
		}
		for n := range x.Frames() {
			fr := x.Frame(n)
			if x.FrameFor(fr.Stream) != n {
				t.Fatalf("frame %d is not where it says", n)
			}
		}
	})
}

func walkIndex(t *testing.T, x *Index, dir Inode) int {
	first, n := x.Children(dir)
	steps := n
	for at := first; at < first+n; at++ {
		d := x.Dirent(at)
		if i, ok := x.Lookup(dir, d.Name); !ok || i != d.Inode {
			t.Fatalf("the name %q of directory %d is not found", d.Name, dir)
		}
		if d.Kind == Dir {
			steps += walkIndex(t, x, d.Inode)
		}
	}
	return steps
}

func touch(x *Index, i Inode) {
	a := x.Attr(i)
	_, _, _ = x.Readlink(i), x.Flags(i), x.Xattrs(i)
	_, _ = x.BodyDigest(i)
	if off, size, ok := x.Body(i); ok && size > 0 && (x.FrameFor(off) < 0 || x.FrameFor(off+size-1) < 0 || uint64(size) != a.Size) {
		panic("a body outside the frames")
	}
}

// FuzzSeekTable's law: what parses writes back identically, and takes no more
// entries than its bytes hold.
func FuzzSeekTable(f *testing.F) {
	f.Add(seekTable(nil, 100))
	f.Add(seekTable([]FrameInfo{{Length: 5, Plain: 9}, {Length: 7, Plain: 8}}, 1))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		table, err := parseSeekTable(data)
		if err != nil {
			return
		}
		if len(table)*8 > len(data) {
			t.Fatalf("%d entries out of %d bytes", len(table), len(data))
		}
		if len(table) == 0 || data[len(data)-5] != 0 || table[len(table)-1].plain != 0 {
			return // another writer's: with checksums, or without an index
		}
		frames := make([]FrameInfo, len(table)-1)
		for i := range frames {
			frames[i] = FrameInfo{Length: int(table[i].length), Plain: int(table[i].plain)}
		}
		if back := seekTable(frames, int(table[len(table)-1].length)); !bytes.Equal(back, data) {
			t.Fatalf("%x writes back as %x", data, back)
		}
	})
}
