package early

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"rhizome/cmd/rhizome-node/internal/agent"
	"rhizome/serve/node/nodeapi"
)

// session is one boot's talk with the early script.
type session struct {
	ctx     context.Context
	out     io.Writer
	console io.Writer
	// dir is where this boot's token, server and plan lie.
	dir    string
	system system
	// connect makes the way to a server; sleep waits, or ends with ctx.
	connect func(host, token string) server
	sleep   func(context.Context, time.Duration) error

	server server
	plan   nodeapi.Plan
	// nfs is the way to blobs that HTTP does not give.
	nfs    *overNFS
	report *reporter
	// background is what goes on after its answer was given.
	background sync.WaitGroup
}

func newSession(ctx context.Context, out, console io.Writer, dir string, sys system) *session {
	s := &session{ctx: ctx, out: out, console: console, dir: dir, system: sys, sleep: sleep}
	s.connect = func(host, token string) server { return &agent.Client{Server: host, Token: token} }
	s.report = newReporter(s)
	return s
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// run answers until the script says end, or is gone.
func (s *session) run(in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 64<<10)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "end" {
			break
		}
		s.answer(line)
	}
	s.background.Wait()
	s.nfs.close()
	s.report.end()
	return lines.Err()
}

func (s *session) answer(line string) {
	word, rest, _ := strings.Cut(line, " ")
	switch {
	case strings.HasPrefix(line, "report\t"):
		f := append(strings.SplitN(line, "\t", 4), "", "")
		s.tell(f[1], f[2], f[3], 0)
	case word == "hello":
		s.say(s.hello(rest))
	case word == "fill":
		s.fill(rest)
	case word == "ram":
		s.say(s.ram(rest))
	case word == "bundle":
		s.bundle(rest)
	case word == "layer":
		s.say(s.layerFile(rest))
	default:
		s.say(nodeapi.Failed, fmt.Sprintf("a question that nobody understands: %.80q", line))
	}
}

// say answers the script: in one line, whatever an error holds.
func (s *session) say(state, message string) {
	fmt.Fprintf(s.out, "%s %s\n", state, strings.Join(strings.Fields(message), " "))
}

// tell has the server told of a step.
func (s *session) tell(step, state, message string, bytes int64) {
	s.report.put(nodeapi.Report{Step: step, State: state, Message: message, Bytes: bytes, Uptime: s.system.Uptime().Seconds()})
}

// failed tells of a step that failed and gives the answer.
func (s *session) failed(step string, err error) (state, message string) {
	s.tell(step, nodeapi.Failed, err.Error(), 0)
	return nodeapi.Failed, err.Error()
}

// done tells of a step that went well and gives the answer.
func (s *session) done(step, message string, bytes int64) (string, string) {
	s.tell(step, nodeapi.OK, message, bytes)
	return nodeapi.OK, message
}

// helloTries is how often the server is asked before the node goes on without
// it, with a pause between: it gave the root a moment ago.
const (
	helloTries = 2
	helloPause = time.Second
)

// hello gets the token and the plan.
func (s *session) hello(host string) (state, message string) {
	if host == "" {
		host = agent.ServerOfKernel()
	}
	if host == "" {
		return nodeapi.Failed, "the kernel's command line names no server"
	}
	s.server = s.connect(host, "")
	var err error
	for range helloTries {
		if err = s.begin(host); err == nil || !agent.IsNetwork(err) {
			break
		}
		if s.sleep(s.ctx, helloPause) != nil {
			break
		}
	}
	if err != nil {
		return nodeapi.Failed, err.Error()
	}
	s.report.start()
	return nodeapi.OK, fmt.Sprintf("node %s of %s, root %s", s.plan.Node, s.plan.Cluster, s.plan.Root)
}

func (s *session) begin(host string) error {
	plan, err := s.server.Plan(s.ctx)
	if err != nil {
		return err
	}
	boot, err := s.server.Boot(s.ctx)
	if err != nil {
		return err
	}
	s.plan, s.server = plan, s.connect(host, boot.Token)
	s.nfs = &overNFS{system: s.system, export: plan.Blobs, dir: filepath.Join(s.dir, "blobs")}
	if err := agent.Save(s.dir, host, boot.Token); err != nil {
		return fmt.Errorf("keeping this boot's token: %w", err)
	}
	return os.WriteFile(filepath.Join(s.dir, "plan"), []byte(shellPlan(plan)), 0o644)
}

// shellPlan is what the script wants to know of the plan, as its own variables.
func shellPlan(p nodeapi.Plan) string {
	var b strings.Builder
	set := func(name, value string) {
		fmt.Fprintf(&b, "plan_%s='%s'\n", name, strings.ReplaceAll(value, "'", `'\''`))
	}
	set("root", p.Root)
	set("layers", strconv.Itoa(len(p.Layers)))
	if p.Bundle != nil {
		set("folders", strings.Join(p.Bundle.Folders, "\n"))
	}
	for name, m := range map[string]*nodeapi.Mount{"persist": p.Persist, "shared": p.Shared, "etc": etcOf(p)} {
		if m != nil {
			set(name, m.Export)
		}
	}
	return b.String()
}

func etcOf(p nodeapi.Plan) *nodeapi.Mount {
	for i := range p.CopyOnWrite {
		if p.CopyOnWrite[i].Path == "/etc" {
			return &p.CopyOnWrite[i]
		}
	}
	return nil
}

var errNoPlan = errors.New("there is no plan: the server could not be asked")
