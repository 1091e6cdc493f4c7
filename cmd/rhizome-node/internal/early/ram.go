package early

import (
	"errors"
	"fmt"

	"rhizome/cmd/rhizome-node/internal/unpack"
	"rhizome/serve/node/nodeapi"
)

// ram reads the whole root into dir, which the script has made a memory file
// system: every layer in its order.
func (s *session) ram(dir string) (state, message string) {
	if s.server == nil || len(s.plan.Layers) == 0 {
		return s.failed("root", errNoPlan)
	}
	if err := s.enough(); err != nil {
		return s.failed("root", err)
	}
	defer s.nfs.close()
	var sum unpack.Count
	for i, l := range s.plan.Layers {
		count, err := s.layer(l, dir)
		if err != nil {
			return s.failed("root", fmt.Errorf("layer %d of %d: %w", i+1, len(s.plan.Layers), err))
		}
		sum.Bytes += count.Bytes
		sum.Entries += count.Entries
	}
	message = fmt.Sprintf("%s in %d entries, all in memory", mb(sum.Bytes), sum.Entries)
	return s.done("root", s.nfs.noted(message), sum.Bytes)
}

// enough compares the root with the memory there is.
func (s *session) enough() error {
	total, free, err := s.system.Memory()
	if err != nil {
		return err
	}
	var need int64
	for _, l := range s.plan.Layers {
		need += max(l.Uncompressed, l.Size)
	}
	if room(total, free, need) < need {
		return fmt.Errorf("the root takes %s and %s of memory are free: choose the root mode precache or nfs, or give the node more memory", mb(need), mb(free))
	}
	return nil
}

func (s *session) layer(l nodeapi.Layer, dir string) (unpack.Count, error) {
	b := s.blob(l)
	defer b.drop()
	count, err := unpack.Layer(b, unpack.Into{Dir: dir})
	if b.read.Load() == l.Size {
		if sum := b.verify(l.Digest); sum != nil {
			return count, errors.Join(sum, err)
		}
	}
	return count, err
}
