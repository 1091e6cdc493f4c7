package main

import (
	"context"
	"sync"
	"time"

	"rhizome/registry"
	"rhizome/registry/remote"
	"rhizome/registry/store"
	"rhizome/serve/boot"
	"rhizome/serve/rootfs"

	"github.com/opencontainers/go-digest"
)

// mendTimeout is how long a node's read may wait for a damaged piece to come
// again: NFS clients ask again after a minute (nfs(5), "timeo").
const mendTimeout = 30 * time.Second

// mender gets damaged pieces of layers from the registries that the store
// knows. They are spoken to as they were when the images came.
func (a *app) mender(s *store.Store, caFile string) *registry.Mender {
	client := func(plain bool) func() (*remote.Client, error) {
		return sync.OnceValues(func() (*remote.Client, error) {
			l, err := a.link(registryFlags{plainHTTP: plain, caFile: caFile}, s)
			return l.Client, err
		})
	}
	secure, plain := client(false), client(true)
	return &registry.Mender{Store: s, Client: func(plainHTTP bool) (*remote.Client, error) {
		if plainHTTP {
			return plain()
		}
		return secure()
	}}
}

// damageHooks mend damaged frames and tell of them.
func (h *host) damageHooks(ctx context.Context, m *registry.Mender, events boot.Sink) rootfs.Hooks {
	return rootfs.Hooks{
		Repair: func(layer string, off, n int64) ([]byte, error) {
			ctx, cancel := context.WithTimeout(ctx, mendTimeout)
			defer cancel()
			if data, ok, err := h.againRemote(layer, off, n); ok {
				return data, err
			}
			return m.Range(ctx, digest.Digest(layer), off, n)
		},
		WriteBack: func(layer string, off int64, b []byte) error {
			if h.comes(layer) {
				return nil // reading it anew has kept it
			}
			err := m.WriteBack(digest.Digest(layer), off, b)
			if err != nil {
				h.term.logger().Warn("a damaged layer was fetched again and is served, but could not be mended in the store", "layer", layer, "error", err)
			}
			return err
		},
		Damaged: func(d *rootfs.DamagedError, mended bool) {
			kind := boot.LayerDamaged
			if mended {
				kind = boot.LayerMended
			}
			events.Send(boot.Event{Time: time.Now(), Kind: kind, File: d.File, Digest: d.Layer, Error: d.Error()})
		},
	}
}

// againRemote reads a piece anew of a layer that is on its way here.
func (h *host) againRemote(layer string, off, n int64) (data []byte, ok bool, err error) {
	b := h.remotes.layer(digest.Digest(layer))
	if b == nil {
		return nil, false, nil
	}
	return b.Again(off, n)
}

// comes says whether a layer is not here whole yet.
func (h *host) comes(layer string) bool {
	b := h.remotes.layer(digest.Digest(layer))
	if b == nil {
		return false
	}
	select {
	case <-b.Done():
		return false
	default:
		return true
	}
}
