// Package simulate boots machines that are not there: each of them speaks DHCP,
// HTTP, portmap, MOUNT and NFS to a server as a Linux node does between power-on
// and its login prompt, over sockets, and computes nothing. So a whole rack fits
// one process, and what is measured is the server.
package simulate

import (
	"net/netip"
	"sync"
	"time"
)

// Plan is what is simulated. It is JSON for the process that runs it in a
// network namespace.
type Plan struct {
	Server netip.Addr `json:"server"`
	// Relay is an address of this host that DHCP is sent from, as a relay's:
	// with it one host may ask for many (RFC 2131, section 4.1, "giaddr").
	Relay netip.Addr `json:"relay"`
	Nodes []Node     `json:"nodes"`
	// Files are what each node reads from its root, absolute, symbolic links
	// resolved.
	Files []string `json:"files"`
}

// Node is one machine. Its address is one of this host's.
type Node struct {
	Name string     `json:"name"`
	MAC  string     `json:"mac"`
	Addr netip.Addr `json:"addr"`
}

// Counts are what one node did in one protocol.
type Counts struct {
	// Calls are requests that were answered; Again were sent once more.
	Calls int64 `json:"calls"`
	Again int64 `json:"again,omitempty"`
	// Bytes are what came back, in files and replies.
	Bytes int64         `json:"bytes"`
	Took  time.Duration `json:"took"`
}

// Boot is what became of one node.
type Boot struct {
	Node string            `json:"node"`
	Took time.Duration     `json:"took"`
	By   map[string]Counts `json:"by"`
	// Error is empty for a node that came up.
	Error string `json:"error,omitempty"`
}

// The protocols that a boot goes through, in this order.
var protocols = []string{"dhcp", "http", "portmap", "mount", "nfs"}

// Run boots all nodes at once and returns when the last one is up or has
// failed.
func Run(p Plan, now func() time.Time) ([]Boot, error) {
	relay, err := newRelay(p)
	if err != nil {
		return nil, err
	}
	defer relay.close()
	boots := make([]Boot, len(p.Nodes))
	var all sync.WaitGroup
	for i, n := range p.Nodes {
		all.Go(func() {
			m := &machine{plan: &p, node: n, relay: relay, now: now, by: map[string]Counts{}}
			boots[i] = m.boot()
		})
	}
	all.Wait()
	return boots, nil
}

// machine is a node that boots.
type machine struct {
	plan  *Plan
	node  Node
	relay *relay
	now   func() time.Time
	by    map[string]Counts
	// count is that of the protocol being spoken.
	count Counts
}

func (m *machine) boot() Boot {
	start := m.now()
	b := Boot{Node: m.node.Name, By: m.by}
	for i, step := range []func() error{m.lease, m.fetch, m.askPorts, m.mountRoot, m.read} {
		began := m.now()
		m.count = Counts{}
		err := step()
		m.count.Took = m.now().Sub(began)
		m.by[protocols[i]] = m.count
		if err != nil {
			b.Error = protocols[i] + ": " + err.Error()
			break
		}
	}
	b.Took = m.now().Sub(start)
	return b
}
