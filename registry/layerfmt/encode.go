package layerfmt

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"runtime"
	"strconv"

	"github.com/opencontainers/go-digest"
)

// Options steer Encode. They never change a byte of what it writes.
type Options struct {
	// Jobs is how many frames are compressed at once; 0 means one per
	// processor. Memory is about 4 MiB and two encoders' tables (some 4 MiB)
	// per job, beside the index.
	Jobs int
}

// Summary is what Encode made.
type Summary struct {
	// DiffID is the digest of the uncompressed tar, Digest that of the blob.
	DiffID, Digest digest.Digest
	// Size is the blob's length in bytes.
	Size int64
	// IndexOffset and IndexSize are the place of the whole index frame in the
	// blob, its 8 bytes of head included; IndexDigest is the frame's sha256.
	IndexOffset, IndexSize int64
	IndexDigest            digest.Digest
	// Entries counts the tar's entries.
	Entries int
}

// Annotations of a layer's descriptor, which let a tail that was fetched by
// range be trusted.
const (
	AnnotationIndexOffset = "io.rhizome.layer.index.offset"
	AnnotationIndexSize   = "io.rhizome.layer.index.size"
	AnnotationIndexDigest = "io.rhizome.layer.index.digest"
)

// Annotations are what the layer's descriptor says of its index.
func (s Summary) Annotations() map[string]string {
	return map[string]string{
		AnnotationIndexOffset: strconv.FormatInt(s.IndexOffset, 10),
		AnnotationIndexSize:   strconv.FormatInt(s.IndexSize, 10),
		AnnotationIndexDigest: s.IndexDigest.String(),
	}
}

// Encode turns a tar stream into a layer's blob. The tar's bytes pass through
// unchanged, so a foreign layer keeps its DiffID. The same tar always gives
// the same blob, whatever the number of jobs.
//
// It refuses, naming the entry: paths that are absolute, hold ".." or are not
// UTF-8; a path that comes twice, unless as a directory; sparse files; devices
// outside a dev directory and overlayfs whiteouts; a whiteout of the root;
// hard links to outside. It leaves w half written then.
func Encode(w io.Writer, tarStream io.Reader, o Options) (Summary, error) {
	jobs := o.Jobs
	if jobs <= 0 {
		jobs = runtime.GOMAXPROCS(0)
	}
	out := newBlobWriter(w)
	b := newBuilder()
	p, err := startPress(jobs, out)
	if err != nil {
		return Summary{}, err
	}
	c := newCutter(tarStream, p.buffer(), p.add)
	scanErr := scan(b, c)
	diffID, err := p.wait()
	if err != nil {
		return Summary{}, err
	}
	if scanErr != nil {
		return Summary{}, scanErr
	}
	for _, s := range p.sums {
		b.setDigest(s.inode, s.sum)
	}
	return out.finish(b, p.frames, diffID)
}

// blobWriter writes the blob, hashing and counting. It needs no buffer: frames
// and the index are written whole.
type blobWriter struct {
	w    io.Writer
	sum  hash.Hash
	size int64
}

func newBlobWriter(w io.Writer) *blobWriter {
	return &blobWriter{w: w, sum: sha256.New()}
}

func (o *blobWriter) write(p []byte) error {
	o.sum.Write(p)
	o.size += int64(len(p))
	if _, err := o.w.Write(p); err != nil {
		return fmt.Errorf("writing the layer at byte %d: %w", o.size-int64(len(p)), err)
	}
	return nil
}

// finish writes index and seek table.
func (o *blobWriter) finish(b *builder, frames []FrameInfo, diffID [32]byte) (Summary, error) {
	index, err := b.marshal(frames, diffID)
	if err != nil {
		return Summary{}, err
	}
	s := Summary{IndexOffset: o.size, IndexSize: int64(skippableHead + len(index)), Entries: int(b.tars)}
	head := skippable(indexMagic, len(index))
	h := sha256.New()
	h.Write(head)
	h.Write(index)
	s.IndexDigest = asDigest(h.Sum(nil))
	for _, part := range [][]byte{head, index, seekTable(frames, len(index)+skippableHead)} {
		if err := o.write(part); err != nil {
			return Summary{}, err
		}
	}
	s.DiffID, s.Digest, s.Size = asDigest(diffID[:]), asDigest(o.sum.Sum(nil)), o.size
	return s, nil
}

// skippable is the head of a skippable frame (RFC 8878, 3.1.2).
func skippable(magic uint32, n int) []byte {
	return le.AppendUint32(le.AppendUint32(nil, magic), uint32(n))
}

func asDigest(sum []byte) digest.Digest {
	return digest.Digest("sha256:" + hex.EncodeToString(sum))
}
