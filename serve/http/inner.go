package httpd

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"rhizome/serve/boot"
	"rhizome/serve/bootspec"
)

// reservedPorts end here: only root binds below (RFC 1078's age, and what NFS
// goes by too).
const reservedPorts = 1024

// Handler answers on the inner address.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.serve) }

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.Counters.Requests.Add(1)
	s.Counters.Active.Add(1)
	defer s.Counters.Active.Add(-1)
	from := clientOf(r.RemoteAddr)
	m, known := s.Machines(from.Addr())
	if !known {
		s.stranger(w, r, from.Addr())
		return
	}
	defer m.Done()
	for prefix, handler := range s.Under {
		if strings.HasPrefix(r.URL.Path, prefix) {
			handler(w, r, m)
			return
		}
	}
	s.answer(&exchange{Server: s, w: w, r: r, m: m, from: from})
}

func (s *Server) stranger(w http.ResponseWriter, r *http.Request, from netip.Addr) {
	s.Counters.Refused.Add(1)
	http.Error(w, fmt.Sprintf("no node of this cluster has the address %v", from), http.StatusForbidden)
	if s.quiet.Open(time.Now()) {
		s.event(boot.Event{
			Kind: boot.HTTPRefused, Addr: from, File: short(r.URL.Path), Client: short(r.UserAgent()),
			Error: fmt.Sprintf("no node has the address %v", from),
		})
	}
}

// short bounds what a client can put into an event.
func short(s string) string { return strings.ToValidUTF8(s[:min(len(s), 200)], "?") }

// exchange is one request of a known machine.
type exchange struct {
	*Server
	w    http.ResponseWriter
	r    *http.Request
	m    bootspec.Machine
	from netip.AddrPort
}

// content is what will be sent, with the headers that go with it.
type content struct {
	body    io.ReadSeeker
	name    string
	kind    string
	etag    string
	cache   string
	modTime time.Time
	// failed tells after sending whether reading went wrong.
	failed func() error
}

// failure is an answer that is no content.
type failure struct {
	status int
	kind   boot.Kind
	err    error
}

func (s *Server) answer(x *exchange) {
	s.event(x.seen(boot.HTTPGet))
	c, closer, no := x.find()
	if closer != nil {
		defer closer.Close()
	}
	if no != nil {
		x.fail(no)
		return
	}
	x.send(c)
}

// seen is the event of this exchange, filled as far as it is known.
func (x *exchange) seen(kind boot.Kind) boot.Event {
	detail := x.r.Method
	if ranges := x.r.Header.Get("Range"); ranges != "" {
		detail += " " + short(ranges)
	}
	return boot.Event{
		Kind: kind, Node: x.m.Node.Name, Addr: x.from.Addr(), Digest: x.m.Digest,
		MAC:  strings.Join(x.m.Node.MACs[:min(1, len(x.m.Node.MACs))], ""),
		File: short(x.r.URL.Path), Client: short(x.r.UserAgent()), Detail: detail,
	}
}

func (x *exchange) find() (content, io.Closer, *failure) {
	if x.r.Method != http.MethodGet && x.r.Method != http.MethodHead {
		x.w.Header().Set("Allow", "GET, HEAD")
		return content{}, nil, &failure{http.StatusMethodNotAllowed, boot.HTTPRefused, errors.New("this server takes nothing: it is read only")}
	}
	to := routeOf(x.r.URL.Path)
	if to.digest != "" {
		return x.blob(to.digest)
	}
	c, no := x.file(to.name)
	return c, nil, no
}

// file finds a file of the boot spec. Its ETag is the body's digest, so a
// client's copy holds across images and servers; it must ask again each time, since
// the next image may have another body under the same name.
func (x *exchange) file(name string) (content, *failure) {
	f, err := bootspec.Open(x.m, name)
	var missing *bootspec.NotFound
	switch {
	case errors.As(err, &missing):
		return content{}, &failure{http.StatusNotFound, boot.HTTPNotFound, err}
	case err != nil:
		return content{}, &failure{http.StatusInternalServerError, boot.HTTPAborted, err}
	}
	watched := &watchedReader{ReaderAt: f}
	return content{
		body: io.NewSectionReader(watched, 0, f.Size), name: f.Name, kind: contentType(f.Name),
		etag: etag(f.Digest), cache: "private, no-cache", modTime: f.ModTime, failed: watched.failure,
	}, nil
}

