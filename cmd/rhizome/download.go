package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"rhizome/stages/dists"
)

// downloadIdle is how long a server may keep a build waiting for the next byte.
const downloadIdle = time.Minute

// downloader opens URLs for the stages that fetch release sets; what it gives is
// checked against a digest by them. A server that sends nothing for as long as
// idle is given up, however long the whole takes.
func downloader(idle time.Duration) dists.Getter {
	return func(ctx context.Context, url string) (io.ReadCloser, error) {
		ctx, cancel := context.WithCancelCause(ctx)
		d := &downloading{url: url, ctx: ctx, idle: idle}
		d.timer = time.AfterFunc(idle, func() { cancel(fmt.Errorf("%w for %s", errSilent, idle)) })
		d.stop = func() { d.timer.Stop(); cancel(nil) }
		if err := d.open(); err != nil {
			d.stop()
			return nil, err
		}
		return d, nil
	}
}

var errSilent = errors.New("no byte came")

// downloading is the body of an answer.
type downloading struct {
	io.ReadCloser
	url   string
	ctx   context.Context
	idle  time.Duration
	timer *time.Timer
	stop  func()
}

func (d *downloading) open() error {
	req, err := http.NewRequestWithContext(d.ctx, http.MethodGet, d.url, nil)
	if err != nil {
		return fmt.Errorf("fetching %q: %w", d.url, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return d.failed(err)
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return d.failed(fmt.Errorf("the server answers %s", resp.Status))
	}
	d.ReadCloser = resp.Body
	return nil
}

// Read gives the server its time anew with every byte.
func (d *downloading) Read(p []byte) (int, error) {
	n, err := d.ReadCloser.Read(p)
	if n > 0 {
		d.timer.Reset(d.idle)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = d.failed(err)
	}
	return n, err
}

// Close ends the download.
func (d *downloading) Close() error {
	defer d.stop()
	return d.ReadCloser.Close()
}

// failed tells a server that fell silent from a caller who gave up.
func (d *downloading) failed(err error) error {
	switch cause := context.Cause(d.ctx); {
	case errors.Is(cause, errSilent):
		err = cause
	case cause != nil:
		return fmt.Errorf("fetching %q: %w", d.url, cause)
	}
	return &downloadError{d.url, err}
}

// downloadError is a download that failed; the network is to blame.
type downloadError struct {
	url string
	err error
}

func (e *downloadError) Error() string { return fmt.Sprintf("fetching %q: %v", e.url, e.err) }
func (e *downloadError) Unwrap() error { return e.err }

// Network says so to whoever chooses the exit code.
func (e *downloadError) Network() bool { return true }
