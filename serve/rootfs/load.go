package rootfs

import (
	"errors"
	"fmt"
	"io"

	"rhizome/registry/layerfmt"
)

// cached returns a frame, held, if it is in memory. It takes no lock.
func (l *Layer) cached(n int) *Frame {
	f := l.frames[n].Load()
	if f == nil || !f.hold() {
		return nil
	}
	return f
}

// frame returns a frame, held, and loads it where it is not in memory. Of all
// who ask at once one loads, and the others wait for it.
func (l *Layer) frame(n int) (*Frame, error) {
	c, key := l.cache, frameKey{l, n}
	for {
		if f := l.cached(n); f != nil {
			return f, nil
		}
		c.mu.Lock()
		if err := c.refused(key); err != nil {
			c.mu.Unlock()
			return nil, err
		}
		if fl := c.flights[key]; fl != nil {
			c.mu.Unlock()
			<-fl.done
			if fl.err != nil {
				return nil, fl.err
			}
			if fl.frame.hold() {
				return fl.frame, nil
			}
			continue
		}
		if f := l.cached(n); f != nil {
			c.mu.Unlock()
			return f, nil
		}
		return c.lead(key)
	}
}

// refused says whether a frame is damaged and not yet to be tried again.
func (c *Cache) refused(key frameKey) error {
	d, ok := c.damage[key]
	if !ok {
		return nil
	}
	if c.now().Before(d.until) {
		return d.err
	}
	delete(c.damage, key)
	return nil
}

// lead loads a frame for all who wait. It is called with the lock and gives it
// back.
func (c *Cache) lead(key frameKey) (*Frame, error) {
	info := key.layer.x.Frame(key.n)
	f := &Frame{layer: key.layer, n: key.n}
	f.holds.Store(1)
	fl := &flight{done: make(chan struct{})}
	c.flights[key] = fl
	c.place(f, info.Plain)
	c.mu.Unlock()

	err := c.load(f, info)

	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.flights, key)
	defer close(fl.done)
	if err != nil {
		c.forget(f)
		fl.err = err
		var d *DamagedError
		if errors.As(err, &d) {
			c.damage[key] = damage{d, c.now().Add(damageRetry)}
		}
		return nil, err
	}
	c.loads.Add(1)
	fl.frame = f
	if f.arena != nil {
		key.layer.frames[key.n].Store(f)
	}
	return f, nil
}

// load reads a frame, checks it against its digest and decodes it; one that is
// damaged it mends if it can.
func (c *Cache) load(f *Frame, info layerfmt.FrameInfo) error {
	buf := c.packed.Get().(*[]byte)
	defer c.packed.Put(buf)
	packed := (*buf)[:info.Length]
	n, err := f.layer.blob.ReadAt(packed, info.Offset)
	if n == len(packed) {
		err = nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("reading the blob: %w", err)
	}
	if err == nil {
		var plain []byte
		if plain, err = c.decoder.DecodeFrame(f.data, packed, info); err == nil {
			f.data = plain
			return nil
		}
	}
	return c.mend(f, info, err)
}

// mend fetches a damaged frame from elsewhere.
func (c *Cache) mend(f *Frame, info layerfmt.FrameInfo, cause error) error {
	c.damaged.Add(1)
	e := &DamagedError{Layer: f.layer.digest, Frame: f.n, Offset: info.Offset, Length: int64(info.Length), File: f.layer.fileIn(info), Cause: cause}
	err := c.fetch(f, info)
	if err != nil && c.hooks.Repair != nil {
		e.Cause = fmt.Errorf("%w; fetching it again: %w", cause, err)
	}
	if c.hooks.Damaged != nil {
		c.hooks.Damaged(e, err == nil)
	}
	if err != nil {
		return e
	}
	c.mended.Add(1)
	return nil
}

var errNoRepair = errors.New("nothing to fetch it from")

// fetch gets a frame by the Repair hook and checks it like any other. That it
// cannot be written back is no reason not to serve it.
func (c *Cache) fetch(f *Frame, info layerfmt.FrameInfo) error {
	if c.hooks.Repair == nil {
		return errNoRepair
	}
	packed, err := c.hooks.Repair(f.layer.digest, info.Offset, int64(info.Length))
	if err != nil {
		return err
	}
	plain, err := c.decoder.DecodeFrame(f.data, packed, info)
	if err != nil {
		return err
	}
	f.data = plain
	if c.hooks.WriteBack != nil {
		_ = c.hooks.WriteBack(f.layer.digest, info.Offset, packed)
	}
	return nil
}
