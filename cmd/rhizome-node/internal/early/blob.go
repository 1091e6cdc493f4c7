package early

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/url"
	"sync/atomic"
	"time"

	"rhizome/serve/node/nodeapi"
)

// blobTries is how often in a row a blob may fail to give a byte before it is
// given up; the waits between them come to about five minutes.
const blobTries = 17

// blob reads a layer once, from its front to its end, over as many connections
// as it takes: what was read stays read when the server is away for a while, or
// when the rest has to come over NFS.
type blob struct {
	ctx   context.Context
	get   func(ctx context.Context, path string, from int64, window int) (io.ReadCloser, error)
	nfs   *overNFS
	sleep func(context.Context, time.Duration) error
	calls func() int64
	layer nodeapi.Layer
	// hold, if it has one, is waited for before the next byte is asked for.
	hold atomic.Pointer[func()]
	// gentle, once the hold is over, lets the node's own reads go first.
	gentle *gentle
	now    func() time.Time

	sum  hash.Hash
	body io.ReadCloser
	// byNFS says that body came over NFS.
	byNFS bool
	tries int
	// read counts bytes, past the nanoseconds that the network took; since is
	// when the wait in hand began, 0 for none. wasted is how many of them went by
	// between a failure and the next byte, and broke is when the one in hand began.
	read, past, since, wasted, broke atomic.Int64
}

func (s *session) blob(l nodeapi.Layer) *blob {
	return &blob{ctx: s.ctx, get: s.server.Get, nfs: s.nfs, sleep: s.sleep, calls: s.system.NFSCalls, layer: l, now: time.Now, sum: sha256.New()}
}

// Read gives the next bytes.
func (b *blob) Read(p []byte) (int, error) {
	if b.read.Load() == b.layer.Size {
		return 0, io.EOF
	}
	b.since.Store(b.now().UnixNano())
	defer func() {
		b.past.Store(int64(b.waited()))
		b.since.Store(0)
	}()
	for {
		if hold := b.hold.Swap(nil); hold != nil {
			b.drop()
			(*hold)()
			b.gentle = &gentle{calls: b.calls, sleep: b.pause}
		}
		if !b.byNFS { // its own reads would be what it waits for
			b.gentle.yield()
		}
		n, err := b.once(p[:min(int64(len(p)), b.layer.Size-b.read.Load())])
		if n > 0 {
			b.wasted.Store(int64(b.failing()))
			b.broke.Store(0)
			b.sum.Write(p[:n])
			b.read.Add(int64(n))
			b.tries = 0
			return n, nil
		}
		b.broke.CompareAndSwap(0, b.now().UnixNano())
		if err := b.again(err); err != nil {
			return 0, err
		}
	}
}

// again makes the next try possible after one that gave no byte: over NFS, or
// after a pause. It fails where there were too many.
func (b *blob) again(err error) error {
	if b.tries++; b.nfs.due(b.tries, err) {
		if b.body, err = b.nfs.open(b.layer.Digest, b.read.Load(), err); err == nil {
			b.byNFS = true
			b.forgive()
			return nil
		}
	}
	if b.tries >= blobTries || b.ctx.Err() != nil {
		return fmt.Errorf("after %d of %d bytes: %w", b.read.Load(), b.layer.Size, err)
	}
	return b.sleep(b.ctx, pause(b.tries))
}

// forgive forgets how long it took up to now: what HTTP failed for is no sign of a
// slow link.
func (b *blob) forgive() {
	b.past.Store(0)
	b.wasted.Store(0)
	b.broke.Store(0)
	b.since.Store(b.now().UnixNano())
}

// once reads from the connection, or opens one.
func (b *blob) once(p []byte) (int, error) {
	if b.body == nil {
		body, err := b.get(b.ctx, pathOf(b.layer.URL), b.read.Load(), b.gentle.window())
		if err != nil {
			return 0, err
		}
		b.body = body
	}
	n, err := b.body.Read(p)
	if err != nil {
		b.lost()
	}
	if n == 0 && (err == nil || errors.Is(err, io.EOF)) {
		err = errors.New("the blob is shorter than the plan says")
	}
	return n, err
}

// waited is how long the network kept the reader waiting up to now.
func (b *blob) waited() time.Duration {
	w := time.Duration(b.past.Load())
	if since := b.since.Load(); since > 0 {
		w += time.Duration(b.now().UnixNano() - since)
	}
	return w
}

// waiting is how long the wait in hand has lasted.
func (b *blob) waiting() time.Duration {
	if since := b.since.Load(); since > 0 {
		return time.Duration(b.now().UnixNano() - since)
	}
	return 0
}

// lost ends a connection that failed, and the mount if it was one.
func (b *blob) lost() {
	if b.drop() {
		b.nfs.close()
	}
}

// failing is the part of waited that tells nothing of the link's speed.
func (b *blob) failing() time.Duration {
	f := time.Duration(b.wasted.Load())
	if broke := b.broke.Load(); broke > 0 {
		f += time.Duration(b.now().UnixNano() - broke)
	}
	return f
}

// pace says how slow the link is.
func (b *blob) pace() string {
	return fmt.Sprintf("the link is slow (%s in %.1f s)", mb(b.read.Load()), b.waited().Seconds())
}

// slow says whether the boot should go on without the rest.
func (b *blob) slow() bool { return slow(b.read.Load(), b.layer.Size, b.waited(), b.failing()) }

func (b *blob) pause(d time.Duration) bool { return b.sleep(b.ctx, d) == nil }

// drop ends the connection, and says whether it went over NFS.
func (b *blob) drop() (byNFS bool) {
	if b.body != nil {
		b.body.Close()
		b.body = nil
	}
	byNFS, b.byNFS = b.byNFS, false
	return byNFS
}

// verify compares what was read up to now with the digest of the blob, or of its
// first part.
func (b *blob) verify(want string) error {
	if got := "sha256:" + hex.EncodeToString(b.sum.Sum(nil)); got != want {
		return fmt.Errorf("the blob has the digest %s, and should have %s", got, want)
	}
	return nil
}

// pathOf is the path of a URL; the server is known already.
func pathOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	return u.RequestURI()
}
