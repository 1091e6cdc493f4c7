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
	c, key := l.cache, &l.frames[n]
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
		return l.lead(n)
	}
}

// refused says whether a frame is damaged and not yet to be tried again.
func (c *Cache) refused(key *home) error {
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

// lead loads a frame for all who wait. It is called with the cache's lock and
// gives it back.
func (l *Layer) lead(n int) (*Frame, error) {
	c, key, info := l.cache, &l.frames[n], l.x.Frame(n)
	f := &Frame{home: key}
	f.holds.Store(1)
	fl := &flight{done: make(chan struct{})}
	c.flights[key] = fl
	c.place(f, info.Plain)
	c.mu.Unlock()

	err := l.load(n, f, info)

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
		key.Store(f)
	}
	return f, nil
}

// load reads a frame, checks it against its digest and decodes it; one that is
// damaged it mends if it can.
func (l *Layer) load(number int, f *Frame, info layerfmt.FrameInfo) error {
	c := l.cache
	buf := c.packed.Get().(*[]byte)
	defer c.packed.Put(buf)
	packed := (*buf)[:info.Length]
	n, err := l.blob.ReadAt(packed, info.Offset)
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
	return l.mend(number, f, info, err)
}

// mend fetches a damaged frame from elsewhere.
func (l *Layer) mend(number int, f *Frame, info layerfmt.FrameInfo, cause error) error {
	c := l.cache
	c.damaged.Add(1)
	e := &DamagedError{Layer: l.digest, Frame: number, Offset: info.Offset, Length: int64(info.Length), File: l.fileIn(info), Cause: cause}
	err := l.fetch(f, info)
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
func (l *Layer) fetch(f *Frame, info layerfmt.FrameInfo) error {
	c := l.cache
	if c.hooks.Repair == nil {
		return errNoRepair
	}
	packed, err := c.hooks.Repair(l.digest, info.Offset, int64(info.Length))
	if err != nil {
		return err
	}
	plain, err := c.decoder.DecodeFrame(f.data, packed, info)
	if err != nil {
		return err
	}
	f.data = plain
	if c.hooks.WriteBack != nil {
		_ = c.hooks.WriteBack(l.digest, info.Offset, packed)
	}
	return nil
}
