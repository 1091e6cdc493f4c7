package layer

import (
	"crypto/sha256"
	"fmt"
	"io"
	"strings"

	"rhizome/registry/layerfmt"

	"github.com/opencontainers/go-digest"
)

// Front is a blob's first bytes, in which some entries of its tar are whole:
// they can be decoded, and laid, without what follows.
type Front struct {
	// Size is in bytes of the blob.
	Size   int64
	Digest digest.Digest
}

// FrontOf finds the shortest front of a layer that holds the bodies of the
// paths. ann are the descriptor's annotations, or nil. Paths that have no body,
// or are not there, need none of it.
func FrontOf(blob io.ReaderAt, size int64, ann map[string]string, paths []string) (Front, error) {
	raw, err := layerfmt.ReadTail(blob, size, ann)
	if err != nil {
		return Front{}, err
	}
	x, err := layerfmt.OpenIndex(raw)
	if err != nil {
		return Front{}, err
	}
	f := Front{Size: frontSize(x, paths)}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(blob, 0, f.Size)); err != nil {
		return Front{}, fmt.Errorf("reading the front of a layer: %w", err)
	}
	f.Digest = digest.NewDigest(digest.SHA256, sum)
	return f, nil
}

// frontSize is where the first frame ends that no entry goes beyond and all
// bodies lie before.
func frontSize(x *layerfmt.Index, paths []string) int64 {
	end := int64(0)
	for _, p := range paths {
		if i, ok := find(x, p); ok {
			if off, size, ok := x.Body(i); ok {
				end = max(end, off+size)
			}
		}
	}
	n := max(x.FrameFor(end-1), 0)
	for n < x.Frames()-1 && x.Frame(n).Plain == layerfmt.MaxFrame {
		n++ // a full frame is cut where it is full; others between entries
	}
	if n >= x.Frames() {
		return 0
	}
	last := x.Frame(n)
	return last.Offset + int64(last.Length)
}

// find goes a path down from the root.
func find(x *layerfmt.Index, p string) (layerfmt.Inode, bool) {
	at := layerfmt.Root
	for name := range strings.SplitSeq(p, "/") {
		var ok bool
		if x.Kind(at) != layerfmt.Dir {
			return at, false
		}
		if at, ok = x.Lookup(at, name); !ok {
			return at, false
		}
	}
	return at, true
}
