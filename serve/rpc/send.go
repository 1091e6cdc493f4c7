package rpc

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
)

// queueLimit is how many bytes of replies may wait on one connection while
// others go out; who has more to send waits.
const queueLimit = 1 << 20

// sender puts replies of several goroutines on one connection. Who comes
// while another writes leaves its reply in the queue, and the writer takes
// all of the queue with its next call to the system.
type sender struct {
	nc     *direct
	memory *budget
	tick   *atomic.Int64
	stats  *Stats
	// since is the tick at which the write under way began; 0: there is none.
	since atomic.Int64

	mu      sync.Mutex
	room    sync.Cond
	queue   []*Reply
	spare   []*Reply
	queued  int
	writing bool
	err     error
	iov     net.Buffers
	// rest is the part of iov that a write has yet to take; a field, so that
	// it need not be allocated for each write.
	rest net.Buffers
}

func (s *sender) init(nc *direct, m *budget, tick *atomic.Int64, st *Stats) {
	s.nc, s.memory, s.tick, s.stats = nc, m, tick, st
	s.room.L = &s.mu
}

// send takes r over. Once a write has failed, all further replies are dropped
// and the connection is closed, which ends its reader.
func (s *sender) send(r *Reply) {
	s.mu.Lock()
	for s.writing && s.queued > queueLimit && s.err == nil {
		s.room.Wait()
	}
	if s.err != nil || len(r.buf) == 0 {
		s.mu.Unlock()
		r.release()
		return
	}
	s.queue = append(s.queue, r)
	s.queued += r.size()
	if !s.writing {
		s.drain()
	}
	s.mu.Unlock()
}

// drain writes until the queue is empty. s.mu is held, but not while writing.
func (s *sender) drain() {
	s.writing = true
	for len(s.queue) > 0 && s.err == nil {
		batch, size := s.queue, s.queued
		s.queue, s.queued = s.spare[:0], 0
		s.room.Broadcast()
		s.mu.Unlock()
		err := s.write(batch, size)
		s.mu.Lock()
		releaseAll(batch)
		s.spare = batch
		if err != nil {
			s.err = err
			s.nc.Close()
			releaseAll(s.queue)
		}
	}
	s.writing = false
	s.room.Broadcast()
}

func (s *sender) write(batch []*Reply, size int) error {
	if !s.memory.take(int64(size)) {
		s.stats.Cut.Add(1)
		return errMemory
	}
	s.since.Store(max(s.tick.Load(), 1))
	err := s.writev(batch, size)
	s.since.Store(0)
	s.memory.give(int64(size))
	s.stats.BytesOut.Add(uint64(size))
	return err
}

func releaseAll(rs []*Reply) {
	for _, r := range rs {
		r.release()
	}
	clear(rs)
}

func (s *sender) writev(batch []*Reply, size int) error {
	if len(batch) == 1 && len(batch[0].lent) == 0 {
		_, err := s.nc.Write(batch[0].buf)
		return err
	}
	s.iov = s.iov[:0]
	for _, r := range batch {
		s.iov = r.appendTo(s.iov, 0)
	}
	s.rest = s.iov
	err := s.nc.WriteBuffers(&s.rest, size)
	clear(s.iov)
	if errors.Is(err, net.ErrClosed) {
		return net.ErrClosed
	}
	return err
}
