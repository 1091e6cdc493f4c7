package rootfs

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"weak"

	"rhizome/registry/layerfmt"
)

// Layer is one layer's blob, opened to be read. Any number of views share it.
type Layer struct {
	digest string
	x      *layerfmt.Index
	blob   io.ReaderAt
	cache  *Cache
	// frames are those in the cache, by number.
	frames []home
	// plain is a memory layer's whole tar, and tag tells its handles from
	// those of another that lay at the same place; both are empty otherwise.
	plain []byte
	tag   [8]byte

	mu sync.Mutex
	// stacks are the merges with this layer on top, by what lies below.
	stacks map[weak.Pointer[stack]]weak.Pointer[stack]
}

// OpenLayer opens a layer for reading. index is what layerfmt.ReadTail gave;
// blob must be safe for many goroutines, and is read frame by frame. The
// caller closes the blob when no view uses the layer any more; the layer's room in
// the cache is free then too.
func OpenLayer(digest string, blob io.ReaderAt, size int64, index []byte, c *Cache) (*Layer, error) {
	x, err := layerfmt.OpenIndex(index)
	if err != nil {
		return nil, fmt.Errorf("opening layer %s: %w", digest, err)
	}
	if n := x.Frames(); n > 0 {
		if last := x.Frame(n - 1); last.Offset+int64(last.Length) > size {
			return nil, fmt.Errorf("opening layer %s: %w: its frames end at byte %d and the blob at %d", digest, layerfmt.ErrCorrupt, last.Offset+int64(last.Length), size)
		}
	}
	l := &Layer{digest: digest, x: x, blob: blob, cache: c, frames: make([]home, x.Frames())}
	runtime.AddCleanup(l, c.letGo, l.frames)
	return l, nil
}

// Digest is the blob's digest.
func (l *Layer) Digest() string { return l.digest }

// Index is the layer's tree index.
func (l *Layer) Index() *layerfmt.Index { return l.x }

// Close gives the layer's frames in the cache back. Views on the layer read
// it no more; frames that are held stay good until they are released.
func (l *Layer) Close() error {
	l.cache.letGo(l.frames)
	return nil
}

// fileIn names the file that lies in a frame, or the first of several; a
// reader of the log wants a path and not a number.
func (l *Layer) fileIn(info layerfmt.FrameInfo) string {
	for i := layerfmt.Root; int(i) <= l.x.Len(); i++ {
		off, size, ok := l.x.Body(i)
		if ok && size > 0 && off < info.Stream+int64(info.Plain) && off+size > info.Stream {
			return strings.Clone(l.x.Path(i))
		}
	}
	return ""
}
