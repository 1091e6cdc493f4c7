package tree

import (
	"bytes"
	"io"
	"os"
	"strings"
)

// Bytes is a body held in memory.
type Bytes []byte

// Open returns a reader over the bytes.
func (b Bytes) Open() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }

// Size is the number of bytes.
func (b Bytes) Size() int64 { return int64(len(b)) }

// Text is a body given as a string.
type Text string

// Open returns a reader over the text.
func (s Text) Open() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(string(s))), nil }

// Size is the text's length in bytes.
func (s Text) Size() int64 { return int64(len(s)) }

// DiskFile is a body that lies in a file on the host, from Offset on for
// Length bytes: a plain file, or an entry inside a tar.
type DiskFile struct {
	Name   string
	Offset int64
	Length int64
}

// Open opens the host's file at the body's place.
func (d DiskFile) Open() (io.ReadCloser, error) {
	f, err := os.Open(d.Name)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, d.Offset, d.Length), f}, nil
}

// Size is the body's length in bytes.
func (d DiskFile) Size() int64 { return d.Length }
