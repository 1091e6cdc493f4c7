package remote

import (
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
)

// Progress is how far a push or a pull is.
type Progress struct {
	// Doing is "pushing" or "pulling".
	Doing string
	Ref   string
	// Done and Total are bytes of all blobs; Done falls when a blob must be
	// sent again.
	Done, Total int64
	// Blobs and BlobsTotal count blobs.
	Blobs, BlobsTotal int
	// Digest is the blob that moved, and Note what happened to it when that
	// was anything but bytes: "present", "mounted", "done".
	Digest digest.Digest
	Note   string
}

// meter adds up what goroutines move.
type meter struct {
	mu   sync.Mutex
	now  Progress
	tell func(Progress)
}

func newMeter(doing, ref string, tell func(Progress)) *meter {
	return &meter{now: Progress{Doing: doing, Ref: ref}, tell: tell}
}

func (m *meter) expect(blobs int, bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now.BlobsTotal += blobs
	m.now.Total += bytes
}

func (m *meter) moved(d digest.Digest, bytes int64) { m.report(d, bytes, 0, "") }

func (m *meter) finished(d digest.Digest, bytes int64, note string) { m.report(d, bytes, 1, note) }

func (m *meter) report(d digest.Digest, bytes int64, blobs int, note string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now.Done += bytes
	m.now.Blobs += blobs
	if m.tell == nil {
		return
	}
	p := m.now
	p.Digest, p.Note = d, note
	m.tell(p)
}

// metered counts what is read through it, and can take the count back.
type metered struct {
	io.Reader
	m *meter
	d digest.Digest

	mu   sync.Mutex
	n    int64
	over bool
}

func (r *metered) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	if n > 0 && !r.over {
		r.n += int64(n)
		r.m.moved(r.d, int64(n))
	}
	return n, err
}

// takeBack ends the counting: net/http may go on reading a request's body after
// it has answered (http.RoundTripper).
func (r *metered) takeBack() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	r.m.moved(r.d, -r.n)
}
