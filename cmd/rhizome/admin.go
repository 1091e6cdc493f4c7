package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"rhizome/serve"
	"rhizome/serve/admin"
	httpd "rhizome/serve/http"
	"rhizome/serve/nfs"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// adminAddr reads --admin. Whoever reaches the address reads every layer, so it
// is one address that was chosen, and none that nodes can reach.
func adminAddr(text string) (netip.AddrPort, error) {
	at, err := netip.ParseAddrPort(text)
	switch {
	case err != nil:
		return at, usagef("--admin: %q is no address; write ADDRESS:PORT, as 127.0.0.1:8080", text)
	case at.Addr().IsUnspecified():
		return at, usagef("--admin: %q is every address, the nodes' network with them; name one, as 127.0.0.1:%d", text, at.Port())
	}
	return at, nil
}

// openAdmin answers operators until ctx ends. The function that it returns waits
// for that.
func (h *host) openAdmin(ctx context.Context, text string, board *admin.Board) (wait func(), err error) {
	if text == "" {
		return func() {}, nil
	}
	at, err := adminAddr(text)
	if err != nil {
		return nil, err
	}
	if h.onNodesNetwork(at.Addr()) {
		return nil, usagef("--admin: %s is on the nodes' network, and a node must not read other nodes' files; name an address of another network, as 127.0.0.1:%d", at.Addr(), at.Port())
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", at.String())
	if err != nil {
		return nil, fmt.Errorf("listening on the admin address: %w", err)
	}
	roof := h.refuseNodes(httpd.Admin(httpd.Registry(shelf{h}), board.Metrics(), board.Page(h.term.logger())))
	h.term.note("admin    http://%s", ln.Addr())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := httpd.ServeHandler(ctx, ln, roof, h.term.logger()); err != nil {
			h.term.logger().Error("the admin address is no longer answered; the nodes are", "error", err)
		}
	}()
	return func() { <-ended }, nil
}

func (h *host) onNodesNetwork(a netip.Addr) bool {
	return slices.ContainsFunc(h.fleet.Machines(), func(m *serve.Machine) bool {
		return m.Cluster.Network.Subnet.Contains(a.Unmap())
	})
}

