//go:build !unix

package layerfmt

import "io"

// FileReader is a blob in a file of its own; *os.File is one.
type FileReader interface {
	io.ReaderAt
	Fd() uintptr
}

// MapTail is ReadTail on systems where nothing is mapped.
func MapTail(f FileReader, size int64, ann map[string]string) (index []byte, unmap func(), err error) {
	index, err = ReadTail(f, size, ann)
	return index, func() {}, err
}
