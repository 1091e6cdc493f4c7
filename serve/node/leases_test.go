package node

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"rhizome/serve/boot"
	"rhizome/serve/node/nodeapi"
)

// regions answers as it is told to.
type regions struct {
	err    error
	holder nodeapi.Holder
	// slow is how long Lease, Stream and Commit take.
	slow time.Duration
	body string
}

func (r *regions) Lease(ctx context.Context, h nodeapi.Holder, req nodeapi.LeaseRequest) (nodeapi.Lease, error) {
	r.holder = h
	return nodeapi.Lease{ID: "L", Paths: req.Paths, Mode: req.Mode}, r.work(ctx)
}

func (r *regions) Renew(nodeapi.Holder, string, time.Duration) (nodeapi.Lease, error) {
	return nodeapi.Lease{ID: "L"}, r.err
}
func (r *regions) Free(nodeapi.Holder, string) error    { return r.err }
func (r *regions) List(string) ([]nodeapi.Lease, error) { return []nodeapi.Lease{{ID: "L"}}, r.err }
func (r *regions) Rebooted(string, string) error        { return errors.New("another server has them") }

// work takes its time, and ends early with the request.
func (r *regions) work(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(r.slow):
		return r.err
	}
}

func (r *regions) Stream(ctx context.Context, _ nodeapi.Holder, _ string, w io.Writer) error {
	if _, err := io.WriteString(w, strings.Repeat("a tar ", 10_000)); err != nil {
		return err
	}
	return r.work(ctx)
}

func (r *regions) Commit(ctx context.Context, _ nodeapi.Holder, _, _ string, body io.Reader) (nodeapi.Committed, error) {
	data, err := io.ReadAll(body)
	r.body = string(data)
	return nodeapi.Committed{Version: "v2"}, errors.Join(err, r.work(ctx))
}

var lease = nodeapi.LeaseRequest{Paths: []string{"/shared/src"}, Mode: nodeapi.Write, TTL: 60}

func TestEachRefusalOfALeaseHasItsStatus(t *testing.T) {
	w := newWorld(t)
	r := &regions{}
	w.node.config.Regions = r
	root := w.boots("127.0.0.1")
	if status, body := root.ask("POST", nodeapi.PathLeases, lease); status != 201 || r.holder.Node != "n1" || r.holder.Boot == "" || r.holder.Addr != netip.MustParseAddr("127.0.0.1") {
		t.Fatalf("%d %s for %+v", status, body, r.holder)
	}
	for _, c := range []struct {
		err    error
		status int
	}{
		{nil, 200},
		{&nodeapi.ConflictError{Conflict: nodeapi.Conflict{Error: "n2 has it", Holder: "n2", Kept: "/shared/.kept/x"}}, 409},
		{&nodeapi.MissingError{Err: errors.New("gone")}, 404},
		{&nodeapi.InputError{Err: errors.New("no such export")}, 400},
		{&nodeapi.FullError{Err: errors.New("no room")}, 507},
		{errors.New("the disk burns"), 500},
	} {
		r.err = c.err
		status, body := root.ask("POST", nodeapi.PathLeases+"/L/commit?id=1", "the changes")
		if status != c.status {
			t.Errorf("%v: %d %s", c.err, status, body)
		}
		var conflict nodeapi.Conflict
		if err := json.Unmarshal([]byte(body), &conflict); err != nil || c.err != nil && conflict.Error == "" || c.status == 409 && conflict.Kept == "" {
			t.Errorf("%v: the answer is %s", c.err, body)
		}
	}
	if w.last(boot.NodeConflict).Error == "" || r.body != "the changes" {
		t.Errorf("the event is %+v, the body %q", w.last(boot.NodeConflict), r.body)
	}
}

func TestPathsThatCouldMeanTwoThingsAreRefused(t *testing.T) {
	w := newWorld(t)
	w.node.config.Regions = &regions{}
	root := w.boots("127.0.0.1")
	for _, p := range []string{"", "shared/src", "/", "/shared/../etc", "/shared//src", "/shared/./src", "/shared/\x00"} {
		req := lease
		req.Paths = []string{p}
		if status, body := root.ask("POST", nodeapi.PathLeases, req); status != 400 {
			t.Errorf("%q: %d %s", p, status, body)
		}
	}
	for method, path := range map[string]string{"PATCH": "", "GET": "/L/what", "DELETE": "/L/tree"} {
		if status, _ := root.ask(method, nodeapi.PathLeases+path, ""); status != 404 {
			t.Errorf("%s %s: %d", method, path, status)
		}
	}
}

// A region may take longer than the server's timeout for a request, to be listed as to
// be read.
func TestARegionOutlivesTheTimeoutOfARequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.boots("127.0.0.1")
	w.node.config.Regions = &regions{slow: 3 * time.Second}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m, _ := machine(netip.MustParseAddr("127.0.0.1"))
	server := &http.Server{ReadTimeout: 2 * time.Second, WriteTimeout: 2 * time.Second,
		Handler: http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) { w.node.Handle(out, r, m) })}
	go server.Serve(ln)
	defer server.Close()
	w.addr = ln.Addr().String()
	if status, body := root.ask("POST", nodeapi.PathLeases, lease); status != 201 {
		t.Errorf("the lease: %d %s", status, body)
	}
	if status, body := root.ask("GET", nodeapi.PathLeases+"/L/tree", ""); status != 200 || len(body) != 60_000 {
		t.Errorf("the stream: %d, %d bytes", status, len(body))
	}
	if status, body := root.ask("POST", nodeapi.PathLeases+"/L/commit", strings.Repeat("x", 100_000)); status != 200 {
		t.Errorf("the commit: %d %s", status, body)
	}
}
