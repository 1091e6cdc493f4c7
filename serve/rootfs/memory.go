package rootfs

import (
	"archive/tar"
	"bytes"
	"encoding/hex"
	"fmt"
	"sort"
	"strings"
	"time"

	"rhizome/registry/layerfmt"
)

// MemoryEntry is one file, directory or symlink of a MemoryLayer.
type MemoryEntry struct {
	// Path is relative to the root.
	Path string
	// Kind is Dir, Regular or Symlink.
	Kind           Kind
	Mode, UID, GID uint32
	// Target is a symlink's text, Data a file's content.
	Target string
	Data   []byte
}

// MemoryLayer makes a layer of entries in memory, the same way that a build
// makes one: a node's secrets. The same entries give the same layer, with the
// same digest, on every start. Its bodies never enter the shared cache, and
// its handles are good for these very entries alone.
func MemoryLayer(entries ...MemoryEntry) (*Layer, error) {
	stream, err := memoryTar(entries)
	if err != nil {
		return nil, fmt.Errorf("making a layer in memory: %w", err)
	}
	var blob bytes.Buffer
	s, err := layerfmt.Encode(&blob, bytes.NewReader(stream), layerfmt.Options{Jobs: 1})
	if err != nil {
		return nil, fmt.Errorf("making a layer in memory: %w", err)
	}
	index, err := layerfmt.ReadTail(bytes.NewReader(blob.Bytes()), int64(blob.Len()), nil)
	if err != nil {
		return nil, fmt.Errorf("making a layer in memory: %w", err)
	}
	x, err := layerfmt.OpenIndex(index)
	if err != nil {
		return nil, fmt.Errorf("making a layer in memory: %w", err)
	}
	l := &Layer{digest: s.DiffID.String(), x: x, plain: stream}
	if _, err := hex.Decode(l.tag[:], []byte(s.DiffID.Encoded()[:16])); err != nil {
		return nil, fmt.Errorf("making a layer in memory: %w", err)
	}
	return l, nil
}

var memoryTypes = map[Kind]byte{Dir: tar.TypeDir, Regular: tar.TypeReg, Symlink: tar.TypeSymlink}

func memoryTar(entries []MemoryEntry) ([]byte, error) {
	entries = append([]MemoryEntry(nil), entries...)
	sort.SliceStable(entries, func(i, j int) bool { return entries[i].Path < entries[j].Path })
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h, err := memoryHeader(e)
		if err != nil {
			return nil, err
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("%q: %w", e.Path, err)
		}
		if _, err := w.Write(e.Data); err != nil {
			return nil, fmt.Errorf("%q: %w", e.Path, err)
		}
	}
	return b.Bytes(), w.Close()
}

func memoryHeader(e MemoryEntry) (*tar.Header, error) {
	t, ok := memoryTypes[e.Kind]
	if !ok || e.Kind != Regular && len(e.Data) > 0 {
		return nil, fmt.Errorf("%q: a %s with %d bytes cannot lie in memory", e.Path, e.Kind, len(e.Data))
	}
	h := &tar.Header{
		Typeflag: t, Name: strings.TrimPrefix(e.Path, "/"), Linkname: e.Target, Size: int64(len(e.Data)),
		Mode: int64(e.Mode & 0o7777), Uid: int(e.UID), Gid: int(e.GID), ModTime: time.Unix(0, 0), Format: tar.FormatPAX,
	}
	return h, nil
}
