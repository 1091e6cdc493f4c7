package layerfmt

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
)

// scan reads a whole tar stream through a cutter into a builder.
func scan(b *builder, c *cutter) error {
	tr := tar.NewReader(c)
	for {
		h, err := tr.Next()
		if c.err != nil {
			return c.err
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("reading the tar near byte %d: %w", c.pos, err)
		}
		if err := scanEntry(b, c, h); err != nil {
			return err
		}
	}
	if err := c.finish(); err != nil {
		return fmt.Errorf("reading the tar near byte %d: %w", c.pos, err)
	}
	return nil
}

func scanEntry(b *builder, c *cutter, h *tar.Header) error {
	e, err := entryOf(h, c.pos)
	if err != nil {
		return err
	}
	var i Inode
	if e != nil {
		if i, err = b.add(e); err != nil {
			return fmt.Errorf("entry %q: %w", shorten(h.Name), err)
		}
	}
	size := h.Size
	if e == nil || e.kind != File {
		// archive/tar has no body for these, whatever their header says.
		size = 0
	}
	return c.body(i, size, (size+511)&^511)
}
