//go:build unix

package layerfmt

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// FileReader is a blob in a file of its own; *os.File is one.
type FileReader interface {
	io.ReaderAt
	Fd() uintptr
}

// MapTail is ReadTail that maps the index where it lies instead of reading it:
// its pages are the page cache's, shared by all processes, and take no heap.
// unmap ends that; nothing of the index, no string either, is used afterwards.
// The file must not get shorter while it is mapped.
func MapTail(f FileReader, size int64, ann map[string]string) (index []byte, unmap func(), err error) {
	t, err := FindTail(f, size)
	if err != nil {
		return nil, nil, err
	}
	page := int64(os.Getpagesize())
	start := t.IndexOffset / page * page
	mem, err := unix.Mmap(int(f.Fd()), start, int(t.TableOffset-start), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, fmt.Errorf("mapping the layer's tree index: %w", err)
	}
	unmap = func() { _ = unix.Munmap(mem) }
	frame := mem[t.IndexOffset-start:]
	if err := t.Check(frame, ann); err != nil {
		unmap()
		return nil, nil, err
	}
	return frame[skippableHead:], unmap, nil
}
