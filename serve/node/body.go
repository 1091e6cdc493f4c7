package node

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"rhizome/serve/boot"
)

// stall is how long a client may take for the next piece of a long body, and
// patience how long the server may take to carry a commit out.
const (
	stall    = 60 * time.Second
	patience = time.Hour
)

// tree is GET leases/ID/tree: the region as one tar. An error in the middle
// cuts the connection, and the client sees a body that does not end.
func (x *exchange) tree(id string) *refusal {
	out := &slowWriter{w: x.w, control: http.NewResponseController(x.w)}
	noReadDeadline(out.control)
	began := x.config.Now()
	x.w.Header().Set("Content-Type", "application/x-tar")
	err := x.config.Regions.Stream(x.r.Context(), x.holder(), id, out)
	if err != nil && out.sent == 0 {
		x.w.Header().Del("Content-Type")
		return x.leaseTrouble(boot.NodeLeaseRefused, id, err)
	}
	e := boot.Event{Kind: boot.NodeStream, Bytes: out.sent, Took: x.config.Now().Sub(began), Detail: "lease " + text(id)}
	if err != nil {
		e.Error = text(err.Error())
		x.event(e)
		panic(http.ErrAbortHandler)
	}
	x.event(e)
	return nil
}

// commit is POST leases/ID/commit?id=COMMIT with a tar of changes.
func (x *exchange) commit(id string) *refusal {
	commit := x.r.URL.Query().Get("id")
	if len(commit) > 100 {
		return refuse(http.StatusBadRequest, "a commit's id has at most 100 bytes")
	}
	control := http.NewResponseController(x.w)
	in := &slowReader{r: x.r.Body, control: control}
	began := x.config.Now()
	done, err := x.config.Regions.Commit(x.r.Context(), x.holder(), id, commit, in)
	_ = control.SetWriteDeadline(time.Now().Add(stall))
	if err != nil {
		return x.leaseTrouble(boot.NodeConflict, id, err)
	}
	x.event(boot.Event{Kind: boot.NodeCommit, Bytes: in.got, Took: x.config.Now().Sub(began), Detail: fmt.Sprintf("lease %s", text(id))})
	return x.answer(http.StatusOK, done)
}

// slowWriter gives each piece of a body its own deadline: a slow client gets
// all, a silent one is let go.
type slowWriter struct {
	w       io.Writer
	control *http.ResponseController
	sent    int64
}

func (s *slowWriter) Write(p []byte) (int, error) {
	_ = s.control.SetWriteDeadline(time.Now().Add(stall))
	n, err := s.w.Write(p)
	s.sent += int64(n)
	return n, err
}

// slowReader is the same for a body that comes. Deadlines are the
// connection's: the one for writing is moved on too, for after the body.
type slowReader struct {
	r       io.Reader
	control *http.ResponseController
	got     int64
}

func (s *slowReader) Read(p []byte) (int, error) {
	now := time.Now()
	_ = s.control.SetReadDeadline(now.Add(stall))
	_ = s.control.SetWriteDeadline(now.Add(patience))
	n, err := s.r.Read(p)
	s.got += int64(n)
	if errors.Is(err, io.EOF) {
		noReadDeadline(s.control)
	}
	return n, err
}

// noReadDeadline lets the answer take its time: net/http goes on reading, to
// find out whether the client is gone, and would take the server's timeout for
// that and end the request's context.
func noReadDeadline(c *http.ResponseController) { _ = c.SetReadDeadline(time.Time{}) }
