package registrytest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// Proxy stands before a registry, counts, and misbehaves as a test wants.
type Proxy struct {
	*httptest.Server
	forward *httputil.ReverseProxy

	mu   sync.Mutex
	hook Hook
	cut  int64
	seen []Seen
	// forgot counts Forget: an answer that ends after one belongs to what was
	// forgotten, though the client gave it up long before.
	forgot int
}

// Hook sees every request first; when it answers itself, it returns true.
type Hook func(w http.ResponseWriter, r *http.Request) bool

// SetHook puts a hook in; nil lets all through.
func (p *Proxy) SetHook(h Hook) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hook = h
}

// SetCut ends every answer to a GET of a blob after n bytes; 0 is never.
func (p *Proxy) SetCut(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = n
}

// Seen is one request.
type Seen struct {
	Method, Path, Range string
	// Sent is how many bytes of the body the client got.
	Sent int64
}

// NewProxy starts a proxy before the registry at host, which may be empty when
// a hook answers everything.
func NewProxy(t testing.TB, host string) *Proxy {
	t.Helper()
	p := &Proxy{forward: httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: host})}
	p.forward.FlushInterval = -1
	p.Server = httptest.NewServer(p)
	t.Cleanup(func() {
		p.CloseClientConnections()
		p.Close()
	})
	return p
}

// Host is "127.0.0.1:PORT".
func (p *Proxy) Host() string { return strings.TrimPrefix(p.URL, "http://") }

// Requests lists what came whose method and path match.
func (p *Proxy) Requests(method, part string) []Seen {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found []Seen
	for _, s := range p.seen {
		if s.Method == method && strings.Contains(s.Path, part) {
			found = append(found, s)
		}
	}
	return found
}

// Forget empties the list of requests. One that is still being answered, to a
// client that hung up, is forgotten too.
func (p *Proxy) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = nil
	p.forgot++
}

func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	hook, cut, forgot := p.hook, p.cut, p.forgot
	p.mu.Unlock()
	c := &cutting{ResponseWriter: w}
	if cut > 0 && r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
		c.limit = cut
	}
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if forgot == p.forgot {
			p.seen = append(p.seen, Seen{r.Method, r.URL.RequestURI(), r.Header.Get("Range"), c.sent})
		}
	}()
	if hook != nil && hook(c, r) {
		return
	}
	p.forward.ServeHTTP(c, r)
}

// cutting breaks the connection after limit bytes.
type cutting struct {
	http.ResponseWriter
	limit, sent int64
}

func (c *cutting) Write(b []byte) (int, error) {
	if c.limit > 0 && c.sent+int64(len(b)) > c.limit {
		n, _ := c.ResponseWriter.Write(b[:c.limit-c.sent])
		c.sent += int64(n)
		c.Flush()
		panic(http.ErrAbortHandler)
	}
	n, err := c.ResponseWriter.Write(b)
	c.sent += int64(n)
	return n, err
}

// Flush sends what is buffered.
func (c *cutting) Flush() {
	if f, ok := c.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

// ReadFrom is not for io.Copy to find: it would go round Write.
var _ io.Writer = (*cutting)(nil)
