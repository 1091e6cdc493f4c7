package node

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"rhizome/registry/imagefmt"
	"rhizome/serve/boot"
	"rhizome/serve/bootspec"
	httpd "rhizome/serve/http"
	"rhizome/serve/node/nodeapi"
)

// world is a store's secrets and the servers on it, one after another. Its
// nodes are 127.0.0.1 (n1) and 127.0.0.2 (n2).
type world struct {
	*testing.T
	dir  string
	node *Server
	addr string
	stop func()

	mu     sync.Mutex
	now    time.Time
	events []boot.Event
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, dir: t.TempDir(), now: time.Unix(1_700_000_000, 0)}
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) later(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func machine(a netip.Addr) (bootspec.Machine, bool) {
	name := map[string]string{"127.0.0.1": "n1", "127.0.0.2": "n2"}[a.String()]
	m := bootspec.Machine{Digest: "sha256:" + strings.Repeat("a", 64)}
	m.Cluster.Name = "c"
	m.Node = imagefmt.Node{Name: name, Address: a, MACs: []string{"52:54:00:00:00:01"}}
	return m, name != ""
}

// start starts a server anew on what is on the disk.
func (w *world) start() {
	w.Helper()
	w.node = New(Config{
		Plan:    func(a netip.Addr) (nodeapi.Plan, bool) { return nodeapi.Plan{Node: "n1", Root: "nfs"}, true },
		Secrets: w.secrets, Events: w.note, Now: w.clock,
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	web := &httpd.Server{Machines: machine, Under: map[string]func(http.ResponseWriter, *http.Request, bootspec.Machine){nodeapi.Prefix: w.node.Handle}}
	ctx, cancel := context.WithCancel(w.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := web.Serve(ctx, ln); err != nil {
			w.Error(err)
		}
	}()
	w.addr = ln.Addr().String()
	w.stop = func() { cancel(); <-ended }
}

func (w *world) secrets(cluster, node string) (string, error) {
	dir := filepath.Join(w.dir, cluster, node)
	return dir, os.MkdirAll(dir, 0o700)
}

func (w *world) note(e boot.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
}

// last is the last event of a kind.
func (w *world) last(k boot.Kind) boot.Event {
	w.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := len(w.events) - 1; i >= 0; i-- {
		if w.events[i].Kind == k {
			return w.events[i]
		}
	}
	w.Fatalf("there is no event %s among %v", k, w.events)
	return boot.Event{}
}

func (w *world) count(k boot.Kind) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		if e.Kind == k {
			n++
		}
	}
	return n
}

// who is a program on a node.
type who struct {
	*world
	ip    string
	port  int // 0 is any
	token string
}

func (p who) ask(method, path string, body any) (int, string) {
	p.Helper()
	data, raw := body.(string)
	if !raw {
		b, err := json.Marshal(body)
		if err != nil {
			p.Fatal(err)
		}
		data = string(b)
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(p.ip), Port: p.port}, Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1) })
	}}
	client := http.Client{Transport: &http.Transport{DialContext: d.DialContext, DisableKeepAlives: true}}
	r, err := http.NewRequestWithContext(p.Context(), method, "http://"+p.addr+path, strings.NewReader(data))
	if err != nil {
		p.Fatal(err)
	}
	if p.token != "" {
		r.Header.Set("Authorization", "Bearer "+p.token)
	}
	resp, err := client.Do(r)
	if err != nil {
		p.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		p.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

// boots gives root on a node the token of a new boot.
func (w *world) boots(ip string) who {
	w.Helper()
	for port := 700; ; port++ {
		if l, err := net.Listen("tcp", net.JoinHostPort(ip, fmt.Sprint(port))); err != nil {
			continue
		} else {
			l.Close()
		}
		status, body := who{world: w, ip: ip, port: port}.ask("POST", nodeapi.PathBoot, "")
		var b nodeapi.Boot
		if err := json.Unmarshal([]byte(body), &b); err != nil || status != 200 || b.Token == "" || b.Boot == "" {
			w.Fatalf("boot answers %d %s", status, body)
		}
		return who{world: w, ip: ip, token: b.Token}
	}
}

var step = nodeapi.Report{Step: "tmpfs", State: "ok", Message: "64M on /tmp", Uptime: 3.5}

func TestOnlyRootGetsATokenAndOnlyATokenReports(t *testing.T) {
	w := newWorld(t)
	if status, body := (who{world: w, ip: "127.0.0.1"}).ask("POST", nodeapi.PathBoot, ""); status != 403 {
		t.Errorf("a user's port got %d %s", status, body)
	}
	for _, token := range []string{"", "x", strings.Repeat("0", 64)} {
		if status, body := (who{world: w, ip: "127.0.0.1", token: token}).ask("POST", nodeapi.PathReport, step); status != 401 && status != 403 {
			t.Errorf("the token %q got %d %s", token, status, body)
		}
	}
	root := w.boots("127.0.0.1")
	if status, body := root.ask("POST", nodeapi.PathReport, step); status != 204 {
		t.Fatalf("the report got %d %s", status, body)
	}
	if e := w.last(boot.NodeStep); e.Node != "n1" || e.File != "tmpfs" || !strings.Contains(e.Detail, "64M on /tmp") {
		t.Errorf("the event is %+v", e)
	}
	if status, _ := (who{world: w, ip: "127.0.0.2", token: root.token}).ask("POST", nodeapi.PathReport, step); status != 403 {
		t.Errorf("another node used the token and got %d", status)
	}
}

func TestATokenOutlivesTheServerAndEndsWithTheNextBoot(t *testing.T) {
	w := newWorld(t)
	first := w.boots("127.0.0.1")
	w.stop()
	w.start()
	if status, body := first.ask("POST", nodeapi.PathReport, step); status != 204 {
		t.Fatalf("after a restart of the server: %d %s", status, body)
	}
	second := w.boots("127.0.0.1")
	if status, _ := first.ask("POST", nodeapi.PathReport, step); status != 403 {
		t.Errorf("the former boot's token got %d", status)
	}
	if status, _ := second.ask("POST", nodeapi.PathReport, step); status != 204 {
		t.Errorf("the new boot's token got %d", status)
	}
}

func TestWhatCannotBeUnderstoodIsRefusedWithASentence(t *testing.T) {
	w := newWorld(t)
	root := w.boots("127.0.0.1")
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", nodeapi.PathReport, `{"step":"a","state":"maybe"}`, 400},
		{"POST", nodeapi.PathReport, `{"step":"a\nb","state":"ok"}`, 400},
		{"POST", nodeapi.PathReport, `{"step":"a","state":"ok"} x`, 400},
		{"POST", nodeapi.PathReport, `not json`, 400},
		{"POST", nodeapi.PathReport, `{"step":"` + strings.Repeat("a", nodeapi.MaxBody) + `"}`, 400},
		{"GET", nodeapi.PathReport, ``, 405},
		{"POST", nodeapi.Prefix + "nothing", ``, 404},
		{"POST", nodeapi.PathJob, `{"name":"build","state":"going"}`, 400},
		{"POST", nodeapi.PathLeases, `{"paths":["/shared/x"],"mode":"write"}`, 404},
	} {
		status, body := root.ask(c.method, c.path, c.body)
		var p nodeapi.Problem
		if err := json.Unmarshal([]byte(body), &p); status != c.status || err != nil || p.Error == "" {
			t.Errorf("%s %s %.40q: %d %s", c.method, c.path, c.body, status, body)
		}
	}
}

