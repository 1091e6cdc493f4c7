package remote

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

// newTransport makes the HTTP transport: its own, so that nothing is shared
// with other users of net/http.
func newTransport(o Options) (http.RoundTripper, error) {
	roots, err := trust(o.CAFile)
	if err != nil {
		return nil, err
	}
	return &watchdog{limit: o.IdleTimeout, base: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:       &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:   15 * time.Second,
		ExpectContinueTimeout: time.Second,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   o.Concurrency,
		IdleConnTimeout:       90 * time.Second,
		// A layer must come as the bytes its digest was taken of.
		DisableCompression: true,
		// A registry has no business with headers of a megabyte.
		MaxResponseHeaderBytes: 64 << 10,
	}}, nil
}

// trust returns the system's authorities and those in file; nil is the system's.
func trust(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate authority: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("reading the certificate authority %q: there is no PEM certificate in it", file)
	}
	return roots, nil
}

// maxAsked is the longest that a registry may ask us to leave it alone.
const maxAsked = 2 * time.Minute

// patient notes how long a registry asks to be left alone when it is asked too
// often or is down (RFC 6585, section 4; RFC 9110, section 10.2.3).
type patient struct {
	base http.RoundTripper
	// until is the moment, in nanoseconds since 1970.
	until atomic.Int64
}

func (p *patient) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := p.base.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
		return resp, err
	}
	// A date in its place is for those whose clock is right.
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
		p.until.Store(time.Now().Add(min(time.Duration(seconds), maxAsked/time.Second) * time.Second).UnixNano())
	}
	return resp, nil
}

// asked is how long there is still to wait.
func (p *patient) asked() time.Duration {
	return time.Until(time.Unix(0, p.until.Load()))
}

// watchdog ends an exchange in which no byte moves for limit: a registry that
// stalls must not hang a build for ever, and one that is merely slow must not
// be cut off.
type watchdog struct {
	base  http.RoundTripper
	limit time.Duration
}

// answerFactor is how many idle limits a registry gets between the last byte of
// a push and its answer.
const answerFactor = 5

func (w *watchdog) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	timer := time.AfterFunc(w.limit, func() { cancel(fmt.Errorf("%w (%s)", errStalled, w.limit)) })
	moved := func() { timer.Reset(w.limit) }
	// A registry may take its time to store what it got.
	sent := func() { timer.Reset(answerFactor * w.limit) }
	stop := func() { timer.Stop(); cancel(nil) }
	req = req.Clone(ctx)
	if req.Body != nil && req.Body != http.NoBody {
		req.Body = &watched{ReadCloser: req.Body, ctx: ctx, moved: moved, ended: sent}
	}
	resp, err := w.base.RoundTrip(req)
	if err != nil {
		stop()
		return nil, stalledOr(ctx, err)
	}
	moved()
	resp.Body = &watched{ReadCloser: resp.Body, ctx: ctx, moved: moved, closed: stop}
	return resp, nil
}

// stalledOr prefers the watchdog's reason to the transport's "context canceled".
func stalledOr(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

type watched struct {
	io.ReadCloser
	ctx    context.Context
	moved  func()
	ended  func()
	closed func()
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if n > 0 {
		w.moved()
	}
	if errors.Is(err, io.EOF) && w.ended != nil {
		w.ended()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = stalledOr(w.ctx, err)
	}
	return n, err
}

func (w *watched) Close() error {
	if w.closed != nil {
		defer w.closed()
	}
	return w.ReadCloser.Close()
}
