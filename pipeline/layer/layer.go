// Package layer turns a tree into a layer and back: a deterministic tar in the
// blob format of registry/layerfmt.
//
// The tar is sorted, has the recipe's epoch for every time, no user or group
// names and no atime or ctime. Names stand in ustar's own fields wherever they
// fit, since FreeBSD's tarfs(5) reads no others; PAX records (POSIX.1-2008,
// pax, "pax Interchange Format") carry the rest, their keys sorted.
package layer

import (
	"fmt"
	"io"
	"time"

	"rhizome/pipeline/tree"
	"rhizome/registry/layerfmt"
)

// Write writes a tree as a layer's blob, every time set to epoch. The same
// tree and epoch give the same bytes, whatever jobs is (0: one per processor).
// Memory does not grow with the bodies. The tree's hard links are normalized.
func Write(w io.Writer, t *tree.Tree, epoch time.Time, jobs int) (layerfmt.Summary, error) {
	return write(w, t, epoch, nil, jobs)
}

// WriteFirst is Write with an order of the tar: the named paths come first, in
// that order, each after the directories that lead to it and after the file
// that it is a link to; the rest follows sorted. What makes a directory opaque
// stands behind all that lies in it, so that whoever stops reading half-way
// has no directory that hides what he has not got.
func WriteFirst(w io.Writer, t *tree.Tree, first []string, epoch time.Time, jobs int) (layerfmt.Summary, error) {
	return write(w, t, epoch, append([]string{}, first...), jobs)
}

func write(w io.Writer, t *tree.Tree, epoch time.Time, first []string, jobs int) (layerfmt.Summary, error) {
	r, err := newTarReader(t, epoch, first)
	if err != nil {
		return layerfmt.Summary{}, fmt.Errorf("writing a layer: %w", err)
	}
	defer r.Close()
	s, err := layerfmt.Encode(w, r, layerfmt.Options{Jobs: jobs})
	if err != nil {
		return layerfmt.Summary{}, fmt.Errorf("writing a layer: %w", err)
	}
	return s, nil
}

// WriteTar writes a tree as the tar that Write compresses: its sha256 is the
// layer's DiffID.
func WriteTar(w io.Writer, t *tree.Tree, epoch time.Time) error {
	r, err := newTarReader(t, epoch, nil)
	if err != nil {
		return fmt.Errorf("writing a tar: %w", err)
	}
	defer r.Close()
	if _, err := io.CopyBuffer(w, r, make([]byte, 256<<10)); err != nil {
		return fmt.Errorf("writing a tar: %w", err)
	}
	return nil
}
