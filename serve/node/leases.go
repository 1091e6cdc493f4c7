package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"rhizome/serve/boot"
	"rhizome/serve/node/nodeapi"
)

// Regions leases parts of the writable exports; serve/volume does it. Errors
// are of nodeapi's types; all else is the server's trouble.
type Regions interface {
	Lease(ctx context.Context, h nodeapi.Holder, req nodeapi.LeaseRequest) (nodeapi.Lease, error)
	Renew(h nodeapi.Holder, id string, ttl time.Duration) (nodeapi.Lease, error)
	Free(h nodeapi.Holder, id string) error
	List(cluster string) ([]nodeapi.Lease, error)
	// Stream writes the region as one tar, and notes its version for the lease.
	Stream(ctx context.Context, h nodeapi.Holder, id string, w io.Writer) error
	// Commit takes a tar of changes. The same commit may come again when its
	// answer was lost; id tells.
	Commit(ctx context.Context, h nodeapi.Holder, id, commit string, r io.Reader) (nodeapi.Committed, error)
	// Rebooted ends all leases of a node.
	Rebooted(cluster, node string) error
}

func (x *exchange) holder() nodeapi.Holder {
	return nodeapi.Holder{Cluster: x.m.Cluster.Name, Node: x.m.Node.Name, Boot: x.boot, Addr: x.from.Addr()}
}

// leases routes the paths below nodeapi.PathLeases.
func (x *exchange) leases() *refusal {
	if x.config.Regions == nil {
		return &refusal{status: http.StatusNotFound, err: errNone}
	}
	rest := strings.Trim(strings.TrimPrefix(x.r.URL.Path, nodeapi.PathLeases), "/")
	id, what, _ := strings.Cut(rest, "/")
	serve := map[string]func(string) *refusal{
		"POST":        func(string) *refusal { return x.lease() },
		"GET":         func(string) *refusal { return x.listLeases() },
		"PUT ID":      x.renew,
		"DELETE ID":   x.free,
		"GET tree":    x.tree,
		"POST commit": x.commit,
	}[strings.TrimSpace(x.r.Method+" "+routeOf(id, what))]
	if serve == nil {
		return refuse(http.StatusNotFound, "there is no %s %q in the node API", x.r.Method, text(x.r.URL.Path))
	}
	return serve(id)
}

func routeOf(id, what string) string {
	switch {
	case id == "":
		return ""
	case what == "":
		return "ID"
	}
	return what
}

func decodeLease(r io.Reader) (nodeapi.LeaseRequest, error) {
	var v nodeapi.LeaseRequest
	if err := decode(r, &v); err != nil {
		return v, err
	}
	if v.Mode != nodeapi.Write && v.Mode != nodeapi.Read {
		return v, fmt.Errorf("a lease's mode is write or read, not %q", text(v.Mode))
	}
	if len(v.Paths) == 0 || len(v.Paths) > nodeapi.MaxPaths {
		return v, fmt.Errorf("a lease has 1 to %d paths, not %d", nodeapi.MaxPaths, len(v.Paths))
	}
	for _, p := range v.Paths {
		if err := checkPath(p); err != nil {
			return v, err
		}
	}
	return v, nil
}

// checkPath wants a path absolute and clean: two spellings of one region must
// not be two regions.
func checkPath(p string) error {
	if !strings.HasPrefix(p, "/") || len(p) > 4096 || strings.ContainsRune(p, 0) {
		return fmt.Errorf("%q is no absolute path", text(p))
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(p[1:], "/"), "/") {
		if name == "" || name == "." || name == ".." || len(name) > 255 {
			return fmt.Errorf("%q is not written plainly: no empty name, \".\" or \"..\"", text(p))
		}
	}
	return nil
}

func ttlOf(seconds int) time.Duration {
	if seconds <= 0 {
		return nodeapi.DefaultTTL
	}
	return min(max(time.Duration(min(seconds, 1<<20))*time.Second, nodeapi.MinTTL), nodeapi.MaxTTL)
}

func (x *exchange) lease() *refusal {
	req, err := decodeLease(x.r.Body)
	if err != nil {
		return bad(err)
	}
	req.TTL = int(ttlOf(req.TTL).Seconds())
	// To list a large region may take longer than the server's timeouts; a node
	// that was not told would leave the region leased to nobody.
	control := http.NewResponseController(x.w)
	noReadDeadline(control)
	_ = control.SetWriteDeadline(time.Now().Add(patience))
	l, err := x.config.Regions.Lease(x.r.Context(), x.holder(), req)
	if err != nil {
		return x.leaseTrouble(boot.NodeLeaseRefused, strings.Join(req.Paths, " "), err)
	}
	x.event(boot.Event{Kind: boot.NodeLease, File: text(strings.Join(l.Paths, " ")), Bytes: l.Bytes,
		Detail: fmt.Sprintf("%s lease %s, %d files", l.Mode, l.ID, l.Files)})
	return x.answer(http.StatusCreated, l)
}

func (x *exchange) listLeases() *refusal {
	all, err := x.config.Regions.List(x.m.Cluster.Name)
	if err != nil {
		return x.broken(err)
	}
	return x.answer(http.StatusOK, nodeapi.Leases{Leases: all})
}

func (x *exchange) renew(id string) *refusal {
	var v nodeapi.LeaseRequest
	if err := decode(x.r.Body, &v); err != nil {
		return bad(err)
	}
	l, err := x.config.Regions.Renew(x.holder(), id, ttlOf(v.TTL))
	if err != nil {
		return x.leaseTrouble(boot.NodeLeaseRefused, id, err)
	}
	return x.answer(http.StatusOK, l)
}

func (x *exchange) free(id string) *refusal {
	if err := x.config.Regions.Free(x.holder(), id); err != nil {
		return x.leaseTrouble(boot.NodeLeaseRefused, id, err)
	}
	x.event(boot.Event{Kind: boot.NodeLeaseFreed, Detail: "lease " + id})
	return x.done()
}

// leaseTrouble makes an answer and an event of what a lease failed with.
func (x *exchange) leaseTrouble(kind boot.Kind, file string, err error) *refusal {
	var conflict *nodeapi.ConflictError
	var missing *nodeapi.MissingError
	var input *nodeapi.InputError
	var full *nodeapi.FullError
	no := &refusal{err: err}
	switch {
	case errors.As(err, &conflict):
		no.status, no.body = http.StatusConflict, conflict.Conflict
	case errors.As(err, &full):
		no.status = http.StatusInsufficientStorage
	case errors.As(err, &missing):
		no.status = http.StatusNotFound
	case errors.As(err, &input):
		no.status = http.StatusBadRequest
	case errors.Is(err, context.Canceled):
		no.status = http.StatusRequestTimeout
	default:
		return x.broken(err)
	}
	if no.status == http.StatusConflict || no.status == http.StatusInsufficientStorage {
		x.event(boot.Event{Kind: kind, File: text(file), Error: text(err.Error())})
	}
	return no
}
