package layerfmt

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"sync"
)

// press compresses frames side by side and writes them in order:
//
//	add --> workers (zstd, sha256 of the frame, bodies inside it)  \
//	    \-> hasher  (sha256 of the tar, bodies that span frames) ---> writer
//
// It owns a fixed number of buffers, which bounds its memory: add waits for a
// free one. No channel is shorter than that number, so nothing else waits.
type press struct {
	jobs    chan *frame
	ordered chan *frame
	hashed  chan *frame
	free    chan *frame
	stop    chan struct{} // closed when writing has failed
	err     error         // why; read after stop is closed
	all     sync.WaitGroup
	current *frame

	// These belong to the writer until wait returns.
	out    *blobWriter
	frames []FrameInfo
	stream int64
	sums   []bodySum

	// These belong to the hasher until wait returns.
	diffID hash.Hash
	body   hash.Hash
}

// frame is a buffer on its way through the press.
type frame struct {
	plain, packed []byte
	spans         []span
	digest        [32]byte
	// whole and across are the digests of the bodies that end here.
	whole, across []bodySum
	pressed       chan struct{}
}

type bodySum struct {
	inode Inode
	sum   [32]byte
}

// buffersFor says how many frames may be on their way: one in each worker's
// hands and one for each to go on with, and a few more, because the frame that
// must be written next may be the one that takes longest.
func buffersFor(jobs int) int { return 2*jobs + 4 }

func startPress(jobs int, out *blobWriter) (*press, error) {
	buffers := buffersFor(jobs)
	p := &press{
		jobs: make(chan *frame, buffers), ordered: make(chan *frame, buffers), hashed: make(chan *frame, buffers),
		free: make(chan *frame, buffers), stop: make(chan struct{}), out: out, diffID: sha256.New(), body: sha256.New(),
	}
	for range buffers {
		p.free <- &frame{}
	}
	for range jobs {
		e, err := newSqueezer()
		if err != nil {
			_, _ = p.wait()
			return nil, fmt.Errorf("starting a zstd encoder: %w", err)
		}
		p.all.Go(func() { p.work(e) })
	}
	p.all.Go(p.hash)
	p.all.Go(p.write)
	return p, nil
}

// buffer waits for a free frame and gives its empty buffer.
func (p *press) buffer() []byte {
	p.current = <-p.free
	return p.current.plain[:0]
}

// add sends the current buffer on its way and gives the next one.
func (p *press) add(plain []byte, spans []span) ([]byte, error) {
	f := p.current
	f.plain, f.spans, f.pressed = plain, spans, make(chan struct{})
	f.whole, f.across = nil, nil
	p.ordered <- f
	p.jobs <- f
	select {
	case <-p.stop:
		return nil, p.err
	default:
		return p.buffer(), nil
	}
}

// wait ends the press when all that was added is written.
func (p *press) wait() (diffID [32]byte, err error) {
	close(p.jobs)
	close(p.ordered)
	p.all.Wait()
	return [32]byte(p.diffID.Sum(nil)), p.err
}

func (p *press) work(e *squeezer) {
	defer e.close()
	for f := range p.jobs {
		f.packed = e.squeeze(f.plain, f.packed)
		f.digest = sha256.Sum256(f.packed)
		for _, s := range f.spans {
			if s.first && s.last {
				f.whole = append(f.whole, bodySum{s.inode, sha256.Sum256(f.plain[s.start:s.end])})
			}
		}
		close(f.pressed)
	}
}

func (p *press) hash() {
	defer close(p.hashed)
	for f := range p.ordered {
		p.diffID.Write(f.plain)
		for _, s := range f.spans {
			if !s.first || !s.last {
				p.hashPart(f, s)
			}
		}
		p.hashed <- f
	}
}

func (p *press) hashPart(f *frame, s span) {
	if s.first {
		p.body.Reset()
	}
	p.body.Write(f.plain[s.start:s.end])
	if s.last {
		f.across = append(f.across, bodySum{s.inode, [32]byte(p.body.Sum(nil))})
	}
}

// write writes the frames in order. After a failure it goes on giving the
// buffers back, so that nobody waits for one in vain.
func (p *press) write() {
	for f := range p.hashed {
		<-f.pressed
		if p.err == nil {
			if err := p.writeFrame(f); err != nil {
				p.err = err
				close(p.stop)
			}
		}
		p.free <- f
	}
}

func (p *press) writeFrame(f *frame) error {
	info := FrameInfo{Offset: p.out.size, Length: len(f.packed), Stream: p.stream, Plain: len(f.plain), Digest: f.digest}
	p.frames = append(p.frames, info)
	p.stream += int64(len(f.plain))
	p.sums = append(append(p.sums, f.whole...), f.across...)
	return p.out.write(f.packed)
}
