package rootfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"testing"

	"rhizome/registry/layerfmt"
)

// shelf opens blobs in memory, and counts which are still open.
type shelf struct {
	bodies map[string][]byte
	open   int
}

type shelved struct {
	*bytes.Reader
	shelf *shelf
}

func (s shelved) Close() error {
	s.shelf.open--
	return nil
}

func (s *shelf) Open(digest string) (BlobReader, error) {
	body, ok := s.bodies[digest]
	if !ok {
		return nil, fmt.Errorf("the store has no %s: %w", digest, fs.ErrNotExist)
	}
	s.open++
	return shelved{bytes.NewReader(body), s}, nil
}

// numbered is n bytes of which no two neighbourhoods are the same.
func numbered(n int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%08d", i)
	}
	return b.Bytes()[:n]
}

const blobsManifest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

func shelfOf(bodies ...[]byte) (*shelf, []Blob) {
	s := &shelf{bodies: map[string][]byte{}}
	var list []Blob
	for i, body := range bodies {
		l := Blob{Name: fmt.Sprintf("sha256-%d", i), Digest: fmt.Sprintf("sha256:%d", i), Size: int64(len(body))}
		s.bodies[l.Digest] = body
		list = append(list, l)
	}
	return s, list
}

func bytesOf(loans []Loan) []byte {
	var all []byte
	for _, l := range loans {
		all = append(all, l.Data...)
	}
	return all
}

func TestABlobIsReadAtAnyPlace(t *testing.T) {
	body := numbered(3<<20 + 12345)
	s, list := shelfOf([]byte("small"), body)
	b := NewBlobs(blobsManifest, list, s.Open)
	f, err := b.Lookup(b.Root(), "sha256-1")
	if err != nil {
		t.Fatal(err)
	}
	size := int64(len(body))
	for _, c := range []struct {
		off int64
		n   int
	}{
		{0, 1}, {0, 1 << 20}, {1, 1 << 20}, {77, 333}, {1<<20 - 5, 10}, {5, 600_000}, {size - 1, 4096}, {size - 100, 100},
		{size, 10}, {size + 1, 10}, {math.MaxInt64, 1 << 20}, {12, 0}, {3, 3<<20 + 1},
	} {
		want := body[min(c.off, size):min(size, min(c.off, size)+int64(c.n))]
		loans, err := b.Borrow(f, c.off, c.n, nil)
		if err != nil || !bytes.Equal(bytesOf(loans), want) {
			t.Errorf("%d bytes at %d: %d came, %v", c.n, c.off, len(bytesOf(loans)), err)
		}
		for _, l := range loans {
			if cap(l.Data) > layerfmt.MaxFrame || c.n <= layerfmt.MaxFrame/2 && cap(l.Data) > c.n {
				t.Errorf("%d bytes at %d take %d of memory", c.n, c.off, cap(l.Data))
			}
		}
		ReleaseAll(loans)
		if _, _, cached := b.LendCached(f, c.off, c.n, nil); cached != (len(want) == 0) {
			t.Errorf("%d bytes at %d: in memory: %v", c.n, c.off, cached)
		}
	}
	for _, bad := range []int64{-1, math.MinInt64} {
		if _, err := b.Borrow(f, bad, 10, nil); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("reading at %d: %v", bad, err)
		}
	}
	if s.open != 0 {
		t.Errorf("%d blobs stay open", s.open)
	}
}

// Pieces go back to where the next ones come from, so what is held must not
// change under its holder.
func TestAPieceStaysUntilItIsReleased(t *testing.T) {
	s, list := shelfOf(bytes.Repeat([]byte("a"), 1<<20), bytes.Repeat([]byte("b"), 1<<20))
	b := NewBlobs(blobsManifest, list, s.Open)
	for range 10 {
		held, err := b.Borrow(File{Inode: firstBlob}, 0, 1<<20, nil)
		if err != nil {
			t.Fatal(err)
		}
		other, err := b.Borrow(File{Inode: firstBlob + 1}, 0, 1<<20, nil)
		if err != nil {
			t.Fatal(err)
		}
		ReleaseAll(other)
		if bytes.Count(held[0].Data, []byte("a")) != 1<<20 {
			t.Fatal("the bytes of another read lie in it")
		}
		ReleaseAll(held)
	}
}

