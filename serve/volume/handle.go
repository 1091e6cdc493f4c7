package volume

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"rhizome/registry/durable"
	"rhizome/serve/rootfs"
)

// A handle's bytes:
//
//	0      handleVersion, which no handle of an image begins with
//	1      rootfs.HandlePersist or rootfs.HandleCopyOnWrite
//	2-3    how long the object's id is, and a zero
//	4-11   the export's id: cluster, node and path
//	12-23  a MAC over all else, by a key in the node's folder
//	24-    the object's id, padded to a multiple of four
//
// The MAC is what keeps a node inside its export. An id can be a kernel's file
// handle, and those are easily guessed (inode 2, generation 0, is the root of
// an ext4): without it a node could read any file of the host's disk.
const (
	handleVersion = 2
	handleFixed   = 24
	macSize       = 12
	maxID         = maxHandle - handleFixed
)

// exportID names an export in its handles.
type exportID [8]byte

func newExportID(cluster, node, path string) (id exportID) {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q", cluster, node, path))
	copy(id[:], sum[:])
	return id
}

// appendHandle appends the handle of an object.
func appendHandle(dst []byte, k byte, e exportID, key []byte, id []byte) []byte {
	start := len(dst)
	dst = append(dst, handleVersion, k, byte(len(id)), 0)
	dst = append(dst, e[:]...)
	dst = append(dst, make([]byte, macSize)...)
	dst = append(dst, id...)
	dst = append(dst, make([]byte, -len(id)&3)...)
	copy(dst[start+12:], handleMAC(dst[start:], key))
	return dst
}

func handleMAC(h, key []byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write(h[:12])
	m.Write(h[handleFixed:])
	return m.Sum(nil)[:macSize]
}

// parseHandle splits a handle; it refuses one whose form is wrong.
func parseHandle(h []byte) (k byte, e exportID, id []byte, ok bool) {
	if len(h) < handleFixed || len(h) > maxHandle || len(h)%4 != 0 || h[0] != handleVersion || h[3] != 0 {
		return 0, e, nil, false
	}
	n := int(h[2])
	if len(h) != handleFixed+n+(-n&3) {
		return 0, e, nil, false
	}
	copy(e[:], h[4:])
	return h[1], e, h[handleFixed : handleFixed+n], true
}

// genuine tells whether a well-formed handle is one that key made.
func genuine(h, key []byte) bool { return hmac.Equal(h[12:handleFixed], handleMAC(h, key)) }

// Owns tells whether a handle is of a writable export, by its form alone.
func (v *Volumes) Owns(h []byte) bool {
	k, _, _, ok := parseHandle(h)
	return ok && (k == rootfs.HandlePersist || k == rootfs.HandleCopyOnWrite)
}

// handleKey reads the key of a node's handles, or makes it. It stays the same
// for good, so that handles outlive the server.
func handleKey(dir string) ([]byte, error) {
	path := filepath.Join(dir, "handle.key")
	key, err := os.ReadFile(path)
	if err == nil && len(key) == sha256.Size {
		return key, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the key of file handles: %w", err)
	}
	key = make([]byte, sha256.Size)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("making the key of file handles: %w", err)
	}
	return key, durable.WriteBytes(durable.OS{}, "", path, 0o600, key)
}

// fsid numbers an export for clients.
func (e exportID) fsid() uint64 { return binary.BigEndian.Uint64(e[:]) }
