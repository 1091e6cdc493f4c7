package early

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"rhizome/cmd/rhizome-node/internal/agent"
	"rhizome/serve/node/nodeapi"
)

// fakeServer is a server whose faults a test chooses.
type fakeServer struct {
	mu      sync.Mutex
	plan    nodeapi.Plan
	blobs   map[string][]byte
	reports []string
	// fail, if set, may refuse a call by its name.
	fail func(call string) error
	// body, if set, changes what a blob's body is read through.
	body func(path string, from int64, r io.Reader) io.Reader
	// windows are those that blobs were asked for with.
	windows []int
}

func (f *fakeServer) refused(call string) error {
	if f.fail == nil {
		return nil
	}
	return f.fail(call)
}

func (f *fakeServer) Boot(context.Context) (nodeapi.Boot, error) {
	return nodeapi.Boot{Token: "secret"}, f.refused("boot")
}

func (f *fakeServer) Plan(context.Context) (nodeapi.Plan, error) { return f.plan, f.refused("plan") }

func (f *fakeServer) Report(_ context.Context, r nodeapi.Report) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.refused("report"); err != nil {
		return err
	}
	f.reports = append(f.reports, r.Step+" "+r.State)
	return nil
}

func (f *fakeServer) Get(_ context.Context, path string, from int64, window int) (io.ReadCloser, error) {
	if err := f.refused("get"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.windows = append(f.windows, window)
	f.mu.Unlock()
	var r io.Reader = bytes.NewReader(f.blobs[path][from:])
	if f.body != nil {
		r = f.body(path, from, r)
	}
	return io.NopCloser(r), nil
}

// fakeSystem notes what would have been mounted.
type fakeSystem struct {
	total, free int64
	mounted     map[string]bool
	did         []string
	// blobs are what NFS has, by name; nil refuses every mount.
	blobs map[string][]byte
	// over is what was laid over a folder last.
	over map[string]string
}

func (f *fakeSystem) Memory() (int64, int64, error) { return f.total, f.free, nil }
func (f *fakeSystem) Tmpfs(dir string, size int64) error {
	f.did = append(f.did, "tmpfs")
	return nil
}
func (f *fakeSystem) Overlay(folders []string, on string) error {
	f.did = append(f.did, "overlay "+on)
	if f.over == nil {
		f.over = map[string]string{}
	}
	f.over[on] = strings.Join(folders, ":")
	return nil
}
func (f *fakeSystem) Mounted(dir string) bool { return f.mounted[dir] }
func (f *fakeSystem) Behind() error           { f.did = append(f.did, "behind"); return nil }
func (f *fakeSystem) Unmount(dir string) error {
	if f.did = append(f.did, "unmount"); filepath.Base(dir) != "blobs" {
		return nil
	}
	return os.RemoveAll(dir)
}
func (f *fakeSystem) NFS(export, dir string) error {
	f.did = append(f.did, "nfs "+export)
	if f.blobs == nil {
		return errors.New("connection refused")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for name, body := range f.blobs {
		if err := os.WriteFile(filepath.Join(dir, name), body, 0o400); err != nil {
			return err
		}
	}
	return nil
}
func (f *fakeSystem) Uptime() time.Duration { return time.Second }
func (f *fakeSystem) NFSCalls() int64       { return 0 }

func bundleOf(t *testing.T, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range files {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(name)), Mode: 0o644, Uid: os.Getuid(), Gid: os.Getgid()}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, name)
	}
	w.Close()
	return b.Bytes()
}

func layerOf(data []byte) nodeapi.Layer {
	sum := sha256.Sum256(data)
	digest := hex.EncodeToString(sum[:])
	return nodeapi.Layer{URL: "http://server/blobs/sha256/" + digest, Digest: "sha256:" + digest, Size: int64(len(data)), Uncompressed: int64(len(data))}
}

