package node

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"rhizome/serve/boot"
	"rhizome/serve/node/nodeapi"
)

// report is POST report.
func (x *exchange) report() *refusal {
	v, err := decodeReport(x.r.Body)
	if err != nil {
		return bad(err)
	}
	e := boot.Event{Kind: boot.NodeStep, File: v.Step, Bytes: v.Bytes, Detail: v.State + uptime(v.Uptime)}
	if v.State == nodeapi.Failed {
		e.Error = v.Message
	} else if v.Message != "" {
		e.Detail += ": " + v.Message
	}
	x.event(e)
	return x.done()
}

func (x *exchange) done() *refusal {
	x.w.WriteHeader(http.StatusNoContent)
	return nil
}

// uptime is seconds since power-on as text, or nothing.
func uptime(seconds float64) string {
	if !(seconds > 0 && seconds < 1e10) {
		return ""
	}
	return fmt.Sprintf(" at %.1fs", seconds)
}

// up is POST up.
func (x *exchange) up() *refusal {
	v, err := decodeUp(x.r.Body)
	if err != nil {
		return bad(err)
	}
	x.event(boot.Event{Kind: boot.NodeUp, Detail: fmt.Sprintf("kernel %q root %q%s bundle=%d tmpfs=%d memory=%d free=%d",
		v.Kernel, v.Root, uptime(v.Uptime), v.BundleBytes, v.TmpfsBytes, v.MemTotal, v.MemFree), Error: x.otherRoot(v)})
	return x.beat(v)
}

// otherRoot says so where the node runs from another image than is known here.
func (x *exchange) otherRoot(v nodeapi.Up) string {
	if v.Digest == "" || v.Digest == x.m.Digest {
		return ""
	}
	return fmt.Sprintf("the node runs from %s, and not from %s", v.Digest, x.m.Digest)
}

// heartbeat is POST heartbeat.
func (x *exchange) heartbeat() *refusal {
	v, err := decodeUp(x.r.Body)
	if err != nil {
		return bad(err)
	}
	return x.beat(v)
}

// beat notes that the node lives.
func (x *exchange) beat(v nodeapi.Up) *refusal {
	if err := x.tokens.beats(x.m.Cluster.Name, x.m.Node.Name, true); err != nil {
		return x.broken(err)
	}
	now := x.config.Now()
	silent := x.pulse.beat(Status{Node: x.m.Node.Name, Cluster: x.m.Cluster.Name, Addr: x.from.Addr(), Boot: x.boot, Seen: now, Last: v})
	if silent > 0 {
		x.event(boot.Event{Kind: boot.NodeBack, Took: silent, Detail: "it was silent that long"})
	}
	return x.answer(http.StatusOK, nodeapi.Beat{Interval: int(x.config.Heartbeat.Seconds())})
}

// job is POST job.
func (x *exchange) job() *refusal {
	v, err := decodeJob(x.r.Body)
	if err != nil {
		return bad(err)
	}
	e := boot.Event{Kind: boot.NodeJobBegin, Detail: v.Name}
	if v.State == nodeapi.End {
		e.Kind = boot.NodeJobEnd
		if v.Exit != 0 {
			e.Error = fmt.Sprintf("it ended with exit code %d", v.Exit)
		}
	}
	x.event(e)
	return x.done()
}

// Status is what is known of a node that sends heartbeats.
type Status struct {
	Node    string
	Cluster string
	Addr    netip.Addr
	// Boot names the boot it is in.
	Boot string
	// Seen is when it last told that it lives, and Last what it told.
	Seen time.Time
	Last nodeapi.Up
	// Silent is set when it did not for three heartbeats.
	Silent bool
}

// pulse is who told when that it lives.
type pulse struct {
	mu    sync.Mutex
	nodes map[string]Status
}

// beat notes a heartbeat; it tells how long the node was silent before, where
// that had become an event.
func (p *pulse) beat(s Status) (silent time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.nodes == nil {
		p.nodes = map[string]Status{}
	}
	if old := p.nodes[s.Node]; old.Silent {
		silent = max(s.Seen.Sub(old.Seen), 1)
	}
	p.nodes[s.Node] = s
	return silent
}

// forget begins anew with a node that boots.
func (p *pulse) forget(node string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.nodes, node)
}

// late marks and gives the nodes that were last seen before a time.
func (p *pulse) late(before time.Time) []Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []Status
	for name, s := range p.nodes {
		if !s.Silent && s.Seen.Before(before) {
			s.Silent = true
			p.nodes[name] = s
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b Status) int { return a.Addr.Compare(b.Addr) })
	return all
}

// silence is how many heartbeats a node may miss.
const silence = 3

// Look makes an event of each node that fell silent since the last look. Run
// calls it from time to time.
func (s *Server) Look() {
	now := s.config.Now()
	for _, n := range s.pulse.late(now.Add(-silence * s.config.Heartbeat)) {
		s.config.Events.Send(boot.Event{Time: now, Kind: boot.NodeSilent, Node: n.Node, Addr: n.Addr, Took: now.Sub(n.Seen),
			Error: fmt.Sprintf("no heartbeat for %v: it hangs, is switched off, or cannot reach this server", now.Sub(n.Seen).Round(time.Second))})
	}
}

// Expect waits for the heartbeats of a node that sent some before the server
// was started anew.
func (s *Server) Expect(cluster, node string, addr netip.Addr) {
	if s.tokens.expected(cluster, node) {
		s.pulse.beat(Status{Node: node, Cluster: cluster, Addr: addr, Seen: s.config.Now()})
	}
}

// Nodes gives what is known of nodes that send heartbeats, by name.
func (s *Server) Nodes() map[string]Status {
	s.pulse.mu.Lock()
	defer s.pulse.mu.Unlock()
	all := make(map[string]Status, len(s.pulse.nodes))
	for name, n := range s.pulse.nodes {
		all[name] = n
	}
	return all
}
