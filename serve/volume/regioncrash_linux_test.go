package volume

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"rhizome/serve/node/nodeapi"
)

// commitEnv makes the test's own binary a server that carries out a commit on
// a store, and killEnv lets it be killed after so many steps of it.
const (
	commitEnv = "RHIZOME_VOLUME_TEST_COMMIT"
	killEnv   = "RHIZOME_VOLUME_TEST_KILL"
)

// commitAndDie carries the commit out that stands in the store's folder. It
// ends with exit code 0 if it comes to its end.
func commitAndDie(dir string) {
	w := worldAt(serverProcess{}, dir)
	shareAll(w)
	var left int
	fmt.Sscan(os.Getenv(killEnv), &left)
	c := w.config()
	c.step = func(string) {
		if left--; left == 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	w.volumes = New(c)
	id, err := os.ReadFile(filepath.Join(dir, "lease"))
	if err != nil {
		panic(err)
	}
	body, err := os.ReadFile(filepath.Join(dir, "changes"))
	if err != nil {
		panic(err)
	}
	if _, err := commitTo(w, holderOf("n1", addr1), string(id), "the commit", body); err != nil {
		panic(err)
	}
	os.Exit(0)
}

func shareAll(w *world) {
	for a, n := range w.nodes.nodes {
		n.Shared = "/shared"
		w.nodes.nodes[a] = n
	}
}

// A server is killed after every step of a commit. Before the next one starts,
// a region of one path is the old or the new whole; after it has opened the
// export, so is a region of several; and when the client asks again, the commit
// is done, once.
func TestACommitThatIsKilledLeavesTheOldOrTheNew(t *testing.T) {
	needRoot(t)
	for _, paths := range [][]string{{"/shared/src"}, {"/shared/src", "/shared/lib"}} {
		t.Run(fmt.Sprint(len(paths)), func(t *testing.T) {
			olds, news := 0, 0
			for step := 1; ; step++ {
				ended, was := killedCommit(t, step, paths)
				if ended {
					break
				}
				if was == "old" {
					olds++
				} else {
					news++
				}
			}
			if olds < 4 || news < 2 {
				t.Errorf("killed %d times before the switch and %d times after it: the test tests nothing", olds, news)
			}
		})
	}
}

func killedCommit(t *testing.T, step int, paths []string) (ended bool, was string) {
	t.Helper()
	w := newWorld(t, func(n *Node) { n.Shared = "/shared" })
	for i := range 5 {
		lay(t, w, fmt.Sprintf("src/f%d", i), "old", fmt.Sprintf("src/sub/g%d", i), "old", fmt.Sprintf("lib/h%d", i), "old")
	}
	h := holderOf("n1", addr1)
	l := leased(t, w, h, nodeapi.Write, paths...)
	streamed(t, w, h, l.ID)
	old := shown(t, w)
	edits := []tarEdit{wrote("shared/src/f1", "new"), wrote("shared/src/sub/g2", "new"), removed("shared/src/sub/g3"), wrote("shared/src/added", "new")}
	if len(paths) > 1 {
		edits = append(edits, wrote("shared/lib/h1", "new"), removed("shared/lib/h2"))
	}
	body := changesOf(t, edits...)
	if err := errors.Join(os.WriteFile(filepath.Join(w.dir, "lease"), []byte(l.ID), 0o600), os.WriteFile(filepath.Join(w.dir, "changes"), body, 0o600)); err != nil {
		t.Fatal(err)
	}
	w.stop()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), commitEnv+"="+w.dir, fmt.Sprintf("%s=%d", killEnv, step))
	var said bytes.Buffer
	cmd.Stderr = &said
	err := cmd.Run()
	if err != nil && cmd.ProcessState.ExitCode() >= 0 {
		t.Fatalf("the commit failed: %v: %s", err, &said)
	}
	dead := shown(t, w)
	w.start()
	if _, err := w.volumes.Regions().Renew(h, l.ID, 60e9); err != nil {
		t.Fatal(err)
	}
	if l, err := w.volumes.Regions().Lease(t.Context(), h, nodeapi.LeaseRequest{Paths: []string{"/shared"}, Mode: nodeapi.Read, TTL: 60}); err == nil {
		t.Errorf("a second lease of a leased region: %+v", l) // but the export is open now
	}
	now := shown(t, w)
	if len(paths) == 1 && dead != now {
		t.Errorf("step %d: killed, the region was\n%s\nand then\n%s", step, dead, now)
	}
	if n := strings.Count(now, " new\n"); now != old && n != 2+len(paths) {
		t.Errorf("step %d: the region is a mix:\n%s", step, now)
	}
	if _, err := commitTo(w, h, l.ID, "the commit", body); err != nil {
		t.Errorf("step %d: asking again: %v", step, err)
	}
	if again := shown(t, w); strings.Count(again, " new\n") != 2+len(paths) || strings.Contains(again, "g3") {
		t.Errorf("step %d: after asking again the region is\n%s", step, again)
	}
	if left, _ := os.ReadDir(filepath.Join(sharedDir(w), stageName)); len(left) != 0 {
		t.Errorf("step %d: %d stages are left", step, len(left))
	}
	if now == old {
		return err == nil, "old"
	}
	return err == nil, "new"
}
