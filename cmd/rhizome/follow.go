package main

import (
	"context"
	"fmt"
	"time"

	"rhizome/registry/store"
	"rhizome/serve"
	"rhizome/serve/boot"

	"github.com/opencontainers/go-digest"
)

// pinPoll is how often the pins are looked at. A pin is a file that is
// replaced by rename, so a look costs one read.
const pinPoll = time.Second

// follow switches to new pins of the cluster as they are made. What cannot be
// loaded changes nothing: the nodes go on booting what they did.
func (h *host) follow(ctx context.Context, events boot.Sink) {
	if h.generation == 0 {
		return
	}
	tick := time.NewTicker(pinPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		pins, err := h.store.Pins(h.name)
		if err != nil || pins.Generation == h.generation {
			continue
		}
		err = h.loadPins(ctx, pins)
		e := boot.Event{Time: time.Now(), Kind: boot.PinSwitched, Digest: pins.Boot.String(), Detail: fmt.Sprintf("generation %d", pins.Generation)}
		if err != nil {
			e.Error = "the new pins are not booted: " + err.Error()
			h.generation = pins.Generation
		}
		events.Send(e)
	}
}

// loadPins makes every node boot the root that it is pinned to, with the
// identity and network of the head: rolling a root back never brings an old
// card or address back.
func (h *host) loadPins(ctx context.Context, p store.Pins) error {
	images := map[digest.Digest]*serve.Image{}
	load := func(d digest.Digest) (*serve.Image, error) {
		if images[d] != nil {
			return images[d], nil
		}
		desc, err := h.store.Images().Describe(ctx, d)
		if err != nil {
			return nil, err
		}
		img, err := h.loader.Image(ctx, desc)
		images[d] = img
		return img, err
	}
	head, err := load(p.Head)
	if err != nil {
		return fmt.Errorf("loading the head of the cluster %q: %w", p.Cluster, err)
	}
	var machines []*serve.Machine
	needs := []digest.Digest{p.Head}
	for _, identity := range head.Machines {
		m, err := pinned(p, identity, load)
		if err != nil {
			return err
		}
		machines = append(machines, m)
		needs = append(needs, p.Of(m.Node.Name))
	}
	if err := h.boot(ctx, machines, needs...); err != nil {
		return err
	}
	h.generation = p.Generation
	return nil
}

// pinned is what one node of a cluster's head boots next.
func pinned(p store.Pins, identity *serve.Machine, load func(digest.Digest) (*serve.Image, error)) (*serve.Machine, error) {
	img, err := load(p.Of(identity.Node.Name))
	if err != nil {
		return nil, fmt.Errorf("loading what node %q of the cluster %q is pinned to: %w", identity.Node.Name, p.Cluster, err)
	}
	return img.As(identity)
}
