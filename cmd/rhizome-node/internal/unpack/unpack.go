// Package unpack lays layers into a folder: a tar, compressed or not, read once
// from its front, as it comes off the wire. It is how a node fills its memory.
//
// Nothing a layer says leads out of the folder: names are taken apart and
// symlinks of the folder are followed within it, as if it were the root.
package unpack

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Whiteouts of OCI layers (image-spec, layer.md, "Whiteouts").
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// maxPath bounds names and targets, as PATH_MAX does.
const maxPath = 4096

// Into says where a layer goes and what its markers mean.
type Into struct {
	// Dir is the folder; it must be there.
	Dir string
	// Limit is how many bytes the bodies may take together; 0 is no limit.
	// Where an entry does not fit, it and all after it are left out.
	Limit int64
	// Below are folders that lie beside Dir and hold earlier parts of the layer, to
	// be laid over the same root: hard links may lead to what is in them.
	Below []string
	// Overlay keeps an opaque folder's mark as overlayfs reads it, for a folder
	// that is laid over another one; else markers take away what is there.
	Overlay bool
}

// Count is what was laid.
type Count struct {
	// Bytes are those of bodies, Left the bodies' that did not fit.
	Bytes, Left int64
	Entries     int
}

// Layer reads one layer to its end. Layers of one root are laid in their order.
func Layer(r io.Reader, to Into) (Count, error) {
	plain, done, err := decompressed(r)
	if err != nil {
		return Count{}, fmt.Errorf("decompressing a layer: %w", err)
	}
	defer done()
	l := &laying{Into: to, mine: map[string]bool{}}
	if err := l.all(tar.NewReader(plain)); err != nil {
		return l.count, err
	}
	// What follows the tar's end, padding and skippable frames, must be read
	// for the digest of the whole.
	if _, err := io.Copy(io.Discard, plain); err != nil {
		return l.count, fmt.Errorf("reading a layer to its end: %w", err)
	}
	_, err = io.Copy(io.Discard, r)
	return l.count, err
}

// maxWindow bounds the memory a frame may ask for (RFC 8878, 3.1.1.1.2).
const maxWindow = 8 << 20

// decompressed looks at the first bytes: zstd, gzip, or neither.
func decompressed(r io.Reader) (io.Reader, func(), error) {
	b := bufio.NewReaderSize(r, 64<<10)
	head, err := b.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	switch {
	case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}) || skippable(head):
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	case len(head) >= 2 && head[0] == 0x1f && head[1] == 0x8b:
		z, err := gzip.NewReader(b)
		return z, func() {}, err
	}
	return b, func() {}, nil
}

// skippable says whether a frame begins that holds nothing of the layer (RFC 8878,
// 3.1.2): what is left of one whose bodies were all read before.
func skippable(head []byte) bool {
	return len(head) == 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:], []byte{0x2a, 0x4d, 0x18})
}

// laying is one layer on its way.
type laying struct {
	Into
	count Count
	// mine are the paths that this layer has laid, and the folders they lie in:
	// its own markers spare them.
	mine map[string]bool
	// times are those of folders, set when nothing changes them any more.
	times []stamped
	full  bool
}

type stamped struct {
	at   string
	time time.Time
}

func (l *laying) all(t *tar.Reader) error {
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			l.stamp()
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading a layer: %w", err)
		}
		if err := l.entry(h, t); err != nil {
			return fmt.Errorf("laying %q: %w", clip(h.Name), err)
		}
	}
}

func clip(s string) string { return s[:min(len(s), 200)] }

func (l *laying) entry(h *tar.Header, body io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	parts, err := split(h.Name)
	if err != nil {
		return err
	}
	if l.full = l.full || l.Limit > 0 && h.Typeflag == tar.TypeReg && l.count.Bytes+h.Size > l.Limit; l.full {
		l.count.Left += h.Size
		return nil
	}
	if len(parts) == 0 {
		return attributes(l.Dir, h)
	}
	dir, err := l.folder(parts[:len(parts)-1])
	if err != nil {
		return err
	}
	name := parts[len(parts)-1]
	if rest, ok := strings.CutPrefix(name, whiteout); ok {
		return l.marker(dir, name, rest)
	}
	at := filepath.Join(dir, name)
	if err := l.lay(at, h, body); err != nil {
		return err
	}
	l.count.Entries++
	for ; at != l.Dir && !l.mine[at]; at = filepath.Dir(at) {
		l.mine[at] = true
	}
	return nil
}

// split takes a name apart; "." and empty parts do not count.
func split(name string) ([]string, error) {
	if len(name) > maxPath || strings.IndexByte(name, 0) >= 0 {
		return nil, errors.New("a name that is no path")
	}
	var parts []string
	for _, p := range strings.Split(name, "/") {
		switch {
		case p == "" || p == ".":
		case p == "..":
			return nil, errors.New("a name that leads out of the layer")
		case len(p) > 255:
			return nil, errors.New("a name of more than 255 bytes")
		default:
			parts = append(parts, p)
		}
	}
	return parts, nil
}

// stamp sets the times of folders, the last first.
func (l *laying) stamp() {
	for i := len(l.times) - 1; i >= 0; i-- {
		_ = os.Chtimes(l.times[i].at, l.times[i].time, l.times[i].time)
	}
}
