package admin

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"rhizome/serve/boot"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// rack is a board on which n1 is up, n2 has found no file, and n3 never came.
func rack(t *testing.T, more ...Metric) *httptest.Server {
	t.Helper()
	b := NewBoard(func() time.Time { return noon }, more...)
	b.Expect("n1", "n3")
	for _, e := range []boot.Event{
		{Kind: boot.DHCPAck, Node: "n1", Client: "iPXE (BIOS)"},
		{Kind: boot.HTTPDone, Node: "n1", File: "/vmlinuz", Bytes: 8000},
		{Kind: boot.HTTPDone, Node: "n1", File: "/initrd", Bytes: 9000},
		{Kind: boot.NFSInit, Node: "n1", Digest: "sha256:aa"},
		{Kind: boot.DHCPAck, Node: "n2", Client: "BIOS PXE", File: "pxelinux.0"},
		{Kind: boot.TFTPNotFound, Node: "n2", File: "pxelinux.0", Error: `there is no <b>"pxelinux.0"`},
		{Kind: boot.DHCPUnknown, MAC: "52:54:00:00:00:01"},
		{Kind: boot.DHCPUnknown, MAC: "52:54:00:00:00:02"},
	} {
		e.Time = noon
		b.Take(e)
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", b.Metrics())
	mux.Handle("/", b.Page(nil))
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func get(t *testing.T, url string) string {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, r.Status, err)
	}
	return string(body)
}

func TestMetricsCountEachNodeAndProtocol(t *testing.T) {
	s := rack(t, Metric{Name: "nfs_calls_total", Help: "NFS calls.", Labels: []string{"node", "procedure"},
		Read: func(add func(float64, ...string)) { add(7, "n1", "LOOKUP") }})
	text := get(t, s.URL+"/metrics")
	for _, want := range []string{
		`rhizome_events_total{kind="http.done",node="n1",proto="http"} 2`,
		`rhizome_sent_bytes_total{kind="http.done",node="n1",proto="http"} 17000`,
		// Strangers share a line, however many cards they have.
		`rhizome_events_total{kind="dhcp.unknown-mac",node="",proto="dhcp"} 2`,
		`rhizome_node_state{node="n1",state="up"} 1`,
		`rhizome_node_state{node="n2",state="stuck"} 1`,
		`rhizome_node_state{node="n3",state="unseen"} 1`,
		`rhizome_node_info{digest="sha256:aa",node="n1"} 1`,
		`rhizome_nfs_calls_total{node="n1",procedure="LOOKUP"} 7`,
		"# TYPE rhizome_nfs_calls_total counter",
		"process_resident_memory_bytes ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in:\n%s", want, text)
		}
	}
}

func TestThePageSaysWhyANodeIsStuck(t *testing.T) {
	s := rack(t)
	text := get(t, s.URL+"/")
	for _, want := range []string{"1 stuck 1 unseen 1 up", "a boot program: there is no &lt;b&gt;", "boot spec", `class="stuck"`} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	var nodes []struct {
		Node      string
		Diagnosis struct{ State, Missing string }
	}
	if err := json.Unmarshal([]byte(get(t, s.URL+"/nodes.json")), &nodes); err != nil {
		t.Fatal(err)
	}
	if len(nodes) != 3 || nodes[1].Node != "n2" || nodes[1].Diagnosis.State != "stuck" || nodes[1].Diagnosis.Missing != "the fetch of a boot program" {
		t.Errorf("%+v", nodes)
	}
	r, err := http.Post(s.URL+"/", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST is answered %s", r.Status)
	}
}