// A blob that was cut, or is gone, is an error of reading: its name is there.
func TestABlobThatCannotBeReadIsNoMissingName(t *testing.T) {
	s, list := shelfOf(numbered(1000), numbered(1000))
	b := NewBlobs(blobsManifest, list, s.Open)
	s.bodies["sha256:0"] = numbered(400)
	delete(s.bodies, "sha256:1")
	for i := range list {
		loans, err := b.Borrow(File{Inode: uint32(firstBlob + i)}, 300, 700, nil)
		if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, io.EOF) || len(loans) > 0 {
			t.Errorf("blob %d: %d loans, %v", i, len(loans), err)
		}
	}
	if loans, err := b.Borrow(File{Inode: firstBlob}, 300, 100, nil); err != nil || len(loans) != 1 {
		t.Errorf("what is left of it: %v", err)
	}
}

// Another server, and this one after a restart, give the same handles; an image
// with other layers, its root, or an inode that there is not, are refused.
func TestHandlesOfBlobsHoldOverRestartsAndForNothingElse(t *testing.T) {
	s, list := shelfOf(numbered(10), numbered(20))
	b, again := NewBlobs(blobsManifest, list, s.Open), NewBlobs(blobsManifest, list, s.Open)
	for _, f := range []File{b.Root(), {Inode: firstBlob}, {Inode: firstBlob + 1}} {
		h := b.AppendHandle(nil, f)
		if len(h) != HandleSize {
			t.Errorf("a handle of %d bytes", len(h))
		}
		if got, err := again.FromHandle(h); err != nil || got != f {
			t.Errorf("%v after a restart: %v, %v", f, got, err)
		}
		if id, _, err := ParseHandle(h); err != nil || id != BlobsID(blobsManifest) {
			t.Errorf("the handle's id: %x, %v", id, err)
		}
		if _, err := NewBlobs("sha256:other", list, s.Open).FromHandle(h); !errors.Is(err, ErrStale) {
			t.Errorf("%v in another image: %v", f, err)
		}
	}
	if BlobsID(blobsManifest) == identity(blobsManifest) {
		t.Error("the root of the image has the same id")
	}
	good := b.AppendHandle(nil, b.Root())
	for at, name := range map[int]string{3: "another layer", 4: "a far inode", 7: "inode 0", 8: "a tag", 31: "another image"} {
		h := bytes.Clone(good)
		h[at] ^= 1
		if _, err := b.FromHandle(h); !errors.Is(err, ErrStale) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, f := range []File{{}, {Inode: firstBlob + 2}, {Inode: math.MaxUint32}, {Layer: 1, Inode: firstBlob}} {
		_, attr := b.Attr(f)
		_, lookup := b.Lookup(f, "x")
		_, parent := b.Parent(f)
		_, link := b.Readlink(f)
		_, borrow := b.Borrow(f, 0, 1, nil)
		list := b.ReadDir(f, 0, func(Dirent) bool { return true })
		_, _, cached := b.LendCached(f, 0, 0, nil)
		for _, err := range []error{attr, lookup, parent, link, borrow, list} {
			if !errors.Is(err, ErrStale) || cached {
				t.Errorf("%v: %v", f, err)
			}
		}
	}
}

func TestTheDirectoryOfBlobsIsListedFromAnyCookie(t *testing.T) {
	s, list := shelfOf(numbered(10), numbered(20), numbered(30))
	b := NewBlobs(blobsManifest, list, s.Open)
	for from, want := range []string{"sha256-0 sha256-1 sha256-2 ", "sha256-1 sha256-2 ", "sha256-2 ", ""} {
		got := ""
		if err := b.ReadDir(b.Root(), uint64(from), func(d Dirent) bool {
			got += d.Name + " "
			if f, err := b.Resolve("/" + d.Name); err != nil || f != d.File {
				t.Errorf("%q leads to %v, %v", d.Name, f, err)
			}
			return true
		}); err != nil || got != want {
			t.Errorf("from %d: %q, %v", from, got, err)
		}
	}
	for _, bad := range []uint64{4, math.MaxUint64} {
		if err := b.ReadDir(b.Root(), bad, func(Dirent) bool { return true }); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("from %d: %v", bad, err)
		}
	}
	if bytes, inodes := b.Usage(); bytes != 60 || inodes != 4 {
		t.Errorf("%d bytes, %d inodes", bytes, inodes)
	}
	if _, err := b.Resolve("/sha256-0/x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("below a file: %v", err)
	}
	if _, err := b.Lookup(File{Inode: firstBlob}, "x"); !errors.Is(err, ErrNotDir) {
		t.Errorf("in a file: %v", err)
	}
	if f, err := b.Lookup(b.Root(), ".."); err != nil || f != b.Root() {
		t.Errorf("..: %v, %v", f, err)
	}
}
