package store

import (
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
)

// NotFoundError is something that the store does not have, other than a tag or
// a blob (those are layout.NotFoundError).
type NotFoundError struct {
	// What is a sentence's subject: `the cluster "web"`.
	What string
	// Hint is the remedy.
	Hint string
}

func (e *NotFoundError) Error() string {
	s := e.What + " is not in the store"
	if e.Hint != "" {
		s += ": " + e.Hint
	}
	return s
}

// NoStoreError says that a folder is no store.
type NoStoreError struct {
	Dir string
	// Empty says that the folder is there and holds nothing else: the next build
	// or pull makes the store. Holds is something else that lies there.
	Empty bool
	Holds string
}

func (e *NoStoreError) Error() string {
	if e.Holds != "" {
		return fmt.Sprintf("there is no store at %q, which holds other things (%q, say): --store or RHIZOME_STORE names another folder", e.Dir, e.Holds)
	}
	return fmt.Sprintf("there is no store at %q: build and pull make one; --store or RHIZOME_STORE names another", e.Dir)
}

// errNoFolder is why a file is no store.
var errNoFolder = errors.New("it is a file; a store is a folder: name another one with --store")

// NameError is a name that nothing in the store can have.
type NameError struct {
	// What would have the name: "cluster".
	What, Name string
	// Rule is what the name breaks.
	Rule string
}

func (e *NameError) Error() string {
	return fmt.Sprintf("%q is no name of a %s: %s", e.Name, e.What, e.Rule)
}

// ConflictError says that somebody else changed what the caller was about to
// change.
type ConflictError struct {
	What string
	// Want and Have are the states that the caller knew and that was found.
	Want, Have string
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("%s was changed by somebody else meanwhile (it was %s, now %s): look at it again, then repeat", e.What, e.Want, e.Have)
}

// InUseError says what still needs an image that was to be removed.
type InUseError struct {
	Digest digest.Digest
	By     string
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("the image %s is in use by %s", e.Digest, e.By)
}
