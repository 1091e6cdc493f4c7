package admin

import (
	"cmp"
	"encoding/json"
	"html/template"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"rhizome/serve/boot"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Status is a node as the page and the API show it.
type Status struct {
	Node      string         `json:"node"`
	Digest    string         `json:"digest,omitempty"`
	LastSeen  time.Time      `json:"lastSeen,omitzero"`
	Diagnosis boot.Diagnosis `json:"diagnosis"`
}

// Nodes lists the nodes, as people count.
func (b *Board) Nodes() []Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]Status, 0, len(b.nodes))
	for name, t := range b.nodes {
		last := t.Boot()
		s := Status{Node: name, Digest: last.Digest, Diagnosis: boot.Diagnose(last, b.now())}
		if len(last.Events) > 0 {
			s.LastSeen = last.Last()
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(x, y Status) int {
		return cmp.Or(cmp.Compare(len(x.Node), len(y.Node)), cmp.Compare(x.Node, y.Node))
	})
	return all
}

// Metrics answers Prometheus.
func (b *Board) Metrics() http.Handler {
	return promhttp.HandlerFor(b.Gatherer(), promhttp.HandlerOpts{})
}

// page is plain: it is read over a slow line, by a terminal's browser.
var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>rhizome</title>
<style>body{font-family:monospace}td,th{text-align:left;padding:0 1em 0 0;vertical-align:top}.stuck,.silent{color:#b00}</style></head>
<body><h1>rhizome</h1>
<p>{{range $state, $n := .Totals}}{{$n}} {{$state}} {{end}}</p>
<table><tr><th>node<th>state<th>it<th>last seen<th>manifest<th>missing, why, what to do</tr>
{{range .Nodes}}<tr><td>{{.Node}}<td class="{{.Diagnosis.State}}">{{.Diagnosis.State}}<td>{{.Diagnosis.Stage}}<td>{{if not .LastSeen.IsZero}}{{.LastSeen.UTC.Format "2006-01-02 15:04:05"}} UTC{{end}}<td>{{printf "%.19s" .Digest}}<td>{{.Diagnosis.Missing}}{{with .Diagnosis.Why}}: {{.}}{{end}}{{with .Diagnosis.Do}}<br>{{.}}{{end}}</tr>
{{end}}</table>
<p><a href="/nodes.json">nodes.json</a> <a href="/metrics">metrics</a> <a href="/v2/_catalog">registry</a></p></body></html>
`))

// Page answers / with the nodes for people, and /nodes.json for programs. log may
// be nil.
func (b *Board) Page(log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		nodes, totals := b.Nodes(), map[boot.State]int{}
		for _, n := range nodes {
			totals[n.Diagnosis.State]++
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		tell(log, page.Execute(w, map[string]any{"Nodes": nodes, "Totals": totals}))
	})
	mux.HandleFunc("GET /nodes.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		tell(log, json.NewEncoder(w).Encode(b.Nodes()))
	})
	return mux
}

// tell notes an answer that broke off: its reader knows already.
func tell(log *slog.Logger, err error) {
	if err != nil && log != nil {
		log.Debug("answering on the admin address", "error", err)
	}
}
