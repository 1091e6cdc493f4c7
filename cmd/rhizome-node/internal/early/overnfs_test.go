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
	"time"

	"rhizome/cmd/rhizome-node/internal/agent"
	"rhizome/serve/node/nodeapi"
)

var errRefused = errors.New("connection refused")

// noHTTP refuses every blob; all else is answered.
func noHTTP(call string) error {
	if call == "get" {
		return errRefused
	}
	return nil
}

// fallback is a server and a node with a bundle that both ways lead to.
func fallback(data []byte) (*fakeServer, *fakeSystem) {
	plan, blobs := precachePlan(data)
	plan.Blobs = "s:/blobs/n1"
	return &fakeServer{plan: plan, blobs: blobs}, &fakeSystem{blobs: map[string][]byte{nodeapi.BlobFile(plan.Bundle.Digest): data}}
}

// filled has a session fill memory, and gives the answer.
func filled(t *testing.T, srv *fakeServer, sys *fakeSystem) string {
	t.Helper()
	answers, _ := talk(t, srv, sys, t.TempDir(), "hello s\nfill "+t.TempDir()+"\nend\n")
	return answers[len(answers)-1]
}

func TestABundleThatHTTPDoesNotGiveComesOverNFS(t *testing.T) {
	srv, sys := fallback(bundleOf(t, "usr/bin/a", "usr/bin/b"))
	gets := 0
	srv.fail = func(call string) error {
		if call == "get" {
			gets++
		}
		return noHTTP(call)
	}
	if got := filled(t, srv, sys); got != "ok 0.0 MB in 2 entries lie over /usr; read over NFS where HTTP failed, at byte 0: connection refused" {
		t.Errorf("the answer is %q", got)
	}
	if got := strings.Join(sys.did, ", "); got != "tmpfs, nfs s:/blobs/n1, unmount, overlay /usr" {
		t.Errorf("the machine did %s", got)
	}
	if gets != httpTries || strings.Join(srv.reports, ", ") != "precache ok" {
		t.Errorf("%d tries of HTTP; the server heard %v", gets, srv.reports)
	}
}

// What came by HTTP stays: NFS goes on at the byte where HTTP broke, and HTTP
// where NFS did.
func TestEachWayGoesOnWhereTheOtherBroke(t *testing.T) {
	data := bundleOf(t, "usr/bin/a", "usr/bin/b", "usr/bin/c")
	srv, sys := fallback(data)
	name := nodeapi.BlobFile(srv.plan.Bundle.Digest)
	// NFS has the middle alone: what a wrong offset gave would be of a wrong
	// digest.
	sys.blobs[name] = append(make([]byte, 1000), data[1000:1700]...)
	var froms []int64
	srv.body = func(_ string, from int64, r io.Reader) io.Reader {
		if froms = append(froms, from); from == 0 {
			return io.LimitReader(r, 1000)
		}
		return r
	}
	broken := 0
	srv.fail = func(call string) error {
		if call != "get" || len(froms) == 0 || broken >= httpTries {
			return nil
		}
		broken++
		return errRefused
	}
	if got := filled(t, srv, sys); !strings.HasPrefix(got, "ok ") || !strings.Contains(got, "at byte 1000: connection refused") {
		t.Errorf("the answer is %q", got)
	}
	if fmt.Sprint(froms) != "[0 1700]" {
		t.Errorf("HTTP was asked from %v on", froms)
	}
}

func TestWhatComesOverNFSIsVerified(t *testing.T) {
	data := bundleOf(t, "usr/bin/a")
	srv, sys := fallback(data)
	srv.fail = noHTTP
	damaged := bytes.Clone(data)
	damaged[600] ^= 1
	sys.blobs[nodeapi.BlobFile(srv.plan.Bundle.Digest)] = damaged
	if got := filled(t, srv, sys); !strings.HasPrefix(got, "failed going on without the bundle: the blob has the digest sha256:") {
		t.Errorf("the answer is %q", got)
	}
	if did := strings.Join(sys.did, ", "); strings.Contains(did, "overlay") || strings.Count(did, "unmount") != 2 {
		t.Errorf("the machine did %s", did)
	}
}

// A server that is away for good ends the tries, and both reasons are told; a
// mount is not tried each time.
func TestWhereNeitherWayLeadsItIsSaidOfBoth(t *testing.T) {
	srv, sys := fallback(bundleOf(t, "usr/bin/a"))
	srv.fail, sys.blobs = noHTTP, nil
	got := filled(t, srv, sys)
	for _, want := range []string{"failed going on without the bundle", "after 0 of ", "connection refused"} {
		if !strings.Contains(got, want) {
			t.Errorf("the answer is %q, without %q", got, want)
		}
	}
	if n := strings.Count(strings.Join(sys.did, ","), "nfs "); n != blobTries/httpTries {
		t.Errorf("%d mounts were tried", n)
	}
	if waits := totalPause(blobTries); waits < 4*time.Minute || waits > 6*time.Minute {
		t.Errorf("a server may be away for %v", waits)
	}
	if early := totalPause(httpTries); early >= time.Second {
		t.Errorf("NFS is tried after %v: the link counts as slow by then", early)
	}
}

