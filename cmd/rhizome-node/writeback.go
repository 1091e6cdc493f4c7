package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"rhizome/cmd/rhizome-node/internal/agent"
	"rhizome/cmd/rhizome-node/internal/prefetch"
	"rhizome/serve/node/nodeapi"
)

// writeBack sends what changed, as one transaction. Until the server has it,
// the memory stays.
func (s *session) writeBack(ctx context.Context) error {
	s.left = true
	var tops []string
	for _, p := range s.paths {
		tops = append(tops, p[1:])
	}
	all, err := prefetch.Changes(s.root, s.list, tops)
	if err != nil {
		return fmt.Errorf("%w; the region is left in %s", err, s.state.base)
	}
	if len(all) == 0 {
		s.left = false
		return nil
	}
	err = s.send(ctx, all)
	var local *codeError
	if err == nil {
		prefetch.Refresh(tops, all)
	}
	switch conflict := agent.ConflictOf(err); {
	case errors.As(err, &local):
		return fmt.Errorf("the changes are left in %s: %w", s.state.base, local.err)
	case err == nil:
		s.left = false
		return nil
	case conflict != nil && conflict.Kept != "":
		s.left = false
		return &codeError{fmt.Errorf("%s", conflict.Error), exitConflict}
	case agent.Status(err) == 404 || agent.Status(err) == 409:
		return &codeError{fmt.Errorf("%w; nothing was overwritten; the changes are left in %s", err, s.state.base), exitConflict}
	case agent.IsNetwork(err) || agent.Status(err) == 401 || agent.Status(err) == 403:
		return &codeError{fmt.Errorf("the changes could not be written back and are left in %s: %w", s.state.base, err), exitNetwork}
	}
	return fmt.Errorf("the changes could not be written back and are left in %s: %w", s.state.base, err)
}

// send tries until the server has answered or the time for it is over. The id
// makes sure that what was done is not done twice.
func (s *session) send(ctx context.Context, all []prefetch.Change) error {
	id := rand.Text()
	until := time.Now().Add(s.retry)
	for pause := 500 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		local, err := s.sendOnce(ctx, id, all)
		if local != nil {
			return local
		}
		if !agent.IsNetwork(err) || time.Now().After(until) {
			return err
		}
		s.note("writing %s back again: %v", s.what(), err)
		time.Sleep(pause)
	}
}

// sendOnce sends the changes; local is what went wrong on this side.
func (s *session) sendOnce(ctx context.Context, id string, all []prefetch.Change) (local, err error) {
	r, w := io.Pipe()
	made := make(chan error, 1)
	go func() {
		err := prefetch.Write(w, s.root, all)
		w.CloseWithError(err)
		made <- err
	}()
	_, err = s.c.Commit(ctx, s.lease.ID, id, r)
	r.Close()
	if local = <-made; local == nil || errors.Is(local, io.ErrClosedPipe) {
		return nil, err
	}
	return &codeError{local, exitFailed}, err
}

// keeper renews a lease until it ends.
type keeper struct {
	stop context.CancelFunc
	done chan struct{}
}

// keep renews a lease three times in its life. What goes wrong is noted once;
// what it means is found out when the changes go back.
func keep(ctx context.Context, c *agent.Client, id string, ttl time.Duration, note func(string, ...any)) *keeper {
	ctx, stop := context.WithCancel(ctx)
	k := &keeper{stop: stop, done: make(chan struct{})}
	go func() {
		defer close(k.done)
		tick := time.NewTicker(ttl / 3)
		defer tick.Stop()
		noted := false
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			_, err := c.Renew(ctx, id, ttl)
			if err != nil && !noted && ctx.Err() == nil {
				note("the lease is not renewed: %v", err)
				_ = c.Report(ctx, nodeapi.Report{Step: "prefetch lease", State: nodeapi.Failed, Message: err.Error(), Uptime: agent.Uptime().Seconds()})
			}
			noted = err != nil
		}
	}()
	return k
}

func (k *keeper) end() {
	k.stop()
	<-k.done
}