func TestAJobHasABeginningAndAnEnd(t *testing.T) {
	w := newWorld(t)
	root := w.boots("127.0.0.1")
	root.ask("POST", nodeapi.PathJob, nodeapi.Job{Name: "build", State: "begin"})
	root.ask("POST", nodeapi.PathJob, nodeapi.Job{Name: "build", State: "end", Exit: 3})
	if b, e := w.last(boot.NodeJobBegin), w.last(boot.NodeJobEnd); b.Detail != "build" || e.Detail != "build" || !strings.Contains(e.Error, "code 3") {
		t.Errorf("events %+v and %+v", b, e)
	}
}

func TestANodeThatFallsSilentIsToldOfOnceAndAgainWhenItIsBack(t *testing.T) {
	w := newWorld(t)
	root := w.boots("127.0.0.1")
	up := nodeapi.Up{Kernel: "6.1", Root: "nfs", Uptime: 20, MemTotal: 1 << 30}
	if status, body := root.ask("POST", nodeapi.PathUp, up); status != 200 || !strings.Contains(body, `"interval":30`) {
		t.Fatalf("up got %d %s", status, body)
	}
	if e := w.last(boot.NodeUp); !strings.Contains(e.Detail, `kernel "6.1"`) {
		t.Errorf("the event is %+v", e)
	}
	w.later(80 * time.Second)
	w.node.Look()
	if n := w.count(boot.NodeSilent); n != 0 {
		t.Errorf("%d events of silence too early", n)
	}
	w.later(20 * time.Second)
	w.node.Look()
	w.node.Look()
	if n := w.count(boot.NodeSilent); n != 1 {
		t.Fatalf("%d events of silence", n)
	}
	root.ask("POST", nodeapi.PathHeartbeat, up)
	root.ask("POST", nodeapi.PathHeartbeat, up)
	if n := w.count(boot.NodeBack); n != 1 || w.last(boot.NodeBack).Took != 100*time.Second {
		t.Errorf("%d events that it is back, %+v", n, w.last(boot.NodeBack))
	}
	w.stop()
	w.start()
	w.node.Expect("c", "n1", netip.MustParseAddr("127.0.0.1"))
	w.node.Expect("c", "n2", netip.MustParseAddr("127.0.0.2"))
	w.later(100 * time.Second)
	w.node.Look()
	if n := w.count(boot.NodeSilent); n != 2 || w.last(boot.NodeSilent).Node != "n1" {
		t.Errorf("after a restart: %d events of silence", n)
	}
}

