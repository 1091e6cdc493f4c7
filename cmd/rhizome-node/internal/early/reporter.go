package early

import (
	"context"
	"fmt"
	"time"

	"rhizome/cmd/rhizome-node/internal/agent"
	"rhizome/serve/node/nodeapi"
)

// maxReports bounds what waits to be told.
const maxReports = 256

// farewell is how long the last reports may take, where the server is away.
const farewell = 2 * time.Minute

// reporter tells the server of steps, in their order, while the boot goes on.
type reporter struct {
	s       *session
	queue   chan nodeapi.Report
	started bool
	stop    context.CancelFunc
	done    chan struct{}
}

func newReporter(s *session) *reporter {
	return &reporter{s: s, queue: make(chan nodeapi.Report, maxReports), done: make(chan struct{})}
}

// put takes a report; one too many is lost: the console has it.
func (r *reporter) put(v nodeapi.Report) {
	v.Message = v.Message[:min(len(v.Message), nodeapi.MaxText)]
	select {
	case r.queue <- v:
	default:
	}
}

// start begins to send, once there is a token.
func (r *reporter) start() {
	if r.started {
		return
	}
	r.started = true
	ctx, stop := context.WithCancel(r.s.ctx)
	r.stop = stop
	go r.send(ctx)
}

func (r *reporter) send(ctx context.Context) {
	defer close(r.done)
	for v := range r.queue {
		for wait := time.Second; ctx.Err() == nil; wait = min(2*wait, 15*time.Second) {
			err := r.s.server.Report(ctx, v)
			if err == nil {
				break
			}
			if !agent.IsNetwork(err) {
				fmt.Fprintf(r.s.console, "rhizome-early: telling the server of %s: %v\n", v.Step, err)
				break
			}
			_ = r.s.sleep(ctx, wait)
		}
	}
}

// end waits until all is told, for as long as a farewell may take.
func (r *reporter) end() {
	close(r.queue)
	if !r.started {
		return
	}
	late := time.AfterFunc(farewell, r.stop)
	<-r.done
	late.Stop()
	r.stop()
}