func etag(digest string) string {
	if digest == "" {
		return ""
	}
	return `"` + digest + `"`
}

// blob finds a blob that the node's own manifest names. A layer holds files that
// only root may read, so only root gets it; what every user of the node may read,
// any port may fetch.
func (x *exchange) blob(digest string) (content, io.Closer, *failure) {
	i := slices.IndexFunc(x.m.Blobs, func(b bootspec.Blob) bool { return b.Digest == digest })
	if i < 0 {
		return content{}, nil, &failure{http.StatusForbidden, boot.HTTPRefused, fmt.Errorf("the image of node %q does not name the blob %s", x.m.Node.Name, digest)}
	}
	anyUser := x.m.Blobs[i].AnyUser
	if !anyUser && x.from.Port() >= reservedPorts {
		return content{}, nil, &failure{http.StatusForbidden, boot.HTTPRefused, fmt.Errorf("the blob %s holds files that only root may read: ask from a port below %d", digest, reservedPorts)}
	}
	f, err := x.OpenBlob(x.r.Context(), digest)
	if errors.Is(err, fs.ErrNotExist) {
		return content{}, nil, &failure{http.StatusNotFound, boot.HTTPNotFound, fmt.Errorf("the store does not hold the blob %s: pull the image again", digest)}
	}
	if err != nil {
		return content{}, nil, &failure{http.StatusInternalServerError, boot.HTTPAborted, fmt.Errorf("opening the blob %s: %w", digest, err)}
	}
	return content{
		body: f, name: digest, kind: "application/octet-stream", etag: etag(digest),
		cache: blobCache(anyUser), failed: func() error { return nil },
	}, f, nil
}

// blobCache lets any proxy keep what anybody may read. A digest's content never
// changes.
func blobCache(anyUser bool) string {
	if anyUser {
		return "public, max-age=31536000, immutable"
	}
	return "private, max-age=31536000, immutable"
}

func (x *exchange) fail(no *failure) {
	http.Error(x.w, no.err.Error(), no.status)
	e := x.seen(no.kind)
	e.Error = no.err.Error()
	x.count(no.kind)
	x.event(e)
}

func (x *exchange) send(c content) {
	h := x.w.Header()
	h.Set("Content-Type", c.kind)
	h.Set("Cache-Control", c.cache)
	h.Set("X-Content-Type-Options", "nosniff")
	if c.etag != "" {
		h.Set("ETag", c.etag)
	}
	began := time.Now()
	out := &progress{ResponseWriter: x.w, control: http.NewResponseController(x.w)}
	http.ServeContent(out, x.r, c.name, c.modTime, c.body)
	e := x.seen(boot.HTTPDone)
	e.Bytes, e.Took = out.sent, time.Since(began)
	e.Detail = fmt.Sprintf("%s: %d", e.Detail, out.status)
	if err := errors.Join(c.failed(), out.err); err != nil {
		e.Kind, e.Error = boot.HTTPAborted, fmt.Sprintf("sending %q, after %d bytes: %v", c.name, out.sent, err)
	}
	x.Counters.Bytes.Add(out.sent)
	x.count(e.Kind)
	x.event(e)
}

func (s *Server) count(kind boot.Kind) {
	switch kind {
	case boot.HTTPDone:
		s.Counters.Done.Add(1)
	case boot.HTTPNotFound:
		s.Counters.NotFound.Add(1)
	case boot.HTTPRefused:
		s.Counters.Refused.Add(1)
	case boot.HTTPAborted:
		s.Counters.Aborted.Add(1)
	}
}
