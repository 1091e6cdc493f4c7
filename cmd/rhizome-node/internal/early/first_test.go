package early

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"rhizome/serve/node/nodeapi"
)

// twoParts is a bundle whose first part a boot waits for, and the blob's size at
// the end of that part.
func twoParts(t *testing.T) (nodeapi.Plan, map[string][]byte, int64) {
	t.Helper()
	first, rest := bundleOf(t, "usr/bin/sh", "etc/first"), bundleOf(t, "usr/bin/cc", "usr/lib/rest")
	first = first[:len(first)-1024] // a tar has its end once, in the last part
	plan, blobs := precachePlan(append(bytes.Clone(first), rest...))
	plan.Bundle.First = &nodeapi.Span{Size: int64(len(first)), Digest: layerOf(first).Digest}
	return plan, blobs, int64(len(first))
}

// dialogue is a script that asks and reads answers one by one.
type dialogue struct {
	s       *session
	ask     io.Writer
	answers io.Reader
	ended   chan error
	dir     string
}

func converse(t *testing.T, srv *fakeServer, sys *fakeSystem, console io.Writer) *dialogue {
	t.Helper()
	in, ask := io.Pipe()
	answers, out := io.Pipe()
	d := &dialogue{ask: ask, answers: answers, ended: make(chan error, 1), dir: t.TempDir()}
	d.s = newSession(t.Context(), out, console, d.dir, sys)
	d.s.connect = func(string, string) server { return srv }
	go func() { d.ended <- d.s.run(in) }()
	fmt.Fprintf(ask, "hello s\n")
	readLine(t, answers)
	return d
}

func (d *dialogue) up(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, upFile), nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

// end waits until nothing goes on in the background.
func (d *dialogue) end(t *testing.T) {
	t.Helper()
	fmt.Fprintln(d.ask, "end")
	if err := <-d.ended; err != nil {
		t.Fatal(err)
	}
}

// stuckAfter gives so many bytes of a blob at once, and the others when the test
// says so.
func stuckAfter(n int64, open chan struct{}) func(string, int64, io.Reader) io.Reader {
	return func(_ string, from int64, r io.Reader) io.Reader {
		return io.MultiReader(io.LimitReader(r, max(0, n-from)), gate{iotest.HalfReader(r), open})
	}
}

// What every boot reads lies over the root before the boot goes on; the rest is
// laid beside it when userland is up, with all that nobody else wants of the CPU.
func TestTheFirstPartIsLaidBeforeASlowLinkBringsTheRest(t *testing.T) {
	plan, blobs, n := twoParts(t)
	srv, sys, open := &fakeServer{plan: plan, blobs: blobs}, &fakeSystem{total: 1 << 30, free: 1 << 30, mounted: map[string]bool{}}, make(chan struct{})
	srv.body = stuckAfter(n, open)
	var console bytes.Buffer
	d, bundle := converse(t, srv, sys, &console), t.TempDir()
	fmt.Fprintf(d.ask, "fill %s\n", bundle)
	if got := readLine(t, d.answers); !strings.HasPrefix(got, "later 0.0 MB in 2 entries lie over /etc /usr; the link is slow (0.0 MB in ") {
		t.Fatalf("the answer is %q", got)
	}
	if got := strings.Join(sys.did, ", "); got != "tmpfs, overlay /etc, overlay /usr" {
		t.Errorf("the machine did %s", got)
	}
	sys.mounted["/etc"] = true // the script goes on to etc: volatile
	d.up(t)
	close(open)
	d.end(t)
	if got := strings.Join(sys.did[3:], ", "); got != "behind, overlay /usr" {
		t.Errorf("then it did %s", got)
	}
	want := filepath.Join(bundle, "first/usr") + ":" + filepath.Join(bundle, "rest/usr") + ":/usr"
	if got := sys.over["/usr"]; got != want {
		t.Errorf("/usr is made of %s, want %s", got, want)
	}
	if got := strings.Join(srv.reports, ", "); got != "precache ok, precache ok" || !strings.Contains(console.String(), "precache: ok: 0.0 MB in 4 entries") {
		t.Errorf("the server heard %s, the console %q", got, console.String())
	}
}

