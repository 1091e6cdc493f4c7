// Package agent is a node's side of the node API (serve/node/nodeapi): finding
// the server, the token of this boot, and one method for each thing to ask or
// tell. Every method makes one request and does not try again; IsNetwork tells
// whether that could help.
package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"time"

	"rhizome/cmd/rhizome-node/internal/wire"
	"rhizome/serve/node/nodeapi"
)

// Client asks one server.
type Client struct {
	// Server is HOST or HOST:PORT; the port is 80 unless it says otherwise.
	Server string
	// Token is this boot's; empty for what needs none.
	Token string
}

// StatusError is an answer that is no success.
type StatusError struct {
	Status int
	// Message is the server's sentence. Conflict is what it said with status
	// 409, Body the answer's first bytes where it was not understood.
	Message  string
	Conflict nodeapi.Conflict
}

func (e *StatusError) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("the server answers with status %d", e.Status)
	}
	return e.Message
}

// IsNetwork tells whether an error came from the way to the server, or from a
// server that cannot just now: to try again may help.
func IsNetwork(err error) bool {
	var status *StatusError
	if errors.As(err, &status) {
		return status.Status == 429 || status.Status >= 500 && status.Status != 507 // no room
	}
	return err != nil && !errors.Is(err, context.Canceled)
}

// Status gives the HTTP status of an error, or 0.
func Status(err error) int {
	var status *StatusError
	if errors.As(err, &status) {
		return status.Status
	}
	return 0
}

func (c *Client) dialer(reserved bool) wire.Dialer { return c.dialerOf(reserved, 0) }

func (c *Client) dialerOf(reserved bool, window int) wire.Dialer {
	addr := c.Server
	if _, _, err := net.SplitHostPort(addr); err != nil {
		addr = net.JoinHostPort(addr, "80")
	}
	return wire.Dialer{Addr: addr, Reserved: reserved, Window: window}
}

// Boot begins a boot: the token it gives is good until the next. Only root can.
func (c *Client) Boot(ctx context.Context) (b nodeapi.Boot, err error) {
	return b, c.call(ctx, "POST", nodeapi.PathBoot, true, nil, &b)
}

// Plan asks what this node boots from.
func (c *Client) Plan(ctx context.Context) (p nodeapi.Plan, err error) {
	return p, c.call(ctx, "GET", nodeapi.PathPlan, false, nil, &p)
}

// Report tells of a step.
func (c *Client) Report(ctx context.Context, r nodeapi.Report) error {
	return c.call(ctx, "POST", nodeapi.PathReport, false, r, nil)
}

// Up tells that the node is up, and Heartbeat that it still is; both say how
// long until the next heartbeat.
func (c *Client) Up(ctx context.Context, u nodeapi.Up) (time.Duration, error) {
	return c.beat(ctx, nodeapi.PathUp, u)
}

// Heartbeat tells that the node lives.
func (c *Client) Heartbeat(ctx context.Context, u nodeapi.Up) (time.Duration, error) {
	return c.beat(ctx, nodeapi.PathHeartbeat, u)
}

func (c *Client) beat(ctx context.Context, path string, u nodeapi.Up) (time.Duration, error) {
	var b nodeapi.Beat
	err := c.call(ctx, "POST", path, false, u, &b)
	if b.Interval < 1 || b.Interval > 3600 {
		return nodeapi.DefaultHeartbeat, err
	}
	return time.Duration(b.Interval) * time.Second, err
}

// Job tells that a named job begins or ends.
func (c *Client) Job(ctx context.Context, j nodeapi.Job) error {
	return c.call(ctx, "POST", nodeapi.PathJob, false, j, nil)
}

// Lease leases a region.
func (c *Client) Lease(ctx context.Context, r nodeapi.LeaseRequest) (l nodeapi.Lease, err error) {
	return l, c.call(ctx, "POST", nodeapi.PathLeases, false, r, &l)
}

// Renew begins a lease's time again.
func (c *Client) Renew(ctx context.Context, id string, ttl time.Duration) (l nodeapi.Lease, err error) {
	r := nodeapi.LeaseRequest{TTL: int(ttl.Seconds())}
	return l, c.call(ctx, "PUT", nodeapi.PathLeases+"/"+id, false, r, &l)
}

