// Package httpd serves over HTTP what a machine needs to boot, on the inner
// address: its iPXE script, the files that its boot spec names, the blobs that its
// manifest names, by digest. Who asks is known by the address alone; nobody
// reaches another node's things.
//
//	/boot.ipxe, /boot/NAME.ipxe   the generated iPXE script of the node that asks
//	/files/PATH, /PATH            a file of the boot spec, out of the merged root
//	/blobs/sha256/HEX             a blob of the node's own manifest
//
// On the admin address it serves the store's images as a read-only OCI registry
// (registry.go). Ranges, conditions and HEAD are net/http's; sending a blob is
// the kernel's (sendfile), since blobs lie in the store as they go over the wire.
package httpd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"rhizome/serve/boot"
	"rhizome/serve/bootspec"
)

// Timeouts and bounds. A client may take as long as it likes for a body as long
// as it takes some of it within stall.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 60 * time.Second
	stall         = 60 * time.Second
	maxHeader     = 16 << 10

	// DefaultConns and DefaultPerClient bound open connections, in all and of
	// one address.
	DefaultConns     = 8192
	DefaultPerClient = 64
)

// BlobFile is an open blob. An *os.File, or what embeds one, is sent without
// passing through this process.
type BlobFile interface {
	io.ReadSeeker
	io.Closer
}

// Server answers a cluster's machines. Its fields must not change once it
// serves.
type Server struct {
	// Machines finds the machine behind a client's address.
	Machines bootspec.ByAddr
	// OpenBlob opens a blob of the store by digest; the caller has checked that
	// the client may have it. fs.ErrNotExist says that it is not there.
	OpenBlob func(ctx context.Context, digest string) (BlobFile, error)
	// Under holds what other parts of serve answer below a first path element,
	// as "/node/"; the machine is known then. It may be nil.
	Under map[string]func(http.ResponseWriter, *http.Request, bootspec.Machine)
	// Events takes what was seen; nil is silence.
	Events boot.Sink
	// Log takes what is wrong with the server itself; nil is silence.
	Log *slog.Logger
	// Now is the clock of events; nil means time.Now.
	Now func() time.Time
	// Conns and PerClient bound open connections; 0 means the defaults.
	Conns, PerClient int
	// Counters may be read at any time.
	Counters Counters

	quiet bootspec.Valve
}

// Counters count since the start.
type Counters struct {
	// Requests of machines and strangers; Done, NotFound, Refused and Aborted are how
	// they ended.
	Requests, Done, NotFound, Refused, Aborted atomic.Int64
	// Bytes of bodies that were sent, Dropped connections beyond a bound.
	Bytes, Dropped atomic.Int64
	// Active are the requests that run now.
	Active atomic.Int64
}

// Serve answers connections of ln until ctx ends and returns nil then. Any other
// error is the listener's.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	limited := limit(ln, orDefault(s.Conns, DefaultConns), orDefault(s.PerClient, DefaultPerClient), &s.Counters.Dropped)
	return ServeHandler(ctx, limited, s.Handler(), s.Log)
}

// ServeHandler runs a handler with this package's timeouts until ctx ends; the
// admin address uses it too.
func ServeHandler(ctx context.Context, ln net.Listener, h http.Handler, log *slog.Logger) error {
	server := &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, ReadTimeout: stall, WriteTimeout: stall,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
	}
	if log != nil {
		server.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelWarn)
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		shutdown(server)
	})
	err := server.Serve(ln)
	if !stop() {
		<-ended
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serving HTTP on %v: %w", ln.Addr(), err)
}

// shutdown lets short answers end, and then closes what is left.
func shutdown(server *http.Server) {
	grace, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if server.Shutdown(grace) != nil {
		_ = server.Close()
	}
}

func orDefault(n, otherwise int) int {
	if n > 0 {
		return n
	}
	return otherwise
}

func (s *Server) event(e boot.Event) {
	e.Time = time.Now()
	if s.Now != nil {
		e.Time = s.Now()
	}
	s.Events.Send(e)
}