func TestOnAFastLinkAllPartsAreLaidAtOnce(t *testing.T) {
	plan, blobs, _ := twoParts(t)
	srv, sys := &fakeServer{plan: plan, blobs: blobs}, &fakeSystem{}
	if got := filled(t, srv, sys); got != "ok 0.0 MB in 4 entries lie over /etc /usr" {
		t.Errorf("the answer is %q", got)
	}
	if got := strings.Join(sys.did, ", "); got != "tmpfs, overlay /etc, overlay /usr" {
		t.Errorf("the machine did %s", got)
	}
}

// The first part has a digest of its own: it is never laid unless it is right,
// and stays where it lies if what follows is not.
func TestEachPartIsTrustedByItsOwnDigest(t *testing.T) {
	for name, c := range map[string]struct {
		at, cut int64
		later   bool
		says    string
		did     string
	}{
		"the first is damaged": {at: 512, says: "going on without the bundle: the blob has the digest", did: "tmpfs, unmount"},
		"the rest is damaged":  {at: -3 * 512, says: "going on without the bundle: the blob has the digest", did: "tmpfs, unmount"},
		"the rest is damaged, when the first lies": {at: -3 * 512, later: true, says: "going on with the first part of the bundle: the blob has the digest",
			did: "tmpfs, overlay /etc, overlay /usr, behind"},
	} {
		t.Run(name, func(t *testing.T) {
			plan, blobs, n := twoParts(t)
			data := blobs[pathOf(plan.Bundle.URL)]
			data[(int64(len(data))+c.at)%int64(len(data))] ^= 1
			srv, sys, open := &fakeServer{plan: plan, blobs: blobs}, &fakeSystem{total: 1 << 30, free: 1 << 30}, make(chan struct{})
			if c.later {
				srv.body = stuckAfter(n, open)
			}
			var console bytes.Buffer
			d, bundle := converse(t, srv, sys, &console), t.TempDir()
			fmt.Fprintf(d.ask, "fill %s\n", bundle)
			said := readLine(t, d.answers)
			d.up(t)
			close(open)
			d.end(t)
			if !strings.Contains(said+console.String(), c.says) || strings.Join(sys.did, ", ") != c.did {
				t.Errorf("it said %q and %q, and did %v", said, console.String(), sys.did)
			}
			if _, err := os.Stat(filepath.Join(bundle, "rest")); c.later && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the damaged part still takes memory: %v", err)
			}
		})
	}
}

// A server that stops in the middle of the first part holds no boot for ever.
func TestAFirstPartThatDoesNotComeIsNotWaitedFor(t *testing.T) {
	f := &filling{blob: &blob{ctx: context.Background(), now: time.Now, layer: nodeapi.Layer{Size: 100 << 20, First: &nodeapi.Span{Size: 50 << 20}}}}
	f.blob.read.Store(1 << 20)
	f.blob.past.Store(int64(time.Minute))
	if f.slow() {
		t.Error("a slow link that gives bytes is not waited for")
	}
	f.blob.since.Store(time.Now().Add(-patience - time.Second).UnixNano())
	if !f.slow() {
		t.Error("a link that gives nothing is waited for")
	}
}

// After the first part a slow machine counts as a slow link does.
func TestTheRestIsWaitedForWithinPatience(t *testing.T) {
	const mb = 1_000_000
	for name, c := range map[string]struct {
		read, size int64
		took       time.Duration
		want       bool
	}{
		"a fast machine":            {16 * mb, 60 * mb, 300 * time.Millisecond, false},
		"one that unpacks slowly":   {16 * mb, 60 * mb, 2 * time.Second, true},
		"slow, but nearly there":    {59 * mb, 60 * mb, 20 * time.Second, false},
		"the first part is all":     {60 * mb, 60 * mb, time.Minute, false},
		"10 Mbit/s, 16 MB of 60 MB": {16 * mb, 60 * mb, 13 * time.Second, true},
	} {
		if got := slowRest(c.read, c.size, c.took); got != c.want {
			t.Errorf("%s: slow is %v", name, got)
		}
	}
}
