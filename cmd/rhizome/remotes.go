package main

import (
	"errors"
	"sync"

	"rhizome/registry"
	"rhizome/registry/lazy"

	"github.com/opencontainers/go-digest"
)

// remotes are the images that came, or come, out of a registry while they are
// served: the one that boots now, and those that nodes began with before.
type remotes struct {
	mu     sync.RWMutex
	images []*registry.Lazy
}

// add takes an image in, as the one that has the name from now on.
func (r *remotes) add(z *registry.Lazy) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, old := range r.images {
		old.Supersede()
	}
	r.images = append(r.images, z)
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
