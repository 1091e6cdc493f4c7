package remote

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"syscall"

	"rhizome/registry/layout"
	"rhizome/registry/ref"

	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"
)

// Kind says what sort of thing went wrong, for whoever chooses an exit code or
// tries again.
type Kind string

// The kinds of error.
const (
	// NotFound: the registry has no such repository, tag or blob.
	NotFound Kind = "not found"
	// Denied: the registry wants other credentials (401, 403).
	Denied Kind = "denied"
	// Unavailable: the registry is overloaded or broken (408, 429, 5xx).
	Unavailable Kind = "unavailable"
	// Refused: any other answer that is no success.
	Refused Kind = "refused"
	// Unreachable: no connection, or one that broke.
	Unreachable Kind = "unreachable"
	// Untrusted: TLS did not come about.
	Untrusted Kind = "untrusted"
	// Stalled: the registry stopped sending or taking bytes.
	Stalled Kind = "stalled"
	// Lied: what came is not what was asked for, or cannot be.
	Lied Kind = "lied"
	// Local: the registry is not to blame; the disk is full, say.
	Local Kind = "local"
	// Stopped: the caller gave up.
	Stopped Kind = "stopped"
)

// Error is a failed exchange with a registry.
type Error struct {
	// Doing is what was being done: "pulling", "pushing", "listing".
	Doing string
	Ref   ref.Reference
	Kind  Kind
	// Status is the HTTP status, or 0 when there was none.
	Status int
	Err    error
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%s %q: %s", e.Doing, e.Ref, e.cause())
	if hint := e.Hint(); hint != "" {
		s += "; " + hint
	}
	return s
}

func (e *Error) cause() string {
	if e.Status == 0 {
		return e.Err.Error()
	}
	return fmt.Sprintf("the registry answered %d %s (%v)", e.Status, http.StatusText(e.Status), e.Err)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Hint is the remedy, or "" where none is known.
func (e *Error) Hint() string {
	switch e.Kind {
	case NotFound:
		return "check the name and the tag"
	case Denied:
		return fmt.Sprintf("log in with `podman login %s` or `docker login %[1]s`, or check what that account may do", e.Ref.Host)
	case Unavailable:
		return "try again later: what was transferred is kept"
	case Unreachable:
		return "check the name, the port and the network, then run it again: what was transferred is kept"
	case Stalled:
		return "run it again: what was transferred is kept"
	case Untrusted:
		return e.trustHint()
	case Lied:
		return "the registry or something on the way to it is damaged; nothing was stored"
	}
	return ""
}

func (e *Error) trustHint() string {
	if strings.Contains(e.Err.Error(), "HTTP response to HTTPS client") {
		return "the registry speaks no TLS: if that is meant, say --plain-http"
	}
	return "if the registry's certificate is signed by a private authority, name that authority's file with --ca-file"
}

// wrap makes an *Error of err, once.
func wrap(doing string, r ref.Reference, err error) error {
	var done *Error
	if err == nil || errors.As(err, &done) {
		return err
	}
	kind, status := classify(err)
	return &Error{Doing: doing, Ref: r, Kind: kind, Status: status, Err: err}
}

var (
	errStalled  = errors.New("no byte moved for longer than the idle limit")
	errBadRange = errors.New("the registry sent another range than asked for")
)

// classify finds the kind of an error, and the HTTP status when one came.
func classify(err error) (Kind, int) {
	var answer *errcode.ErrorResponse
	switch {
	case errors.As(err, &answer):
		return classifyStatus(answer.StatusCode), answer.StatusCode
	case errors.Is(err, errStalled):
		return Stalled, 0
	case errors.Is(err, context.Canceled):
		return Stopped, 0
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return Denied, http.StatusUnauthorized
	case isLocal(err):
		return Local, 0
	case isLie(err):
		return Lied, 0
	case errors.Is(err, errdef.ErrNotFound):
		return NotFound, http.StatusNotFound
	case isUntrusted(err):
		return Untrusted, 0
	case isNetwork(err):
		return Unreachable, 0
	}
	return Refused, 0
}

func classifyStatus(status int) Kind {
	switch {
	case status == http.StatusNotFound:
		return NotFound
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return Denied
	case status == http.StatusRequestTimeout, status == http.StatusTooManyRequests, status >= 500:
		return Unavailable
	}
	return Refused
}

// isLocal knows the errors of our own disk: they carry a path.
func isLocal(err error) bool {
	var path *fs.PathError
	var missing *layout.NotFoundError
	var corrupt *layout.CorruptError
	return errors.As(err, &corrupt) && corrupt.Path != "" || errors.As(err, &path) || errors.As(err, &missing) || errors.Is(err, syscall.ENOSPC)
}

func isLie(err error) bool {
	var corrupt *layout.CorruptError
	return errors.As(err, &corrupt) || errors.Is(err, content.ErrMismatchedDigest) ||
		errors.Is(err, content.ErrTrailingData) || errors.Is(err, errBadRange)
}

func isUntrusted(err error) bool {
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	return errors.As(err, &unknown) || errors.As(err, &host) || errors.As(err, &invalid) ||
		strings.Contains(err.Error(), "HTTP response to HTTPS client")
}

func isNetwork(err error) bool {
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// transient says whether the same request may succeed soon. A refused
// connection is worth waiting for only when the registry was there before.
func transient(err error, reached bool) bool {
	switch kind, _ := classify(err); kind {
	case Unavailable, Stalled:
		return true
	case Unreachable:
		var lookup *net.DNSError
		return reached || !errors.Is(err, syscall.ECONNREFUSED) && !errors.As(err, &lookup)
	}
	return false
}