// refuseNodes keeps out clients of the nodes' network: a host answers for all its
// addresses on every interface.
func (h *host) refuseNodes(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil || h.onNodesNetwork(from.Addr()) {
			http.Error(w, "the admin address is not for the nodes' network", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// shelf shows the store to the registry endpoint.
type shelf struct{ *host }

func (s shelf) References(ctx context.Context) ([]string, error) {
	all, err := s.store.Images().Tags(ctx)
	var names []string
	for _, t := range all {
		names = append(names, t.Name)
	}
	return names, err
}

func (s shelf) Resolve(ctx context.Context, reference string) (ocispec.Descriptor, error) {
	d, err := s.store.Resolve(ctx, reference)
	return d, missing(err)
}

func (s shelf) Describe(ctx context.Context, d digest.Digest) (ocispec.Descriptor, error) {
	desc, err := s.store.Images().Describe(ctx, d)
	return desc, missing(err)
}

func (s shelf) OpenBlob(ctx context.Context, d string) (httpd.BlobFile, error) {
	f, err := s.openBlob(ctx, d)
	return f, missing(err)
}

// missing lets the endpoint tell what is not there by fs.ErrNotExist.
func missing(err error) error {
	if err != nil && isNotFound(err) && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return err
}

// board keeps what operators see of the nodes. counters are those of the running
// server.
func (h *host) board(counters func() (serve.Counters, bool)) *admin.Board {
	b := admin.NewBoard(time.Now, slices.Concat(h.nfsMetrics(counters), transferMetrics(counters), h.cacheMetrics())...)
	for _, m := range h.fleet.Machines() {
		b.Expect(m.Node.Name)
	}
	return b
}

func (h *host) nfsMetrics(counters func() (serve.Counters, bool)) []admin.Metric {
	each := func(value func(add func(float64, ...string), node string, c *nfs.Counters)) func(func(float64, ...string)) {
		return func(add func(float64, ...string)) {
			c, ok := counters()
			if !ok {
				return
			}
			c.NFS(func(client netip.Addr, n *nfs.Counters) {
				if m, known := h.fleet.ByAddr(client); known {
					value(add, m.Node.Name, n)
				}
			})
		}
	}
	one := func(get func(*nfs.Counters) uint64) func(func(float64, ...string)) {
		return each(func(add func(float64, ...string), node string, c *nfs.Counters) { add(float64(get(c)), node) })
	}
	return []admin.Metric{
		{Name: "nfs_calls_total", Help: "NFS calls, by node and procedure.", Labels: []string{"node", "procedure"},
			Read: each(func(add func(float64, ...string), node string, c *nfs.Counters) {
				for i := range c.Calls {
					if n := c.Calls[i].Load(); n > 0 {
						add(float64(n), node, nfs.ProcedureName(i))
					}
				}
			})},
		{Name: "nfs_errors_total", Help: "NFS calls answered with an error other than \"no such file\".", Labels: []string{"node"}, Read: one(func(c *nfs.Counters) uint64 { return c.Errors.Load() })},
		{Name: "nfs_read_bytes_total", Help: "Bytes of file bodies read over NFS.", Labels: []string{"node"}, Read: one(func(c *nfs.Counters) uint64 { return c.BytesRead.Load() })},
		{Name: "nfs_mounts_total", Help: "Mounts.", Labels: []string{"node"}, Read: one(func(c *nfs.Counters) uint64 { return c.Mounts.Load() })},
	}
}

func transferMetrics(counters func() (serve.Counters, bool)) []admin.Metric {
	both := func(get func(c serve.Counters) (tftp, http int64)) func(func(float64, ...string)) {
		return func(add func(float64, ...string)) {
			if c, ok := counters(); ok {
				t, w := get(c)
				add(float64(t), "tftp")
				add(float64(w), "http")
			}
		}
	}
	proto := []string{"proto"}
	return []admin.Metric{
		{Name: "requests_total", Help: "Requests, of nodes and strangers.", Labels: proto,
			Read: both(func(c serve.Counters) (int64, int64) { return c.TFTP.Requests.Load(), c.HTTP.Requests.Load() })},
		{Name: "requests_active", Help: "Requests that are being answered.", Labels: proto, Gauge: true,
			Read: both(func(c serve.Counters) (int64, int64) { return c.TFTP.Active.Load(), c.HTTP.Active.Load() })},
		{Name: "requests_dropped_total", Help: "Requests and connections beyond a bound.", Labels: proto,
			Read: both(func(c serve.Counters) (int64, int64) { return c.TFTP.Dropped.Load(), c.HTTP.Dropped.Load() })},
		{Name: "body_bytes_total", Help: "Bytes of bodies sent.", Labels: proto,
			Read: both(func(c serve.Counters) (int64, int64) { return c.TFTP.Bytes.Load(), c.HTTP.Bytes.Load() })},
	}
}

func (h *host) cacheMetrics() []admin.Metric {
	number := func(get func() float64) func(func(float64, ...string)) {
		return func(add func(float64, ...string)) { add(get()) }
	}
	return []admin.Metric{
		{Name: "frame_cache_bytes", Help: "Memory that decoded frames of layers take.", Gauge: true, Read: number(func() float64 { return float64(h.cache.Stats().Bytes) })},
		{Name: "frame_cache_limit_bytes", Help: "The most that they may take.", Gauge: true, Read: number(func() float64 { return float64(h.cache.Stats().Limit) })},
		{Name: "frame_cache_loads_total", Help: "Frames that were read and decoded.", Read: number(func() float64 { return float64(h.cache.Stats().Loads) })},
		{Name: "frame_cache_evictions_total", Help: "Frames that made room for others.", Read: number(func() float64 { return float64(h.cache.Stats().Evictions) })},
		{Name: "frames_damaged_total", Help: "Frames that failed their digest.", Read: number(func() float64 { return float64(h.cache.Stats().Damaged) })},
		{Name: "frames_mended_total", Help: "Damaged frames that were fetched again.", Read: number(func() float64 { return float64(h.cache.Stats().Mended) })},
	}
}

var _ httpd.Images = shelf{}