// talk runs a session over some questions and returns its answers.
func talk(t *testing.T, srv *fakeServer, sys *fakeSystem, dir, questions string) (answers []string, console string) {
	t.Helper()
	if sys.total == 0 {
		sys.total, sys.free = 1<<30, 1<<30
	}
	var out, said bytes.Buffer
	s := newSession(t.Context(), &out, &said, dir, sys)
	s.connect = func(string, string) server { return srv }
	s.sleep = func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
	if err := s.run(strings.NewReader(questions)); err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(out.String()), "\n"), said.String()
}

func precachePlan(data []byte) (nodeapi.Plan, map[string][]byte) {
	l := layerOf(data)
	return nodeapi.Plan{Node: "n1", Cluster: "c", Root: "precache", Bundle: &l,
		Persist:     &nodeapi.Mount{Path: "/persist", Export: "s:/persist/n1"},
		CopyOnWrite: []nodeapi.Mount{{Path: "/etc", Export: "s:/cow/n1/e'tc"}}}, map[string][]byte{pathOf(l.URL): data}
}

func TestABootsTalkWithItsServer(t *testing.T) {
	data := bundleOf(t, "usr/bin/a", "var/lib/b", "etc/c")
	plan, blobs := precachePlan(data)
	srv, dir := &fakeServer{plan: plan, blobs: blobs}, t.TempDir()
	sys := &fakeSystem{mounted: map[string]bool{"/var": true}}
	bundle := t.TempDir()
	answers, _ := talk(t, srv, sys, dir, "hello 10.0.0.1\nreport\ttmpfs /tmp\tok\t\nfill "+bundle+"\nwhat\nend\nnever heard\n")
	want := []string{"ok node n1 of c, root precache", "ok 0.0 MB in 3 entries lie over /etc /usr", `failed a question that nobody understands: "what"`}
	if strings.Join(answers, "\n") != strings.Join(want, "\n") {
		t.Errorf("answers\n%s", strings.Join(answers, "\n"))
	}
	if got := strings.Join(srv.reports, ", "); got != "tmpfs /tmp ok, precache ok" {
		t.Errorf("the server heard %s", got)
	}
	if got := strings.Join(sys.did, ", "); got != "tmpfs, overlay /etc, overlay /usr" {
		t.Errorf("the machine did %s", got)
	}
	for name, want := range map[string]string{"token": "secret\n", "server": "10.0.0.1\n",
		"plan": "plan_root='precache'\n"} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !strings.Contains(string(got), want) {
			t.Errorf("%s holds %q, %v", name, got, err)
		}
	}
	if text, _ := os.ReadFile(filepath.Join(dir, "plan")); !strings.Contains(string(text), `plan_etc='s:/cow/n1/e'\''tc'`) {
		t.Errorf("the shell would read %s", text)
	}
	if info, err := os.Stat(filepath.Join(dir, "token")); err != nil || info.Mode().Perm() != 0o400 {
		t.Errorf("the token's mode: %v, %v", info, err)
	}
}

