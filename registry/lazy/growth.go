package lazy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"rhizome/registry/durable"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// growth is where a blob grows until it is whole.
type growth struct {
	// write and read are one file. write is closed when the file becomes the
	// store's blob.
	write, read *os.File
	// ledger is nil where another process grows the same blob: this one's file
	// is its own then, and nothing of it is kept.
	ledger *ledger
	// claims are pieces that an earlier process fetched, by their sums.
	claims map[int]sum
	// lock names the lock file, and release gives the lock back.
	lock    string
	release func()
}

// grow opens the file of a blob: the one that an earlier process left, or a new
// one. The lock lasts until the growth is closed.
func grow(dir string, d ocispec.Descriptor, pieces int64) (g *growth, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("making a file for the blob %s: %w", d.Digest, durable.Hint(err))
		}
	}()
	path := filepath.Join(dir, "lazy-"+d.Digest.Algorithm().String()+"-"+d.Digest.Encoded())
	lock := path + ".lock"
	release, ok, err := durable.TryLock(lock, durable.Exclusive)
	if err != nil {
		return nil, err
	}
	if !ok {
		return growAlone(dir)
	}
	g = &growth{lock: lock, release: release}
	if g.ledger, g.claims, err = openLedger(path+".map", pieces); err != nil {
		release()
		return nil, err
	}
	g.write, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = g.open()
	}
	if err != nil {
		release()
		g.ledger.close()
		return nil, err
	}
	return g, nil
}

func growAlone(dir string) (*growth, error) {
	f, err := os.CreateTemp(dir, "lazy-*.tmp")
	if err != nil {
		return nil, err
	}
	g := &growth{write: f, release: func() {}}
	if err := g.open(); err != nil {
		return nil, errors.Join(err, os.Remove(f.Name()))
	}
	return g, nil
}

// open opens the file once more, for readers.
func (g *growth) open() (err error) {
	if g.read, err = os.Open(g.write.Name()); err != nil {
		g.write.Close()
	}
	return err
}

// grown clears up behind a blob that is the store's now. What it cannot remove
// is swept later.
func (g *growth) grown() {
	if g.ledger == nil {
		return
	}
	g.ledger.close()
	_ = os.Remove(g.ledger.file.Name())
	_ = os.Remove(g.lock)
	g.ledger = nil
}

// close closes the files. What did not become a blob stays for the next
// process, where it can be found again.
func (g *growth) close(whole bool) error {
	defer g.release()
	g.read.Close()
	if whole {
		return nil
	}
	g.write.Close()
	if g.ledger == nil {
		return os.Remove(g.write.Name())
	}
	g.ledger.close()
	return nil
}
