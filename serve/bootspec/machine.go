// Package bootspec decides what a machine may fetch while it boots: it lays
// the name that firmware asks for beside the node's boot spec, and answers with
// a path in the node's merged root, a generated script, or a refusal that
// names what would have been near. TFTP and HTTP ask the same question here, so
// that no file can be had over one that the other refuses.
//
// Everything is a function from values to values; the bytes of files come
// through Tree, which the caller hands in.
package bootspec

import (
	"io"
	"net/netip"
	"time"

	"rhizome/registry/imagefmt"
)

// Machine is what is known of the client behind an address, at the digest it
// boots from.
type Machine struct {
	Cluster imagefmt.Cluster
	Node    imagefmt.Node
	// Digest is the node's manifest: "sha256:" and 64 hexadecimal digits.
	Digest string
	// Tree is the node's merged root.
	Tree Tree
	// Blobs are what the node's manifest names and a node may fetch by digest.
	Blobs []Blob
	// HTTP is the base of URLs that lead back to this server, without a slash
	// at the end; empty means port 80 of the network's server address.
	HTTP string
	// Release is called once when the answer has been sent, so that the tree
	// may be closed; nil is allowed.
	Release func()
}

// Done releases what the machine's lookup holds.
func (m Machine) Done() {
	if m.Release != nil {
		m.Release()
	}
}

// ByAddr finds the machine behind a client's address; false means that no node
// has it. It must be safe for many goroutines.
type ByAddr func(netip.Addr) (Machine, bool)

// Blob is a blob of the node's own manifest.
type Blob struct {
	// Digest is the blob's own (compressed) digest, as in its descriptor.
	Digest string
	// AnyUser is set for what every user of the node may read anyway: the
	// precache bundle. All other blobs hold files of mode 0600 (password
	// databases) and are given to reserved ports alone, so to root.
	AnyUser bool
}

// Tree opens regular files of a merged root by absolute path, following symbolic
// links inside it. What is missing answers with fs.ErrNotExist.
type Tree interface {
	Open(path string) (File, error)
}

// File is the content of one file. ReadAt must be safe for many goroutines.
type File struct {
	io.ReaderAt
	// Name is the absolute path in the tree, or the name of a generated text.
	Name string
	// Size is in bytes.
	Size int64
	// Digest is the body's "sha256:...", empty where it is not known.
	Digest string
	// ModTime is the file's own, which is the recipe's epoch.
	ModTime time.Time
	// Generated is set for texts that no layer holds.
	Generated bool
}
