package layerfmt

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"slices"
)

// Report is what Verify found beside the first thing wrong.
type Report struct {
	// DiffID and Digest are computed from the bytes, not taken from the index.
	DiffID, Digest [32]byte
	// Frames and Entries count what was read.
	Frames, Entries int
}

// Verify reads a whole blob and checks all that its index, its seek table and
// its annotations say: every frame against its digest, every body against its
// own, the DiffID, and the index itself, byte for byte, against the one that
// the tar gives. It returns the first thing that is wrong, which matches
// ErrCorrupt, ErrNoIndex for a foreign blob, or a sentence from the tar.
// Memory does not grow with the blob but with the number of its entries.
func Verify(r io.ReaderAt, size int64, ann map[string]string) (Report, error) {
	raw, err := ReadTail(r, size, ann)
	if err != nil {
		return Report{}, err
	}
	x, err := OpenIndex(raw)
	if err != nil {
		return Report{}, err
	}
	d, err := NewDecoder(1)
	if err != nil {
		return Report{}, err
	}
	defer d.Close()
	v := &verifier{r: r, x: x, dec: d, digest: sha256.New(), diffID: sha256.New()}
	b, err := v.rescan()
	if err != nil {
		return Report{}, err
	}
	rep := Report{DiffID: [32]byte(v.diffID.Sum(nil)), Frames: x.Frames(), Entries: x.Entries()}
	if err := v.compare(b, rep.DiffID); err != nil {
		return rep, err
	}
	if err := v.compareTable(size); err != nil {
		return rep, err
	}
	rep.Digest, err = v.wholeDigest(size)
	return rep, err
}

// verifier reads a blob's tar frame by frame.
type verifier struct {
	r              io.ReaderAt
	x              *Index
	dec            *Decoder
	packed         []byte
	plain          []byte
	next           int // frame
	left           []byte
	digest, diffID hash.Hash
}

// Read gives the uncompressed tar.
func (v *verifier) Read(p []byte) (int, error) {
	for len(v.left) == 0 {
		if v.next == v.x.Frames() {
			return 0, io.EOF
		}
		if err := v.load(); err != nil {
			return 0, err
		}
	}
	n := copy(p, v.left)
	v.left = v.left[n:]
	return n, nil
}

func (v *verifier) load() error {
	f := v.x.Frame(v.next)
	v.packed, v.plain = slices.Grow(v.packed[:0], f.Length), slices.Grow(v.plain[:0], f.Plain)
	packed := v.packed[:f.Length]
	if _, err := readFull(v.r, packed, f.Offset); err != nil {
		return fmt.Errorf("frame %d: %w", v.next, err)
	}
	plain, err := v.dec.DecodeFrame(v.plain, packed, f)
	if err != nil {
		return fmt.Errorf("frame %d at byte %d: %w", v.next, f.Offset, err)
	}
	v.digest.Write(packed)
	v.diffID.Write(plain)
	v.left = plain
	v.next++
	return nil
}

// rescan builds the index again from the tar.
func (v *verifier) rescan() (*builder, error) {
	b := newBuilder()
	sums := &bodySums{b: b, body: sha256.New()}
	c := newCutter(v, nil, sums.add)
	if err := scan(b, c); err != nil {
		return nil, err
	}
	for _, s := range sums.done {
		b.setDigest(s.inode, s.sum)
	}
	return b, nil
}

// bodySums hashes the bodies of the frames that a cutter emits.
type bodySums struct {
	b    *builder
	body hash.Hash
	done []bodySum
}

func (s *bodySums) add(frame []byte, spans []span) ([]byte, error) {
	for _, p := range spans {
		if p.first {
			s.body.Reset()
		}
		s.body.Write(frame[p.start:p.end])
		if p.last {
			s.done = append(s.done, bodySum{p.inode, [32]byte(s.body.Sum(nil))})
		}
	}
	return frame[:0], nil
}

func (v *verifier) compare(b *builder, diffID [32]byte) error {
	want, err := b.marshal(v.frames(), diffID)
	if err != nil {
		return err
	}
	if string(want) != string(v.x.Bytes()) {
		return corrupt("the tree index is not the one that the layer's tar gives: %s", v.difference(want))
	}
	return nil
}

func (v *verifier) frames() []FrameInfo {
	frames := make([]FrameInfo, v.x.Frames())
	for n := range frames {
		frames[n] = v.x.Frame(n)
	}
	return frames
}

// compareTable wants the seek table to be the one that Encode writes, unless
// it has checksums and is another writer's.
func (v *verifier) compareTable(size int64) error {
	want := seekTable(v.frames(), len(v.x.Bytes())+skippableHead)
	got := make([]byte, len(want))
	if _, err := readFull(v.r, got, size-int64(len(want))); err != nil {
		return fmt.Errorf("reading the layer's seek table: %w", err)
	}
	if got[len(got)-5]&seekChecksum == 0 && string(got) != string(want) {
		return corrupt("the seek table has bits set that mean nothing")
	}
	return nil
}

// difference names the first inode that differs.
func (v *verifier) difference(want []byte) string {
	w, err := OpenIndex(want)
	if err != nil || w.Len() != v.x.Len() {
		return fmt.Sprintf("%d inodes", v.x.Len())
	}
	for i := Root; int(i) <= w.Len(); i++ {
		a, _ := w.BodyDigest(i)
		b, _ := v.x.BodyDigest(i)
		if a != b {
			return fmt.Sprintf("the content of %q", w.Path(i))
		}
		if string(w.rec(i)) != string(v.x.rec(i)) {
			return fmt.Sprintf("the attributes of %q", w.Path(i))
		}
	}
	return "names or attributes"
}

// wholeDigest goes on from the frames to the blob's end.
func (v *verifier) wholeDigest(size int64) ([32]byte, error) {
	at := int64(0)
	if n := v.x.Frames(); n > 0 {
		f := v.x.Frame(n - 1)
		at = f.Offset + int64(f.Length)
	}
	if _, err := io.Copy(v.digest, io.NewSectionReader(v.r, at, size-at)); err != nil {
		return [32]byte{}, fmt.Errorf("reading the layer's tail: %w", err)
	}
	return [32]byte(v.digest.Sum(nil)), nil
}
