package main

import (
	"errors"
	"slices"
	"sync"

	"rhizome/registry"
	"rhizome/registry/lazy"
	"rhizome/registry/store"

	"github.com/opencontainers/go-digest"
)

// remotes are the images that come out of a registry while they are served: the
// one that boots now, and those before it that are not whole yet.
type remotes struct {
	mu     sync.RWMutex
	images []*arrival
}

// arrival is an image on its way. Its lease keeps what there is of it, until it is
// settled: it will not get more, and is the store's, or cannot be.
type arrival struct {
	*registry.Lazy
	lease            *store.Lease
	filling, settled bool
}

func (a *arrival) settle() {
	if !a.settled {
		a.settled = true
		a.lease.Close()
	}
}

// add takes an image in, as the one that has the name from now on. An earlier one
// that never booted is not waited for.
func (r *remotes) add(z *registry.Lazy, lease *store.Lease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, old := range r.images {
		old.Supersede()
		if !old.filling {
			old.settle()
		}
	}
	r.images = append(r.images, &arrival{Lazy: z, lease: lease})
	r.prune()
}

// fills takes note that an image is being filled, until it is settled.
func (r *remotes) fills(z *registry.Lazy) { r.mark(z, func(a *arrival) { a.filling = true }) }

// settle takes note that an image is whole, or that it will not be.
func (r *remotes) settle(z *registry.Lazy) { r.mark(z, (*arrival).settle) }

func (r *remotes) mark(z *registry.Lazy, as func(*arrival)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.images {
		if a.Lazy == z {
			as(a)
		}
	}
	r.prune()
}

// prune lets go of images that are settled, but for the newest. They are not
// closed: a layer that some node reads goes on in the file that it has, which is
// closed with the layer. The caller has the lock.
func (r *remotes) prune() {
	newest := len(r.images) - 1
	r.images = slices.DeleteFunc(r.images, func(a *arrival) bool { return a.settled && a != r.images[newest] })
}

// newest is the image that was added last, if it is this one: loading it is
// tried again.
func (r *remotes) newest(root digest.Digest) *registry.Lazy {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if n := len(r.images); n > 0 && r.images[n-1].Root.Digest == root {
		return r.images[n-1].Lazy
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
	for _, a := range r.images {
		a.settle()
		err = errors.Join(err, a.Close())
	}
	return err
}
