package main

import (
	"context"
	"sync"
	"time"

	"rhizome/registry/durable"
	"rhizome/registry/store"
	"rhizome/serve"
	"rhizome/serve/reads"
)

// flushReads is how often the counts of nodes that are not up yet are kept.
const flushReads = time.Minute

// readShelf is where what the nodes of a cluster read is kept.
func readShelf(s *store.Store, cluster string) (reads.Shelf, error) {
	dir, err := s.ReadsDir(cluster)
	return reads.Shelf{Dir: dir, Temp: s.TempDir(), FS: durable.OS{}}, err
}

// openBook begins to count what nodes read. Records are written by one
// goroutine, so that whoever tells of an event does not wait for the disk;
// done keeps the rest.
func (h *host) openBook(ctx context.Context) (book *reads.Book, done func(), err error) {
	shelf, err := readShelf(h.store, h.cluster)
	if err != nil {
		return nil, nil, err
	}
	records, closed := make(chan reads.Record, 64), make(chan struct{})
	book = reads.NewBook(h.cluster, time.Now, serve.ReadRoots(h.fleet), func(r reads.Record) {
		select {
		case records <- r:
		case <-closed: // an event after the end
		}
	})
	var writer, ticker sync.WaitGroup
	writer.Go(func() {
		for {
			select {
			case r := <-records:
				h.keepRead(shelf, r)
			case <-closed:
				for len(records) > 0 {
					h.keepRead(shelf, <-records)
				}
				return
			}
		}
	})
	ctx, stop := context.WithCancel(ctx)
	ticker.Go(func() { flush(ctx, book) })
	return book, func() {
		stop()
		ticker.Wait()
		book.Close()
		close(closed)
		writer.Wait()
	}, nil
}

func (h *host) keepRead(shelf reads.Shelf, r reads.Record) {
	if err := shelf.Keep(r); err != nil {
		h.term.logger().Warn("what a node read could not be kept", "node", r.Node, "error", err)
	}
}

func flush(ctx context.Context, book *reads.Book) {
	t := time.NewTicker(flushReads)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			book.Flush()
		case <-ctx.Done():
			return
		}
	}
}
