package main

import (
	"errors"
	"slices"
	"sync"

	"rhizome/registry"
	"rhizome/registry/lazy"

	"github.com/opencontainers/go-digest"
)

// remotes are the images that come out of a registry while they are served: the
// one that boots now, and those before it that are not whole yet.
type remotes struct {
	mu     sync.RWMutex
	images []*registry.Lazy
	// settled are those that will not get more: they are the store's, or cannot be.
	settled map[*registry.Lazy]bool
}

// add takes an image in, as the one that has the name from now on.
func (r *remotes) add(z *registry.Lazy) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, old := range r.images {
		old.Supersede()
	}
	r.images = append(r.images, z)
	r.prune()
}

// settle takes note that an image is whole, or that it will not be.
func (r *remotes) settle(z *registry.Lazy) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.settled == nil {
		r.settled = map[*registry.Lazy]bool{}
	}
	r.settled[z] = true
	r.prune()
}

// prune lets go of images that are settled, but for the newest. They are not
// closed: a layer that some node reads goes on in the file that it has, which is
// closed with the layer. The caller has the lock.
func (r *remotes) prune() {
	newest := len(r.images) - 1
	r.images = slices.DeleteFunc(r.images, func(z *registry.Lazy) bool {
		old := z != r.images[newest] && r.settled[z]
		if old {
			delete(r.settled, z)
		}
		return old
	})
}

// newest is the image that was added last, if it is this one: loading it is
// tried again.
func (r *remotes) newest(root digest.Digest) *registry.Lazy {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if n := len(r.images); n > 0 && r.images[n-1].Root.Digest == root {
		return r.images[n-1]
	}
	return nil
}

// layer finds a layer that was not here whole when its image was loaded; nil is
// none.
func (r *remotes) layer(d digest.Digest) *lazy.Blob {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, z := range r.images {
		if b := z.Layer(d); b != nil {
			return b
		}
	}
	return nil
}

func (r *remotes) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var err error
	for _, z := range r.images {
		err = errors.Join(err, z.Close())
	}
	return err
}
