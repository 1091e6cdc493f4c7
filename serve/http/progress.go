package httpd

import (
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// step is how many bytes a client must take within stall.
const step = 1 << 20

// progress passes a body on and notes how far it came. Each step of it gets its
// own deadline: a slow client gets all, a silent one is let go.
type progress struct {
	http.ResponseWriter
	control *http.ResponseController
	status  int
	sent    int64
	err     error
}

// Unwrap is for http.ResponseController.
func (p *progress) Unwrap() http.ResponseWriter { return p.ResponseWriter }

func (p *progress) WriteHeader(status int) {
	p.status = status
	p.ResponseWriter.WriteHeader(status)
}

func (p *progress) Write(b []byte) (int, error) {
	p.allow()
	n, err := p.ResponseWriter.Write(b)
	return n, p.note(int64(n), err)
}

// ReadFrom hands the source to the connection, which uses sendfile when it can
// see that the source is a file: so the limit of ServeContent is taken off and laid on
// again for each step.
func (p *progress) ReadFrom(src io.Reader) (int64, error) {
	total, ok := src.(*io.LimitedReader)
	if !ok {
		total = &io.LimitedReader{R: src, N: 1<<63 - 1}
	}
	var sum int64
	for total.N > 0 {
		p.allow()
		n, err := io.Copy(p.ResponseWriter, &io.LimitedReader{R: total.R, N: min(step, total.N)})
		sum += n
		total.N -= n
		if p.note(n, err) != nil || n == 0 {
			return sum, err
		}
	}
	return sum, nil
}

func (p *progress) allow() {
	if p.control != nil {
		_ = p.control.SetWriteDeadline(time.Now().Add(stall))
	}
}

func (p *progress) note(n int64, err error) error {
	p.sent += n
	if err != nil && p.err == nil {
		p.err = err
	}
	return err
}

// watchedReader remembers an error of reading that is not the end:
// http.ServeContent has no way to tell of it.
type watchedReader struct {
	io.ReaderAt
	err atomic.Pointer[error]
}

func (w *watchedReader) ReadAt(p []byte, off int64) (int, error) {
	n, err := w.ReaderAt.ReadAt(p, off)
	if err != nil && err != io.EOF {
		w.err.Store(&err)
	}
	return n, err
}

func (w *watchedReader) failure() error {
	if err := w.err.Load(); err != nil {
		return *err
	}
	return nil
}
