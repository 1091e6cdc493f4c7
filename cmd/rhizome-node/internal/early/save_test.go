package early

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rhizome/serve/node/nodeapi"
)

// What FreeBSD's script gets is whole and verified, or refused with the reason. The
// script tells that all went well, rhizome-node all else.
func TestABundleBecomesAFileOrIsRefused(t *testing.T) {
	data := bundleOf(t, "usr/bin/a", "usr/bin/b")
	flip := bytes.Clone(data)
	flip[600] ^= 1
	for name, c := range map[string]struct {
		change        func(*fakeServer, *fakeSystem)
		answer, heard string
	}{
		"whole": {func(*fakeServer, *fakeSystem) {}, "ok ", ""},
		"damaged": {func(s *fakeServer, _ *fakeSystem) { s.blobs[pathOf(s.plan.Bundle.URL)] = flip },
			"failed going on without the bundle: the blob has the digest sha256:", "precache failed"},
		"little memory": {func(s *fakeServer, f *fakeSystem) { s.plan.Bundle.Size, f.total, f.free = 32<<20, 256<<20, 80<<20 },
			"skipped there is memory for 16.8 MB of the bundle's 33.6 MB, and it is taken whole or not at all", "precache skipped"},
		"no bundle": {func(s *fakeServer, _ *fakeSystem) { s.plan.Bundle = nil }, "skipped the image has no bundle", "precache skipped"},
	} {
		t.Run(name, func(t *testing.T) {
			plan, blobs := precachePlan(data)
			srv, sys, file := &fakeServer{plan: plan, blobs: blobs}, &fakeSystem{}, filepath.Join(t.TempDir(), "bundle")
			c.change(srv, sys)
			answers, _ := talk(t, srv, sys, t.TempDir(), "hello s\nbundle "+file+"\nend\n")
			if !strings.HasPrefix(answers[1]+" ", c.answer) {
				t.Errorf("the answer is %q, want %q", answers[1], c.answer)
			}
			if got := strings.Join(srv.reports, ", "); got != c.heard {
				t.Errorf("the server heard %q, want %q", got, c.heard)
			}
			if got, _ := os.ReadFile(file); c.heard == "" && !bytes.Equal(got, data) {
				t.Errorf("%d bytes lie there", len(got))
			}
		})
	}
}

// On a slow link there are two answers: the script goes on after the first. What
// comes after it comes gently.
func TestASlowBundleHasASecondAnswer(t *testing.T) {
	data := bundleOf(t, "usr/bin/a", "usr/bin/b")
	plan, blobs := precachePlan(data)
	srv, sys, dir, file := &fakeServer{plan: plan, blobs: blobs}, &fakeSystem{total: 1 << 30, free: 1 << 30}, t.TempDir(), filepath.Join(t.TempDir(), "bundle")
	open := make(chan struct{})
	srv.body = func(_ string, from int64, r io.Reader) io.Reader {
		if from == 0 {
			return gate{io.LimitReader(r, 600), open}
		}
		return r
	}
	in, ask := io.Pipe()
	answers, out := io.Pipe()
	s := newSession(t.Context(), out, io.Discard, dir, sys)
	s.connect = func(string, string) server { return srv }
	ended := make(chan error)
	go func() { ended <- s.run(in) }()
	fmt.Fprintf(ask, "hello s\n")
	readLine(t, answers)
	fmt.Fprintf(ask, "bundle %s\n", file)
	if got := readLine(t, answers); !strings.HasPrefix(got, "later the link is slow") {
		t.Fatalf("the answer is %q", got)
	}
	if err := os.WriteFile(filepath.Join(dir, upFile), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	close(open)
	if got := readLine(t, answers); got != "ok " {
		t.Errorf("the second answer is %q", got)
	}
	if got, _ := os.ReadFile(file); !bytes.Equal(got, data) {
		t.Errorf("%d bytes lie there", len(got))
	}
	fmt.Fprintln(ask, "report\tprecache\tok\ttarfs: /usr/bin")
	fmt.Fprintln(ask, "end")
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(srv.reports, ", "); got != "precache skipped, precache ok" {
		t.Errorf("the server heard %q", got)
	}
	if fmt.Sprint(srv.windows) != fmt.Sprint([]int{hastyWindow, gentleWindow}) {
		t.Errorf("the windows were %v", srv.windows)
	}
}

// A root in memory comes layer by layer; the first answer is after a look at memory.
func TestLayersBecomeFilesOneByOne(t *testing.T) {
	base, upper := bundleOf(t, "bin/sh"), bundleOf(t, "etc/new")
	plan := nodeapi.Plan{Node: "f1", Root: "ram", Blobs: "s:/blobs/f1", Layers: []nodeapi.Layer{layerOf(base), layerOf(upper)}}
	sys := &fakeSystem{blobs: map[string][]byte{nodeapi.BlobFile(plan.Layers[0].Digest): base, nodeapi.BlobFile(plan.Layers[1].Digest): upper}}
	srv := &fakeServer{plan: plan, fail: noHTTP}
	file := filepath.Join(t.TempDir(), "layer")
	const question = "hello s\nlayer 1 %[1]s\nlayer 2 %[1]s\nlayer 3 %[1]s\nend\n"
	answers, _ := talk(t, srv, sys, t.TempDir(), fmt.Sprintf(question, file))
	want := []string{"ok read over NFS where HTTP failed, at byte 0: connection refused", "ok ", `failed the plan has no layer "3"`}
	if strings.Join(answers[1:], "\n") != strings.Join(want, "\n") {
		t.Errorf("%q", answers)
	}
	if got, _ := os.ReadFile(file); !bytes.Equal(got, upper) {
		t.Errorf("%d bytes lie there: not those of the second layer alone", len(got))
	}
	if got := strings.Join(sys.did, ", "); got != "nfs s:/blobs/f1, unmount" {
		t.Errorf("the machine did %s", got)
	}
	answers, _ = talk(t, srv, &fakeSystem{total: 1 << 20, free: 1 << 20}, t.TempDir(), fmt.Sprintf(question, file))
	if !strings.HasPrefix(answers[1], "failed the root takes ") {
		t.Errorf("%q", answers)
	}
}
