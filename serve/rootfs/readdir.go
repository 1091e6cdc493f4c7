package rootfs

import (
	"fmt"
	"io/fs"

	"rhizome/registry/layerfmt"
)

// source is one layer's part of a directory.
type source struct {
	s          *stack
	at         int // the next entry
	first, end int
}

// maxSources is how many layers' parts of a directory are merged without
// allocating.
const maxSources = 16

// sources lists the parts of a directory, topmost first.
func (s *stack) sources(dir File, out []source) ([]source, error) {
	for ; s != nil; s = s.below {
		if dir.Layer == s.ord {
			i := layerfmt.Inode(dir.Inode)
			switch s.x.Kind(i) {
			case layerfmt.Dir:
				return append(out, newSource(s, i)), nil
			case 0:
				return nil, ErrStale
			}
			return nil, ErrNotDir
		}
		at, ok := s.over.get(dir)
		if !ok {
			continue
		}
		m := &s.merged[at]
		out = append(out, newSource(s, m.inode))
		if m.more != 0 {
			out = append(out, newSource(s, m.more))
		}
		if m.opaque {
			return out, nil
		}
	}
	return nil, ErrStale
}

func newSource(s *stack, i layerfmt.Inode) source {
	first, n := s.x.Children(i)
	return source{s: s, at: first, first: first, end: first + n}
}

// readDir lists a directory in the order of its names. A cookie names the
// entry it follows: the layer's ordinal and the entry's place in that layer's
// index. So it stays good for the view's life, and going on costs one binary
// search per layer.
func (s *stack) readDir(dir File, cookie uint64, fn func(Dirent) bool) error {
	var room [maxSources]source
	list, err := s.sources(dir, room[:0])
	if err != nil {
		return err
	}
	if cookie != 0 {
		if err := resume(list, cookie); err != nil {
			return err
		}
	}
	for {
		d, src, at := next(list)
		if src == nil {
			return nil
		}
		if d.Kind == layerfmt.Whiteout {
			continue
		}
		if e := s.dirent(d, src, at); e.File != nothing && !fn(e) {
			return nil
		}
	}
}

// resume moves every source behind the name that the cookie stands for.
func resume(list []source, cookie uint64) error {
	ord, at := cookie>>32, int(cookie&0xffffffff)-1
	for i := range list {
		src := &list[i]
		if uint64(src.s.ord) != ord || at < src.first || at >= src.end {
			continue
		}
		name := src.s.x.Dirent(at).Name
		for j := range list {
			list[j].skip(name)
		}
		return nil
	}
	return fmt.Errorf("the cookie %d is of no entry of this directory: %w", cookie, fs.ErrInvalid)
}

// skip moves behind a name, by binary search among the rest.
func (c *source) skip(name string) {
	lo, hi := c.at, c.end
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if c.s.x.Dirent(mid).Name <= name {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	c.at = lo
}

// next takes the lowest name of all sources, from the topmost that has it.
func next(list []source) (layerfmt.Dirent, *source, int) {
	var best layerfmt.Dirent
	var from *source
	for i := range list {
		c := &list[i]
		if c.at == c.end {
			continue
		}
		if d := c.s.x.Dirent(c.at); from == nil || d.Name < best.Name {
			best, from = d, c
		}
	}
	if from == nil {
		return best, nil, 0
	}
	at := from.at
	if len(list) == 1 {
		from.at++
		return best, from, at
	}
	for i := range list {
		if c := &list[i]; c.at < c.end && c.s.x.Dirent(c.at).Name == best.Name {
			c.at++
		}
	}
	return best, from, at
}

func (s *stack) dirent(d layerfmt.Dirent, src *source, at int) Dirent {
	f, kind := src.s.real(d.Inode), d.Kind
	if f.Layer != src.s.ord {
		if home := s.at(f.Layer); home != nil {
			kind = home.x.Kind(layerfmt.Inode(f.Inode))
		}
	}
	return Dirent{Name: d.Name, File: f, Kind: kind, FileID: f.id(), Cookie: uint64(src.s.ord)<<32 | uint64(at+1)}
}
