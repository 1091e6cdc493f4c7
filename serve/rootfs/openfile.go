package rootfs

import (
	"fmt"
	"runtime"

	"rhizome/registry/layerfmt"
)

// OpenLayerFile opens a layer that lies in a file, with its index mapped where
// it lies: a thousand layers cost page cache and no heap. ann are the
// descriptor's annotations, or nil. The mapping goes when the layer and every
// view on it are no longer reachable, so strings that views gave (names, link
// texts) must not be kept longer than the view. The file must not get shorter;
// the caller closes it when no view uses the layer any more.
func OpenLayerFile(digest string, f layerfmt.FileReader, size int64, ann map[string]string, c *Cache) (*Layer, error) {
	index, unmap, err := layerfmt.MapTail(f, size, ann)
	if err != nil {
		return nil, fmt.Errorf("opening layer %s: %w", digest, err)
	}
	l, err := OpenLayer(digest, f, size, index, c)
	if err != nil {
		unmap()
		return nil, err
	}
	runtime.AddCleanup(l, func(unmap func()) { unmap() }, unmap)
	return l, nil
}
