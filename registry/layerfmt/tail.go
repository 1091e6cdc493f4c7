package layerfmt

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// ErrNoIndex is a blob that is no layer of ours: it has no seek table with a
// tree index before it. A gzip, a plain zstd and a tar are such blobs.
var ErrNoIndex = errors.New("the blob has no tree index")

// Tail says where a blob's parts lie.
type Tail struct {
	// IndexOffset and IndexSize are the index frame's place, its head of 8
	// bytes included.
	IndexOffset, IndexSize int64
	// TableOffset is where the seek table's frame begins; it ends the blob.
	TableOffset int64

	table []seekEntry
}

// ReadTail reads a blob's index by the blob's last bytes and returns the
// index frame's payload, for OpenIndex. Annotations of the blob's descriptor,
// where there are any (Summary.Annotations), must agree with the blob, sha256
// included; nil is none.
//
// It reads and allocates no more than the blob's own tail, checks the seek
// table against the index, and returns ErrNoIndex for a foreign blob.
func ReadTail(r io.ReaderAt, size int64, ann map[string]string) ([]byte, error) {
	t, err := FindTail(r, size)
	if err != nil {
		return nil, err
	}
	frame := make([]byte, t.IndexSize)
	if _, err := readFull(r, frame, t.IndexOffset); err != nil {
		return nil, fmt.Errorf("reading the layer's tree index: %w", err)
	}
	if err := t.Check(frame, ann); err != nil {
		return nil, err
	}
	return frame[skippableHead:], nil
}

// FindTail finds the index by the blob's seek table.
func FindTail(r io.ReaderAt, size int64) (*Tail, error) {
	if size < seekFooterLen {
		return nil, fmt.Errorf("%w: it has %d bytes", ErrNoIndex, size)
	}
	footer := make([]byte, seekFooterLen)
	if _, err := readFull(r, footer, size-seekFooterLen); err != nil {
		return nil, fmt.Errorf("reading the layer's last bytes: %w", err)
	}
	length, err := seekTableLen(footer)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoIndex, err)
	}
	if length > size {
		return nil, corrupt("the seek table would have %d bytes, and the blob has %d", length, size)
	}
	raw := make([]byte, length)
	if _, err := readFull(r, raw, size-length); err != nil {
		return nil, fmt.Errorf("reading the layer's seek table: %w", err)
	}
	table, err := parseSeekTable(raw)
	if err != nil {
		return nil, err
	}
	return placeIndex(table, size-length)
}

// placeIndex takes the table's last entry for the index frame. All frames
// before it must fill the blob.
func placeIndex(table []seekEntry, tableOffset int64) (*Tail, error) {
	if len(table) == 0 || table[len(table)-1].plain != 0 {
		return nil, fmt.Errorf("%w: its seek table names none", ErrNoIndex)
	}
	var sum int64
	for _, e := range table {
		sum += int64(e.length)
	}
	last := int64(table[len(table)-1].length)
	if sum != tableOffset || last < skippableHead+headLen {
		return nil, corrupt("the seek table's frames take %d bytes, and %d lie before it", sum, tableOffset)
	}
	return &Tail{IndexOffset: tableOffset - last, IndexSize: last, TableOffset: tableOffset, table: table}, nil
}

// Check wants an index frame, its head included, to be what the annotations
// promise and the seek table to be what the index says.
func (t *Tail) Check(frame []byte, ann map[string]string) error {
	if le.Uint32(frame) != indexMagic || int64(le.Uint32(frame[4:]))+skippableHead != int64(len(frame)) {
		return fmt.Errorf("%w: its last frame but one is another's", ErrNoIndex)
	}
	if err := t.checkAnnotations(frame, ann); err != nil {
		return err
	}
	x := &Index{data: frame[skippableHead:]}
	if err := x.checkHead(); err != nil {
		return err
	}
	if err := x.split(); err != nil {
		return err
	}
	return checkSeekTable(t.table, x)
}

func (t *Tail) checkAnnotations(frame []byte, ann map[string]string) error {
	for key, got := range map[string]int64{AnnotationIndexOffset: t.IndexOffset, AnnotationIndexSize: t.IndexSize} {
		if want, ok := ann[key]; ok && want != strconv.FormatInt(got, 10) {
			return corrupt("the descriptor says %s=%s and the blob %d", key, want, got)
		}
	}
	if want, ok := ann[AnnotationIndexDigest]; ok {
		sum := sha256.Sum256(frame)
		if got := asDigest(sum[:]).String(); got != want {
			return corrupt("the tree index's digest is %s and the descriptor says %s", got, want)
		}
	}
	return nil
}

// readFull is ReadAt that takes a short blob for a corrupt one.
func readFull(r io.ReaderAt, p []byte, off int64) (int, error) {
	n, err := r.ReadAt(p, off)
	switch {
	case n == len(p):
		return n, nil
	case err == nil || errors.Is(err, io.EOF):
		return n, corrupt("the blob ends at byte %d, %d bytes early", off+int64(n), len(p)-n)
	default:
		return n, err
	}
}
