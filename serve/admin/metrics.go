// Package admin is what serve shows to its operators on the admin address:
// metrics for Prometheus and a page of the nodes. It changes nothing.
package admin

import (
	"strings"
	"sync"
	"time"

	"rhizome/serve/boot"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Metric is one of the numbers that other parts of serve are asked for when
// metrics are read.
type Metric struct {
	// Name is without the "rhizome_" before it; Labels names Sample's values.
	Name, Help string
	Labels     []string
	// Gauge is set for what may fall.
	Gauge bool
	// Read hands every value to add.
	Read func(add func(value float64, labels ...string))
}

// Board keeps what serve's events say of each node. Its methods are safe for use
// by many goroutines.
type Board struct {
	now     func() time.Time
	metrics []Metric
	descs   []*prometheus.Desc

	mu     sync.Mutex
	counts map[count]*tally
	nodes  map[string]*boot.Tracker
}

// count is what is counted: a kind of event of a node. Cards and addresses of no
// node share the empty name, so that strangers cannot make labels.
type count struct {
	node string
	kind boot.Kind
}

type tally struct{ events, bytes float64 }

// The descriptions of what the events give.
var (
	eventsDesc = prometheus.NewDesc("rhizome_events_total", "What serve saw of each node, by protocol and kind of event.", []string{"node", "proto", "kind"}, nil)
	bytesDesc  = prometheus.NewDesc("rhizome_sent_bytes_total", "Bytes of whole answers, by node and protocol.", []string{"node", "proto", "kind"}, nil)
	stateDesc  = prometheus.NewDesc("rhizome_node_state", "1 for the state that a node is in: unseen, booting, stuck, up or silent.", []string{"node", "state"}, nil)
	seenDesc   = prometheus.NewDesc("rhizome_node_last_seen_seconds", "When a step of the node's boot was last seen, as Unix time.", []string{"node"}, nil)
	infoDesc   = prometheus.NewDesc("rhizome_node_info", "1, with the manifest that the node boots from.", []string{"node", "digest"}, nil)
)

// NewBoard makes a board; more are metrics beside those of events.
func NewBoard(now func() time.Time, more ...Metric) *Board {
	b := &Board{now: now, metrics: more, counts: map[count]*tally{}, nodes: map[string]*boot.Tracker{}}
	for _, m := range more {
		b.descs = append(b.descs, prometheus.NewDesc("rhizome_"+m.Name, m.Help, m.Labels, nil))
	}
	return b
}

// Expect lists nodes that nothing was seen of yet.
func (b *Board) Expect(nodes ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, n := range nodes {
		if b.nodes[n] == nil {
			b.nodes[n] = &boot.Tracker{}
		}
	}
}

// Take counts an event; it is a boot.Sink.
func (b *Board) Take(e boot.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := count{e.Node, e.Kind}
	t := b.counts[key]
	if t == nil {
		t = &tally{}
		b.counts[key] = t
	}
	t.events++
	t.bytes += float64(e.Bytes)
	if e.Node == "" {
		return
	}
	if b.nodes[e.Node] == nil {
		b.nodes[e.Node] = &boot.Tracker{}
	}
	b.nodes[e.Node].Add(e)
}

// Gatherer gives all metrics, with those of the process.
func (b *Board) Gatherer() prometheus.Gatherer {
	r := prometheus.NewRegistry()
	r.MustRegister(b, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Describe is prometheus.Collector's.
func (b *Board) Describe(out chan<- *prometheus.Desc) {
	for _, d := range append([]*prometheus.Desc{eventsDesc, bytesDesc, stateDesc, seenDesc, infoDesc}, b.descs...) {
		out <- d
	}
}

// Collect is prometheus.Collector's.
func (b *Board) Collect(out chan<- prometheus.Metric) {
	b.collectCounts(out)
	for _, s := range b.Nodes() {
		out <- prometheus.MustNewConstMetric(stateDesc, prometheus.GaugeValue, 1, s.Node, string(s.Diagnosis.State))
		if !s.LastSeen.IsZero() {
			out <- prometheus.MustNewConstMetric(seenDesc, prometheus.GaugeValue, float64(s.LastSeen.UnixMilli())/1000, s.Node)
		}
		if s.Digest != "" {
			out <- prometheus.MustNewConstMetric(infoDesc, prometheus.GaugeValue, 1, s.Node, s.Digest)
		}
	}
	for i, m := range b.metrics {
		kind := prometheus.CounterValue
		if m.Gauge {
			kind = prometheus.GaugeValue
		}
		m.Read(func(value float64, labels ...string) {
			out <- prometheus.MustNewConstMetric(b.descs[i], kind, value, labels...)
		})
	}
}

func (b *Board) collectCounts(out chan<- prometheus.Metric) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, t := range b.counts {
		proto, _, _ := strings.Cut(string(key.kind), ".")
		labels := []string{key.node, proto, string(key.kind)}
		out <- prometheus.MustNewConstMetric(eventsDesc, prometheus.CounterValue, t.events, labels...)
		if t.bytes > 0 {
			out <- prometheus.MustNewConstMetric(bytesDesc, prometheus.CounterValue, t.bytes, labels...)
		}
	}
}
