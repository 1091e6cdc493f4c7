package bootspec

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"
)

// NotFound says that a machine may not have what it asked for, or that it is
// not there: the two look alike to the client, so that nobody learns what else
// a tree holds.
type NotFound struct {
	// Reason is a sentence, Nearest what was perhaps meant.
	Reason  string
	Nearest []string
}

// Error is the whole sentence, with the nearest names.
func (e *NotFound) Error() string {
	if len(e.Nearest) == 0 {
		return e.Reason
	}
	return e.Reason + "; nearest: " + strings.Join(e.Nearest, ", ")
}

// Open decides what a name means to a machine and opens it. The error is a
// *NotFound unless the tree failed.
func Open(m Machine, name string) (File, error) {
	d := Decide(m, name)
	switch {
	case d.Text != nil:
		return generated(d), nil
	case d.Path != "":
		return openPath(m, d.Path)
	}
	return File{}, &NotFound{Reason: d.Reason, Nearest: d.Nearest}
}

func openPath(m Machine, p string) (File, error) {
	if m.Tree == nil {
		return File{}, &NotFound{Reason: fmt.Sprintf("node %q has no tree to take %q from", m.Node.Name, p)}
	}
	f, err := m.Tree.Open(p)
	if errors.Is(err, fs.ErrNotExist) {
		return File{}, &NotFound{Reason: fmt.Sprintf("the boot spec of node %q names %q, which its image %s does not hold: build the image again with the stage that brings it", m.Node.Name, p, m.Digest)}
	}
	if err != nil {
		return File{}, fmt.Errorf("opening %q of node %q: %w", p, m.Node.Name, err)
	}
	f.Name = p
	return f, nil
}

// generated wraps a text. Its time is the epoch: it has none of its own, and
// the same boot spec must give the same answer from any server.
func generated(d Decision) File {
	sum := sha256.Sum256(d.Text)
	return File{
		ReaderAt: bytes.NewReader(d.Text), Name: d.Name, Size: int64(len(d.Text)),
		Digest: "sha256:" + hex.EncodeToString(sum[:]), ModTime: time.Unix(0, 0).UTC(), Generated: true,
	}
}
