package layerfmt

import "fmt"

// MediaType is the media type of a layer's blob (OCI image-spec, layer.md).
const MediaType = "application/vnd.oci.image.layer.v1.tar+zstd"

// Kind says what an inode is.
type Kind uint8

// The kinds, with the numbers they have in the index.
const (
	Dir     Kind = 1
	File    Kind = 2
	Symlink Kind = 3
	Char    Kind = 4
	Block   Kind = 5
	Fifo    Kind = 6
	// Whiteout hides the name in the layers below.
	Whiteout Kind = 7
	// Link is a hard link to a path that this layer does not hold: it is
	// looked for in the layers below. Its target is kept like a symlink's.
	Link Kind = 8
)

var kindNames = [...]string{"?", "directory", "file", "symlink", "character device", "block device", "fifo", "whiteout", "hard link"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Inode numbers an inode within one layer, from 1, the root, on. Numbers
// follow the order of the layer's entries; implied directories come where
// something first lies in them.
type Inode uint32

// Root is the inode of a layer's root directory.
const Root Inode = 1