func totalPause(tries int) (sum time.Duration) {
	for n := 1; n < tries; n++ {
		sum += pause(n)
	}
	return sum
}

// A mount that is there and gives nothing does not turn round and round.
func TestAnEmptyFileOverNFSEndsTheTries(t *testing.T) {
	srv, sys := fallback(bundleOf(t, "usr/bin/a"))
	srv.fail = noHTTP
	sys.blobs[nodeapi.BlobFile(srv.plan.Bundle.Digest)] = nil
	if got := filled(t, srv, sys); !strings.HasPrefix(got, "failed") {
		t.Errorf("the answer is %q", got)
	}
	if n := strings.Count(strings.Join(sys.did, ","), "nfs "); n > blobTries {
		t.Errorf("%d mounts", n)
	}
}

// A server that answers with a refusal says the same over NFS; one that names no
// export has none.
func TestNFSIsNotTriedWhereItCannotHelp(t *testing.T) {
	for name, change := range map[string]func(*fakeServer){
		"refused": func(s *fakeServer) {
			s.fail = func(call string) error {
				if call == "get" {
					return &agent.StatusError{Status: 403, Message: "not yours"}
				}
				return nil
			}
		},
		"no export": func(s *fakeServer) { s.fail, s.plan.Blobs = noHTTP, "" },
	} {
		srv, sys := fallback(bundleOf(t, "usr/bin/a"))
		change(srv)
		if got := filled(t, srv, sys); !strings.HasPrefix(got, "failed") || strings.Contains(strings.Join(sys.did, ","), "nfs ") {
			t.Errorf("%s: %q, and the machine did %v", name, got, sys.did)
		}
	}
}

// What was waited for HTTP is not taken for a slow link: the boot goes on with
// the bundle.
func TestWaitingForHTTPDoesNotMakeTheLinkSlow(t *testing.T) {
	data := bundleOf(t, "usr/bin/a")
	l, clock := layerOf(data), time.Unix(1000, 0)
	sys := &fakeSystem{blobs: map[string][]byte{nodeapi.BlobFile(l.Digest): data}}
	s := newSession(t.Context(), io.Discard, io.Discard, t.TempDir(), sys)
	s.server = &fakeServer{fail: noHTTP}
	s.nfs = &overNFS{system: sys, export: "s:/blobs/n1", dir: filepath.Join(s.dir, "blobs")}
	s.sleep = func(context.Context, time.Duration) error {
		clock = clock.Add(time.Minute)
		return nil
	}
	b := s.blob(l)
	b.now = func() time.Time { return clock }
	if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, data) || b.waited() != 0 || clock.Sub(time.Unix(1000, 0)) < time.Minute {
		t.Errorf("%d bytes, %v; it counts as %v", len(got), err, b.waited())
	}
}

// A root in memory: the first layer waits for HTTP, the next ones know; the
// mount is gone when the script is answered.
func TestARootInMemoryComesOverNFSByOneMount(t *testing.T) {
	base, upper := bundleOf(t, "bin/sh"), bundleOf(t, "etc/new")
	plan := nodeapi.Plan{Node: "n1", Root: "ram", Blobs: "s:/blobs/n1", Layers: []nodeapi.Layer{layerOf(base), layerOf(upper)}}
	sys := &fakeSystem{blobs: map[string][]byte{nodeapi.BlobFile(plan.Layers[0].Digest): base, nodeapi.BlobFile(plan.Layers[1].Digest): upper}}
	gets := 0
	srv := &fakeServer{plan: plan, fail: func(call string) error {
		if call == "get" {
			gets++
		}
		return noHTTP(call)
	}}
	dir, run := t.TempDir(), t.TempDir()
	answers, _ := talk(t, srv, sys, run, "hello s\nram "+dir+"\nend\n")
	if answers[1] != "ok 0.0 MB in 2 entries, all in memory; read over NFS where HTTP failed, at byte 0: connection refused" {
		t.Errorf("%q", answers)
	}
	if got := strings.Join(sys.did, ", "); got != "nfs s:/blobs/n1, unmount" || gets != httpTries+1 {
		t.Errorf("the machine did %s, and asked HTTP %d times", got, gets)
	}
	if _, err := os.Stat(filepath.Join(run, "blobs")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder stays: %v", err)
	}
}

// FreeBSD's script has blobs written into files; they come the same ways.
func TestAFileComesOverNFSFromTheByteWhereHTTPBroke(t *testing.T) {
	data := bundleOf(t, "usr/bin/a", "usr/bin/b")
	srv, sys := fallback(data)
	begun := false
	srv.body = func(_ string, _ int64, r io.Reader) io.Reader { begun = true; return io.LimitReader(r, 700) }
	srv.fail = func(call string) error {
		if begun {
			return noHTTP(call)
		}
		return nil
	}
	file := filepath.Join(t.TempDir(), "bundle")
	answers, _ := talk(t, srv, sys, t.TempDir(), "hello s\nbundle "+file+"\nend\n")
	if got := answers[1]; got != "ok read over NFS where HTTP failed, at byte 700: connection refused" {
		t.Errorf("the answer is %q", got)
	}
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if got := strings.Join(sys.did, ", "); got != "nfs s:/blobs/n1, unmount" {
		t.Errorf("the machine did %s", got)
	}
}