// Free ends a lease.
func (c *Client) Free(ctx context.Context, id string) error {
	return c.call(ctx, "DELETE", nodeapi.PathLeases+"/"+id, false, nil, nil)
}

// Leases lists those of the cluster.
func (c *Client) Leases(ctx context.Context) (l nodeapi.Leases, err error) {
	return l, c.call(ctx, "GET", nodeapi.PathLeases, false, nil, &l)
}

// Tree streams a leased region as one tar. The caller closes it.
func (c *Client) Tree(ctx context.Context, id string) (io.ReadCloser, error) {
	return c.stream(ctx, wire.Request{Method: "GET", Path: nodeapi.PathLeases + "/" + id + "/tree", Header: c.header(), Wait: commitWait}, c.dialer(false))
}

// commitWait is how long the server may take to read or to change a region.
const commitWait = time.Hour

// Commit sends a tar of changes. commit names it: the same one can be sent
// again when the answer was lost.
func (c *Client) Commit(ctx context.Context, id, commit string, changes io.Reader) (d nodeapi.Committed, err error) {
	path := nodeapi.PathLeases + "/" + id + "/commit?id=" + url.QueryEscape(commit)
	resp, err := c.dialer(false).Do(ctx, wire.Request{Method: "POST", Path: path, Header: c.header(), Body: changes, Length: -1, Wait: commitWait})
	if err != nil {
		return d, err
	}
	defer resp.Close()
	return d, understand(resp, &d)
}

// Get fetches a URL's path from this server, from a byte on, asking from a
// reserved port. window bounds the bytes on their way, 0 does not. The body fails
// where it ends too early.
func (c *Client) Get(ctx context.Context, path string, from int64, window int) (io.ReadCloser, error) {
	r := wire.Request{Method: "GET", Path: path, Header: map[string]string{}}
	if from > 0 {
		r.Header["Range"] = "bytes=" + strconv.FormatInt(from, 10) + "-"
	}
	return c.stream(ctx, r, c.dialerOf(true, window))
}

func (c *Client) stream(ctx context.Context, r wire.Request, by wire.Dialer) (io.ReadCloser, error) {
	resp, err := by.Do(ctx, r)
	if err != nil {
		return nil, err
	}
	if resp.Status >= 300 || r.Header["Range"] != "" && resp.Status != 206 {
		defer resp.Close()
		return nil, problem(resp)
	}
	return struct {
		io.Reader
		io.Closer
	}{resp.Body, resp}, nil
}

func (c *Client) header() map[string]string {
	if c.Token == "" {
		return map[string]string{}
	}
	return map[string]string{"Authorization": "Bearer " + c.Token}
}

// call asks with a JSON body and takes a JSON answer; either may be nil.
func (c *Client) call(ctx context.Context, method, path string, reserved bool, body, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	r := wire.Request{Method: method, Path: path, Header: c.header()}
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return err
		}
		r.Body, r.Length = bytes.NewReader(data), int64(len(data))
	}
	resp, err := c.dialer(reserved).Do(ctx, r)
	if err != nil {
		return err
	}
	defer resp.Close()
	return understand(resp, answer)
}

// maxAnswer bounds a JSON answer in bytes: a plan of many layers, or a list of
// leases.
const maxAnswer = 8 << 20

func understand(resp *wire.Response, answer any) error {
	if resp.Status >= 300 {
		return problem(resp)
	}
	if answer == nil {
		return nil
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if err := json.Unmarshal(data, answer); err != nil {
		return fmt.Errorf("understanding the answer %.100q: %w", data, err)
	}
	return nil
}

// problem makes an error of an answer that is no success.
func problem(resp *wire.Response) error {
	e := &StatusError{Status: resp.Status}
	data, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if json.Unmarshal(data, &e.Conflict) == nil && e.Conflict.Error != "" {
		e.Message = e.Conflict.Error
	} else if len(data) > 0 {
		e.Message = fmt.Sprintf("the server answers with status %d: %.200s", resp.Status, bytes.TrimSpace(data))
	}
	return e
}

// ConflictOf gives what the server said of a conflict, or nil.
func ConflictOf(err error) *nodeapi.Conflict {
	var status *StatusError
	if errors.As(err, &status) && status.Status == 409 {
		return &status.Conflict
	}
	return nil
}