// Each fault has a defined end: the boot goes on, and console and server know.
func TestABrokenBundleIsSlowerNotDead(t *testing.T) {
	data := bundleOf(t, "usr/bin/a", "usr/bin/b")
	flip := bytes.Clone(data)
	flip[600] ^= 1
	for name, c := range map[string]struct {
		change func(*fakeServer, *fakeSystem)
		answer string
		heard  string
	}{
		"damaged": {func(s *fakeServer, _ *fakeSystem) { s.blobs[pathOf(s.plan.Bundle.URL)] = flip },
			"failed going on without the bundle: the blob has the digest sha256:", "precache failed"},
		"cut off": {func(s *fakeServer, _ *fakeSystem) { s.blobs[pathOf(s.plan.Bundle.URL)] = data[:700] },
			"failed going on without the bundle: reading a layer: after 700 of ", "precache failed"},
		"the server is gone": {func(s *fakeServer, _ *fakeSystem) {
			s.fail = func(call string) error {
				if call == "get" {
					return errors.New("connection refused")
				}
				return nil
			}
		}, "failed going on without the bundle: decompressing a layer: after 0 of ", "precache failed"},
		"no memory": {func(_ *fakeServer, s *fakeSystem) { s.total, s.free = 256<<20, 65<<20 },
			"skipped 68.2 MB of memory are free, too little for a bundle of", "precache skipped"},
		"no bundle": {func(s *fakeServer, _ *fakeSystem) { s.plan.Bundle = nil },
			"skipped the image has no bundle", "precache skipped"},
	} {
		t.Run(name, func(t *testing.T) {
			plan, blobs := precachePlan(data)
			srv, sys := &fakeServer{plan: plan, blobs: blobs}, &fakeSystem{}
			if name == "no memory" {
				srv.plan.Bundle.Uncompressed = 1 << 30
			}
			c.change(srv, sys)
			answers, _ := talk(t, srv, sys, t.TempDir(), "hello s\nfill "+t.TempDir()+"\nend\n")
			if len(answers) != 2 || !strings.HasPrefix(answers[1], c.answer) {
				t.Errorf("answers %q, want %q", answers, c.answer)
			}
			if got := strings.Join(srv.reports, ", "); got != c.heard {
				t.Errorf("the server heard %q, want %q", got, c.heard)
			}
			if strings.Contains(strings.Join(sys.did, ","), "overlay") {
				t.Errorf("something was laid over the root: %v", sys.did)
			}
		})
	}
}

// A server that is killed and comes back in the middle costs time alone.
func TestAFillGoesOnWhereTheConnectionBroke(t *testing.T) {
	data := bundleOf(t, "usr/bin/a", "usr/bin/b", "usr/bin/c")
	plan, blobs := precachePlan(data)
	var froms []int64
	srv := &fakeServer{plan: plan, blobs: blobs}
	srv.body = func(_ string, from int64, r io.Reader) io.Reader {
		froms = append(froms, from)
		return io.LimitReader(r, 1000)
	}
	answers, _ := talk(t, srv, &fakeSystem{}, t.TempDir(), "hello s\nfill "+t.TempDir()+"\nend\n")
	if !strings.HasPrefix(answers[1], "ok ") || len(froms) < 3 || froms[1] != 1000 {
		t.Errorf("%q, connections began at %v", answers, froms)
	}
}

// gate lets a reader through when the test says so.
type gate struct {
	r    io.Reader
	open chan struct{}
}

func (g gate) Read(p []byte) (int, error) {
	<-g.open
	return g.r.Read(p)
}

