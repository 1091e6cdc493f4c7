// Package node answers what programs on a node ask and tell over HTTP: what
// the early script is to do, each step that it took, that the node is up, the
// jobs it runs, and leases of regions of its writable exports (leases.go).
// nodeapi has the paths and bodies, and docs/prefetch.md the story.
//
// A node is known by its source address. What changes state needs the token of
// the node's boot, which only root there can get: it is given to a source port
// below 1024 (token.go). Everything a node says is bounded, in size and in how
// often, and becomes an event.
package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"rhizome/serve/boot"
	"rhizome/serve/bootspec"
	"rhizome/serve/node/nodeapi"
)

// reservedPorts end here: only root binds below.
const reservedPorts = 1024

// Config is what a Server is made of.
type Config struct {
	// Plan says what the node with an address boots from.
	Plan func(addr netip.Addr) (nodeapi.Plan, bool)
	// Secrets makes and gives the folder of a node's secrets.
	Secrets func(cluster, node string) (dir string, err error)
	// Regions leases, streams and writes back regions; nil is none.
	Regions Regions
	// Heartbeat is how often nodes are to tell that they live; 0 means
	// nodeapi.DefaultHeartbeat.
	Heartbeat time.Duration
	// Events takes what nodes say; nil is silence.
	Events boot.Sink
	// Log takes what is wrong with the server itself; nil is silence.
	Log *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Server is the node API. Its methods are safe for many goroutines.
type Server struct {
	config Config
	tokens tokens
	limit  limiter
	pulse  pulse
	quiet  bootspec.Valve
}

// New makes a Server.
func New(c Config) *Server {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Heartbeat <= 0 {
		c.Heartbeat = nodeapi.DefaultHeartbeat
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{config: c, tokens: tokens{dir: c.Secrets}}
}

// exchange is one request of a known node.
type exchange struct {
	*Server
	w    http.ResponseWriter
	r    *http.Request
	m    bootspec.Machine
	from netip.AddrPort
	// boot is the node's boot, once its token was checked.
	boot string
}

// refusal is an answer that is no success, with what the client is told.
type refusal struct {
	status int
	err    error
	// body replaces Problem where it is set.
	body any
}

func refuse(status int, format string, args ...any) *refusal {
	return &refusal{status: status, err: fmt.Errorf(format, args...)}
}

// Handle answers a request below nodeapi.Prefix; httpd.Server.Under takes it.
func (s *Server) Handle(w http.ResponseWriter, r *http.Request, m bootspec.Machine) {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		http.Error(w, "no source address", http.StatusBadRequest)
		return
	}
	x := &exchange{Server: s, w: w, r: r, m: m, from: netip.AddrPortFrom(from.Addr().Unmap(), from.Port())}
	if !s.limit.allow(x.from.Addr(), s.config.Now()) {
		w.Header().Set("Retry-After", "1")
		x.fail(refuse(http.StatusTooManyRequests, "node %q asks too often: ask again in a second", m.Node.Name))
		return
	}
	if no := x.route(); no != nil {
		x.fail(no)
	}
}

// handlers are the paths beside those of leases; open ones need no token.
var handlers = map[string]struct {
	method string
	open   bool
	serve  func(*exchange) *refusal
}{
	nodeapi.PathBoot:      {http.MethodPost, true, (*exchange).begin},
	nodeapi.PathPlan:      {http.MethodGet, true, (*exchange).plan},
	nodeapi.PathReport:    {http.MethodPost, false, (*exchange).report},
	nodeapi.PathUp:        {http.MethodPost, false, (*exchange).up},
	nodeapi.PathHeartbeat: {http.MethodPost, false, (*exchange).heartbeat},
	nodeapi.PathJob:       {http.MethodPost, false, (*exchange).job},
}

func (x *exchange) route() *refusal {
	h, known := handlers[x.r.URL.Path]
	leases := x.r.URL.Path == nodeapi.PathLeases || strings.HasPrefix(x.r.URL.Path, nodeapi.PathLeases+"/")
	switch {
	case !known && !leases:
		return refuse(http.StatusNotFound, "there is no %q in the node API", text(x.r.URL.Path))
	case known && x.r.Method != h.method:
		x.w.Header().Set("Allow", h.method)
		return refuse(http.StatusMethodNotAllowed, "%s takes %s", x.r.URL.Path, h.method)
	}
	if !h.open {
		if no := x.authorize(); no != nil {
			return no
		}
	}
	if leases {
		return x.leases()
	}
	return h.serve(x)
}

// authorize checks the token of the node's boot.
func (x *exchange) authorize() *refusal {
	token, ok := strings.CutPrefix(x.r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return refuse(http.StatusUnauthorized, "there is no token: root on the node has it in /run/rhizome/token")
	}
	boot, ok, err := x.tokens.check(x.m.Cluster.Name, x.m.Node.Name, token)
	if err != nil {
		return x.broken(err)
	}
	if !ok {
		return refuse(http.StatusForbidden, "this is not the token of node %q's last boot: \"rhizome-node up\" gets a new one", x.m.Node.Name)
	}
	x.boot = boot
	return nil
}

// broken is an error of the server's own; the log has it whole.
func (x *exchange) broken(err error) *refusal {
	x.config.Log.Error("answering a node", "node", x.m.Node.Name, "path", x.r.URL.Path, "error", err)
	return refuse(http.StatusInternalServerError, "the server cannot: %w", err)
}

// begin is POST boot.
func (x *exchange) begin() *refusal {
	if x.from.Port() >= reservedPorts {
		return refuse(http.StatusForbidden, "the token is root's: ask from a port below %d", reservedPorts)
	}
	id, token, err := x.tokens.begin(x.m.Cluster.Name, x.m.Node.Name, x.config.Now())
	if err != nil {
		return x.broken(err)
	}
	x.pulse.forget(x.m.Node.Name)
	if x.config.Regions != nil {
		if err := x.config.Regions.Rebooted(x.m.Cluster.Name, x.m.Node.Name); err != nil {
			x.config.Log.Warn("the leases of a node's former boot end only with their time", "node", x.m.Node.Name, "error", err)
		}
	}
	x.event(boot.Event{Kind: boot.NodeBoot, Detail: "boot " + id})
	return x.answer(http.StatusOK, nodeapi.Boot{Token: token, Boot: id, Node: x.m.Node.Name, Cluster: x.m.Cluster.Name, Digest: x.m.Digest})
}

// plan is GET plan.
func (x *exchange) plan() *refusal {
	p, ok := x.config.Plan(x.from.Addr())
	if !ok {
		return refuse(http.StatusNotFound, "no node has the address %v any more", x.from.Addr())
	}
	return x.answer(http.StatusOK, p)
}

func (x *exchange) answer(status int, body any) *refusal {
	data, err := json.Marshal(body)
	if err != nil {
		return x.broken(err)
	}
	h := x.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", fmt.Sprint(len(data)+1))
	x.w.WriteHeader(status)
	_, _ = x.w.Write(append(data, '\n'))
	return nil
}

// fail answers with an error, and tells of it unless the node only asks too
// soon or for what another has.
func (x *exchange) fail(no *refusal) {
	body := no.body
	if body == nil {
		body = nodeapi.Problem{Error: no.err.Error()}
	}
	x.answer(no.status, body)
	if no.status != http.StatusConflict && x.quiet.Open(x.config.Now()) {
		x.event(boot.Event{Kind: boot.NodeRefused, File: text(x.r.URL.Path), Error: text(no.err.Error())})
	}
}

// event sends an event of this node.
func (x *exchange) event(e boot.Event) {
	e.Time, e.Node, e.Addr = x.config.Now(), x.m.Node.Name, x.from.Addr()
	if e.Digest == "" {
		e.Digest = x.m.Digest
	}
	if len(x.m.Node.MACs) > 0 {
		e.MAC = x.m.Node.MACs[0]
	}
	x.config.Events.Send(e)
}

// bad is the answer to a body that cannot be understood.
func bad(err error) *refusal { return &refusal{status: http.StatusBadRequest, err: err} }

// Run watches for nodes that fall silent, until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	tick := time.NewTicker(min(s.config.Heartbeat, time.Second*5))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			s.Look()
		}
	}
}

var errNone = errors.New("this server has no writable exports to lease")
