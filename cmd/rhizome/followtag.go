package main

import (
	"context"
	"math/rand/v2"
	"time"

	"rhizome/registry"
	"rhizome/registry/ref"
	"rhizome/serve/boot"

	"github.com/opencontainers/go-digest"
)

// maxPollWait bounds how long a registry that is away is left alone: the new
// image should boot soon after it is back.
const maxPollWait = 15 * time.Minute

// tagWatch is a tag in a registry that is followed.
type tagWatch struct {
	source ref.Reference
	link   registry.Link
	// booted is the image that nodes boot; refused is one that could not be.
	booted, refused digest.Digest
	// failures are those since the registry was last asked with success.
	failures int
}

// pollWait is how long to wait before the next look. chance is from 0 to 1: the
// servers of a site, started at once, do not ask at once. The wait doubles while
// the registry is away.
func pollWait(every time.Duration, failures int, chance float64) time.Duration {
	longest := max(every, maxPollWait)
	wait := every << min(failures, 10)
	if wait > longest || wait < every {
		wait = longest
	}
	return time.Duration(float64(wait) * (0.9 + 0.2*chance))
}

// followTag looks now and then whether the tag means another image, and makes
// nodes boot that. While the registry is away, all goes on as it is.
func (h *host) followTag(ctx context.Context, every time.Duration, events boot.Sink) {
	w := h.tag
	if w == nil || every == 0 || w.source.Digest != "" {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pollWait(every, w.failures, rand.Float64())):
		}
		for _, e := range h.look(ctx, w) {
			e.Time = time.Now()
			events.Send(e)
		}
	}
}

// look asks once what the tag means, acts on it, and returns what is to be told:
// each change once.
func (h *host) look(ctx context.Context, w *tagWatch) []boot.Event {
	now, err := w.link.Client.Peek(ctx, w.source)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		w.failures++
		if w.failures > 1 {
			return nil
		}
		return []boot.Event{{Kind: boot.RegistryAway, Digest: w.booted.String(), Detail: w.source.String(),
			Error: "nodes go on booting what they did: " + err.Error()}}
	}
	var told []boot.Event
	if w.failures > 0 {
		told = append(told, boot.Event{Kind: boot.RegistryBack, Detail: w.source.String()})
	}
	w.failures = 0
	if now == w.booted {
		w.refused = ""
		return told
	}
	return append(told, h.switchTag(ctx, w, now)...)
}

// switchTag makes nodes boot what the tag means now. An image that cannot be
// booted is told of once, and tried again while it has the tag: a part of it may
// not be there yet.
func (h *host) switchTag(ctx context.Context, w *tagWatch, now digest.Digest) []boot.Event {
	err := h.bootTagged(ctx, w, now)
	if ctx.Err() != nil {
		return nil
	}
	e := boot.Event{Kind: boot.TagSwitched, Digest: now.String(), Detail: w.source.String()}
	if err == nil {
		w.booted, w.refused = now, ""
		return []boot.Event{e}
	}
	if w.refused == now {
		return nil
	}
	w.refused = now
	e.Error = "the new image is not booted: " + err.Error()
	return []boot.Event{e}
}

func (h *host) bootTagged(ctx context.Context, w *tagWatch, now digest.Digest) error {
	if z := h.remotes.newest(now); z != nil {
		if err := h.bootImage(ctx, z.Root); err != nil {
			return err
		}
		h.fill(z)
		return nil
	}
	// By digest, so that what boots is what was seen, and by tag for its name.
	source := w.source
	source.Tag, source.Digest = source.TagOrDefault(), now
	_, err := h.bootRemote(ctx, w.link, source)
	return err
}