// On a slow link the script goes on at once; the bundle is laid when it has all
// come, after userland is up.
func TestASlowLinkDoesNotHoldTheBoot(t *testing.T) {
	data := bundleOf(t, "usr/bin/a", "usr/bin/b")
	plan, blobs := precachePlan(data)
	srv, sys, dir := &fakeServer{plan: plan, blobs: blobs}, &fakeSystem{total: 1 << 30, free: 1 << 30}, t.TempDir()
	open := make(chan struct{})
	srv.body = func(_ string, _ int64, r io.Reader) io.Reader { return gate{r, open} }
	in, ask := io.Pipe()
	answers, out := io.Pipe()
	var console bytes.Buffer
	s := newSession(t.Context(), out, &console, dir, sys)
	s.connect = func(string, string) server { return srv }
	ended := make(chan error)
	go func() { ended <- s.run(in) }()
	fmt.Fprintf(ask, "hello s\n")
	readLine(t, answers)
	fmt.Fprintf(ask, "fill %s\n", t.TempDir())
	if got := readLine(t, answers); !strings.HasPrefix(got, "later the link is slow") {
		t.Fatalf("the answer is %q", got)
	}
	if len(sys.did) != 1 {
		t.Errorf("before the bundle was there the machine did %v", sys.did)
	}
	if err := os.WriteFile(filepath.Join(dir, upFile), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	close(open)
	fmt.Fprintln(ask, "end")
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(srv.reports, ", "); got != "precache skipped, precache ok" {
		t.Errorf("the server heard %q", got)
	}
	if !strings.Contains(console.String(), "precache: ok") {
		t.Errorf("the console says %q", console.String())
	}
}

func readLine(t *testing.T, r io.Reader) string {
	t.Helper()
	var line []byte
	for b := make([]byte, 1); ; {
		if _, err := r.Read(b); err != nil {
			t.Fatal(err)
		}
		if b[0] == '\n' {
			return string(line)
		}
		line = append(line, b[0])
	}
}

func TestWithoutAServerTheScriptIsTold(t *testing.T) {
	calls := 0
	srv := &fakeServer{fail: func(string) error { calls++; return errors.New("no route to host") }}
	answers, _ := talk(t, srv, &fakeSystem{}, t.TempDir(), "hello s\nfill /x\nram /x\nend\n")
	want := "failed no route to host\nfailed there is no plan: the server could not be asked\nfailed there is no plan: the server could not be asked"
	if strings.Join(answers, "\n") != want || calls != helloTries {
		t.Errorf("%d calls, answers\n%s", calls, strings.Join(answers, "\n"))
	}
	// A server that refuses is not asked again.
	calls = 0
	srv.fail = func(string) error {
		calls++
		return &agent.StatusError{Status: 403, Message: "no node of this cluster"}
	}
	if talk(t, srv, &fakeSystem{}, t.TempDir(), "hello s\nend\n"); calls != 1 {
		t.Errorf("it was asked %d times", calls)
	}
}

func TestReportsWaitForAServerThatIsAway(t *testing.T) {
	plan, blobs := precachePlan(bundleOf(t, "usr/a"))
	away := 3
	srv := &fakeServer{plan: plan, blobs: blobs}
	srv.fail = func(call string) error {
		if call == "report" && away > 0 {
			away--
			return errors.New("connection refused")
		}
		return nil
	}
	talk(t, srv, &fakeSystem{}, t.TempDir(), "hello s\nreport\ta\tok\tx\nreport\tb\tfailed\ty\nend\n")
	if got := strings.Join(srv.reports, ", "); got != "a ok, b failed" {
		t.Errorf("the server heard %q", got)
	}
}

func TestTheWholeRootIsReadInOrderAndVerified(t *testing.T) {
	base, upper := bundleOf(t, "bin/sh", "etc/old"), bundleOf(t, "etc/.wh.old", "etc/new")
	plan := nodeapi.Plan{Node: "n1", Root: "ram", Layers: []nodeapi.Layer{layerOf(base), layerOf(upper)}}
	srv := &fakeServer{plan: plan, blobs: map[string][]byte{pathOf(plan.Layers[0].URL): base, pathOf(plan.Layers[1].URL): upper}}
	dir := t.TempDir()
	answers, _ := talk(t, srv, &fakeSystem{}, t.TempDir(), "hello s\nram "+dir+"\nend\n")
	list, err := os.ReadDir(filepath.Join(dir, "etc"))
	if !strings.HasPrefix(answers[1], "ok 0.0 MB in 3 entries") || err != nil || len(list) != 1 || list[0].Name() != "new" {
		t.Errorf("%q, %v, %v", answers, list, err)
	}
	srv.plan.Layers[1].Digest = srv.plan.Layers[0].Digest
	answers, _ = talk(t, srv, &fakeSystem{}, t.TempDir(), "hello s\nram "+t.TempDir()+"\nend\n")
	if !strings.HasPrefix(answers[1], "failed layer 2 of 2: the blob has the digest") {
		t.Errorf("%q", answers)
	}
	answers, _ = talk(t, srv, &fakeSystem{total: 1 << 20, free: 1 << 20}, t.TempDir(), "hello s\nram "+t.TempDir()+"\nend\n")
	if !strings.Contains(answers[1], "choose the root mode precache or nfs") {
		t.Errorf("%q", answers)
	}
}
