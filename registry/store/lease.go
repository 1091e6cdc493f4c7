package store

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"rhizome/registry/durable"

	"github.com/opencontainers/go-digest"
)

// LeaseInfo is what a lease file says about its holder.
type LeaseInfo struct {
	PID     int       `json:"pid"`
	Purpose string    `json:"purpose"`
	Since   time.Time `json:"since"`
	// Needs are images and manifests that must stay while the lease is held.
	Needs []digest.Digest `json:"needs,omitempty"`
	// Settled says that Needs is all: what else was written since it began may go.
	Settled bool `json:"settled,omitempty"`
}

// Lease keeps what a running build, pull or server needs from collection: what
// it names and, until it is settled, all that was written or relied on since it
// began. It is held through a lock on its file, so it ends with its process. It
// is not for use by several goroutines at once. A nil Lease keeps nothing, for who
// only looks.
type Lease struct {
	s       *Store
	path    string
	info    LeaseInfo
	release func()
}

// Lease begins a lease.
func (s *Store) Lease(ctx context.Context, purpose string, needs ...digest.Digest) (*Lease, error) {
	path := s.path(dirLeases, rand.Text()+".json")
	release, err := durable.Lock(ctx, path, durable.Exclusive)
	if err != nil {
		return nil, fmt.Errorf("telling other processes about this one: %w", err)
	}
	l := &Lease{s: s, path: path, release: release,
		info: LeaseInfo{PID: os.Getpid(), Purpose: purpose, Since: s.now().UTC()}}
	if err := l.Need(needs...); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Need adds images that the holder needs.
func (l *Lease) Need(digests ...digest.Digest) error {
	if l == nil {
		return nil
	}
	l.info.Needs = append(l.info.Needs, digests...)
	return l.write()
}

// Settle says that these are all that the holder needs from now on. A server
// that runs for a year would keep all that was written in it otherwise.
func (l *Lease) Settle(digests ...digest.Digest) error {
	if l == nil {
		return nil
	}
	l.info.Needs, l.info.Settled = digests, true
	return l.write()
}

func (l *Lease) write() error {
	data, err := json.Marshal(l.info)
	if err != nil {
		return fmt.Errorf("writing the lease %q: %w", l.path, err)
	}
	// In place: a rename would leave the lock on a file without a name. Who
	// reads it half written keeps everything.
	if err := os.WriteFile(l.path, data, 0o600); err != nil {
		return fmt.Errorf("writing the lease %q: %w", l.path, durable.Hint(err))
	}
	return nil
}

// Close ends the lease. A file that cannot be removed holds nobody up: its lock
// is gone.
func (l *Lease) Close() {
	if l == nil {
		return
	}
	if err := l.s.fs.Remove(l.path); err != nil {
		l.s.log.Debug("leaving the file of a lease that ended", "file", l.path, "error", err)
	}
	l.release()
}

// liveLeases lists the leases that somebody holds, and removes the others.
func (s *Store) liveLeases() ([]LeaseInfo, error) {
	if s.readOnly {
		return s.Leases()
	}
	files, err := s.Names(dirLeases, ".json")
	if err != nil {
		return nil, err
	}
	var live []LeaseInfo
	for _, name := range files {
		path := s.path(dirLeases, name)
		release, ok, err := durable.TryLock(path, durable.Exclusive)
		if err != nil {
			return nil, err
		}
		if !ok {
			live = append(live, readLease(path))
			continue
		}
		_ = s.fs.Remove(path)
		release()
	}
	return live, nil
}

// readLease reads a live lease; one that cannot be read began at the zero time,
// so that everything is kept.
func readLease(path string) LeaseInfo {
	var info LeaseInfo
	data, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(data, &info) != nil {
		return LeaseInfo{Purpose: "a process that is just starting"}
	}
	return info
}