func TestAFloodIsSlowedDown(t *testing.T) {
	w := newWorld(t)
	p := who{world: w, ip: "127.0.0.2"}
	var slowed bool
	for range burst + 1 {
		status, _ := p.ask("GET", nodeapi.PathPlan, "")
		slowed = slowed || status == 429
	}
	if !slowed {
		t.Error("no request was refused")
	}
	if status, _ := (who{world: w, ip: "127.0.0.1"}).ask("GET", nodeapi.PathPlan, ""); status != 200 {
		t.Errorf("another node got %d", status)
	}
	w.later(time.Second)
	if status, _ := p.ask("GET", nodeapi.PathPlan, ""); status != 200 {
		t.Errorf("a second later it got %d", status)
	}
}

// FuzzBodies: whatever a node sends is an error or within its bounds.
func FuzzBodies(f *testing.F) {
	for _, s := range []string{`{"step":"fill","state":"ok","bytes":-1}`, `{"name":"b","state":"end","exit":1}`, `{"kernel":"x","uptime":1e400}`,
		`{"paths":["/shared/a"],"mode":"write","ttl":9}`, `[]`, ``} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if v, err := decodeReport(bytes.NewReader(data)); err == nil && (v.Bytes < 0 || len(v.Message) > 2*nodeapi.MaxText || v.Step == "") {
			t.Errorf("%+v", v)
		}
		if v, err := decodeUp(bytes.NewReader(data)); err == nil && strings.ContainsAny(v.Kernel, "\n\x00") {
			t.Errorf("%+v", v)
		}
		if v, err := decodeJob(bytes.NewReader(data)); err == nil && (v.Name == "" || len(v.Name) > 100) {
			t.Errorf("%+v", v)
		}
		if v, err := decodeLease(bytes.NewReader(data)); err == nil {
			for _, p := range v.Paths {
				if !filepath.IsAbs(p) || strings.Contains(p+"/", "/../") {
					t.Errorf("path %q", p)
				}
			}
		}
	})
}
