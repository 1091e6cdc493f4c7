package layout

import (
	"errors"
	"fmt"
	"io"
	"os"

	"rhizome/registry/durable"

	"github.com/opencontainers/go-digest"
)

// Patch writes bytes over a damaged piece of a blob, in place, so that whoever
// has the blob open reads them, too. The caller has checked them against the
// piece's own digest. A crash on the way leaves a piece that is damaged, as it
// was, and nothing else: only it is written to. A blob is never made longer.
func (l *Layout) Patch(d digest.Digest, off int64, b []byte) (err error) {
	path, err := l.Path(d)
	if err != nil {
		return err
	}
	f, err := l.fs.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("mending the blob %s: %w", d, durable.Hint(err))
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := patch(f, off, b); err != nil {
		return fmt.Errorf("mending the blob %s: %w", d, durable.Hint(err))
	}
	return nil
}

func patch(f durable.File, off int64, b []byte) error {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if off < 0 || off+int64(len(b)) > size {
		return fmt.Errorf("bytes %d to %d lie outside its %d bytes", off, off+int64(len(b)), size)
	}
	if _, err := f.Seek(off, io.SeekStart); err != nil {
		return err
	}
	if _, err := f.Write(b); err != nil {
		return err
	}
	return f.Sync()
}
