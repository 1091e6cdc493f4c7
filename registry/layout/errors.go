package layout

import (
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"
)

// NotFoundError is a blob or a name that the layout does not have. It is
// oras's errdef.ErrNotFound to errors.Is.
type NotFoundError struct {
	// What is a sentence's subject: `the tag "web:1"`, `the blob sha256:...`.
	What string
	// Root is the layout's folder.
	Root string
}

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("%s is not in the store (%s)", e.What, e.Root)
}

// Unwrap gives oras's own value.
func (e *NotFoundError) Unwrap() error { return errdef.ErrNotFound }

// CorruptError is a blob whose bytes are not what its name promises.
type CorruptError struct {
	Descriptor ocispec.Descriptor
	// Path is the file; empty for bytes that never reached the disk.
	Path string
	// Problem says what was found instead.
	Problem string
}

func (e *CorruptError) Error() string {
	s := fmt.Sprintf("the blob %s is damaged: %s", e.Descriptor.Digest, e.Problem)
	if e.Path != "" {
		s += fmt.Sprintf(" (file %q; rhizome verify --repair fetches it again)", e.Path)
	}
	return s
}

// IncompleteError is an image of which parts are missing, so that it must not
// get a name.
type IncompleteError struct {
	Root    ocispec.Descriptor
	Missing []ocispec.Descriptor
}

func (e *IncompleteError) Error() string {
	return fmt.Sprintf("the image %s is not whole: %d of its blobs are missing, %s (%s) first; pull or build it again",
		e.Root.Digest, len(e.Missing), e.Missing[0].Digest, e.Missing[0].MediaType)
}
