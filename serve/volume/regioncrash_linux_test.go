package volume

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"rhizome/serve/node/nodeapi"
)

// commitEnv makes the test's own binary a server that carries out a commit on
// a store, kindEnv says of which kind its export is, and killEnv lets it be
// killed after so many steps of it.
const (
	commitEnv = "RHIZOME_VOLUME_TEST_COMMIT"
	kindEnv   = "RHIZOME_VOLUME_TEST_KIND"
	killEnv   = "RHIZOME_VOLUME_TEST_KILL"
)

// commitAndDie carries the commit out that stands in the store's folder. It
// ends with exit code 0 if it comes to its end.
func commitAndDie(dir string) {
	w := worldAt(serverProcess{}, dir)
	regionOf(w, os.Getenv(kindEnv), killedFiles())
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

// killedFiles are the region whose commit is killed.
func killedFiles() (files []string) {
	for i := range 5 {
		files = append(files, fmt.Sprintf("src/f%d", i), "old", fmt.Sprintf("src/sub/g%d", i), "old", fmt.Sprintf("lib/h%d", i), "old")
	}
	return files
}

// A server is killed after every step of a commit. Once the next one has opened
// the export, the region is the old or the new whole; of a folder of the host,
// leased by one path, before already. When the client asks again, the commit is
// done, once.
func TestACommitThatIsKilledLeavesTheOldOrTheNew(t *testing.T) {
	needRoot(t)
	for _, kind := range regionKinds {
		for _, paths := range [][]string{{"src"}, {"src", "lib"}} {
			t.Run(fmt.Sprint(kind, len(paths)), func(t *testing.T) {
				olds, news := 0, 0
				for step := 1; ; step++ {
					ended, was := killedCommit(t, kind, step, paths)
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
}

// killedWorld is a region that is leased, and a commit to it that stands in the
// store's folder.
func killedWorld(t *testing.T, kind string, paths []string) (r *region, l nodeapi.Lease, body []byte) {
	t.Helper()
	r = regionOf(worldAt(t, fastDir(t)), kind, killedFiles())
	r.start()
	t.Cleanup(func() { r.stop() })
	if kind != "cow" {
		r.lay(killedFiles()...)
	}
	var on []string
	for _, p := range paths {
		on = append(on, r.on(p))
	}
	l = leased(t, r.world, r.h1, nodeapi.Write, on...)
	streamed(t, r.world, r.h1, l.ID)
	edits := []tarEdit{wrote(r.in("src/f1"), "new"), wrote(r.in("src/sub/g2"), "new"), removed(r.in("src/sub/g3")), wrote(r.in("src/added"), "new")}
	if len(paths) > 1 {
		edits = append(edits, wrote(r.in("lib/h1"), "new"), removed(r.in("lib/h2")))
	}
	body = changesOf(t, edits...)
	if err := errors.Join(os.WriteFile(filepath.Join(r.dir, "lease"), []byte(l.ID), 0o600), os.WriteFile(filepath.Join(r.dir, "changes"), body, 0o600)); err != nil {
		t.Fatal(err)
	}
	return r, l, body
}

// killAt stops the server and lets another be killed after a step of the commit.
func (r *region) killAt(t *testing.T, step int) (ended bool) {
	t.Helper()
	r.stop()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), commitEnv+"="+r.dir, kindEnv+"="+r.kind, fmt.Sprintf("%s=%d", killEnv, step))
	var said bytes.Buffer
	cmd.Stderr = &said
	err := cmd.Run()
	if err != nil && cmd.ProcessState.ExitCode() >= 0 {
		t.Fatalf("the commit failed: %v: %s", err, &said)
	}
	return err == nil
}

// onDisk is a shared export as text, without a server.
func onDisk(t *testing.T, r *region) string {
	t.Helper()
	var b strings.Builder
	root := filepath.Join(r.dir, "persist", "c", sharedOwner)
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == stageName {
			return fs.SkipDir
		}
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(p)
		fmt.Fprintf(&b, "%s %s\n", p, data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func killedCommit(t *testing.T, kind string, step int, paths []string) (ended bool, was string) {
	t.Helper()
	r, l, body := killedWorld(t, kind, paths)
	old := r.shown()
	ended = r.killAt(t, step)
	dead := ""
	if kind == "disk" {
		dead = onDisk(t, r)
	}
	r.start()
	if _, err := r.volumes.Regions().Renew(r.h1, l.ID, 60e9); err != nil {
		t.Fatal(err)
	}
	if l, err := r.volumes.Regions().Lease(t.Context(), r.h1, nodeapi.LeaseRequest{Paths: []string{r.mount}, Mode: nodeapi.Read, TTL: 60}); err == nil {
		t.Errorf("a second lease of a leased region: %+v", l) // but the export is open now
	}
	now := r.shown()
	if kind == "disk" && len(paths) == 1 && dead != onDisk(t, r) {
		t.Errorf("step %d: killed, the region was\n%s\nand then\n%s", step, dead, now)
	}
	if n := strings.Count(now, " new\n"); now != old && (n != 2+len(paths) || strings.Contains(now, "g3")) {
		t.Errorf("step %d: the region is a mix:\n%s", step, now)
	}
	if _, err := commitTo(r.world, r.h1, l.ID, "the commit", body); err != nil {
		t.Errorf("step %d: asking again: %v", step, err)
	}
	if again := r.shown(); strings.Count(again, " new\n") != 2+len(paths) || strings.Contains(again, "g3") {
		t.Errorf("step %d: after asking again the region is\n%s", step, again)
	}
	r.mustLeave(t)
	if now == old {
		return ended, "old"
	}
	return ended, "new"
}

// A crash of the host can leave any part of the line that is a commit: all but
// the whole of it is the old state, and nothing is left of the new one.
func TestACommitWhoseLineIsCutNeverWas(t *testing.T) {
	needRoot(t)
	for _, kind := range regionKinds[1:] {
		t.Run(kind, func(t *testing.T) {
			r, _, _ := killedWorld(t, kind, []string{"src"})
			old := r.shown()
			before := r.journal(t)
			for step := 1; len(r.journal(t)) == len(before); step++ {
				if r.killAt(t, step) {
					t.Fatal("the commit came to its end")
				}
			}
			whole := r.journal(t)
			saved := filepath.Join(r.dir, "saved")
			copyDir(t, r.changesDir(), saved)
			for cut := len(before); cut <= len(whole); cut += 1 + (len(whole)-cut)/23 {
				if err := os.RemoveAll(r.changesDir()); err != nil {
					t.Fatal(err)
				}
				copyDir(t, saved, r.changesDir())
				if err := os.Truncate(filepath.Join(r.changesDir(), journalName), int64(cut)); err != nil {
					t.Fatal(err)
				}
				r.start()
				now := r.shown()
				if isNew := strings.Count(now, " new\n") == 3; isNew != (cut == len(whole)) || !isNew && now != old {
					t.Errorf("cut at %d of %d to %d, the region is\n%s", cut, len(before), len(whole), now)
				}
				if cut < len(whole) {
					r.mustLeave(t)
				}
				r.stop()
				if cut == len(whole) {
					break
				}
			}
			r.start()
		})
	}
}

// changesDir is where the records of the export lie.
func (r *region) changesDir() string {
	if r.kind == "records" {
		return filepath.Join(r.dir, "cow", "c", "n1", "persist")
	}
	return filepath.Join(r.dir, "cow", "c", "n1", "changes", "%2Fetc")
}

func (r *region) journal(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(r.changesDir(), journalName))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}
