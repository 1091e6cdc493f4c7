package volume

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"rhizome/serve/boot"

	"golang.org/x/sys/unix"
)

// serveEnv makes the test's own binary a server on a store, until it is killed.
const serveEnv = "RHIZOME_VOLUME_TEST_STORE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(serveEnv); dir != "" {
		serveForever(dir)
	}
	if dir := os.Getenv(commitEnv); dir != "" {
		commitAndDie(dir)
	}
	os.Exit(m.Run())
}

// serveForever serves the store until the process is killed.
func serveForever(dir string) {
	w := worldAt(serverProcess{}, dir)
	w.start()
	fmt.Println(w.addr)
	select {}
}

// child starts a server in a process of its own.
func (w *world) child() *exec.Cmd {
	w.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveEnv+"="+w.dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		w.t.Fatalf("starting a server: %v", err)
	}
	w.addr = strings.TrimSpace(line)
	return cmd
}

// A server is killed in the middle of two writers' work, again and again. What
// was acknowledged as stable, by FILE_SYNC, by COMMIT or by being a change of
// names, is there afterwards, and so is every name.
func TestNothingStableIsLostWhenTheServerIsKilled(t *testing.T) {
	needRoot(t)
	for _, path := range []string{"/persist/n1", "/cow/n1/etc"} {
		t.Run(strings.Split(path, "/")[1], func(t *testing.T) {
			w := newWorld(t, nil)
			w.stop()
			defer w.start()
			acknowledged := map[string]string{}
			for round := range 5 {
				cmd := w.child()
				var wg sync.WaitGroup
				var mu sync.Mutex
				for writer := range 2 {
					c := w.dial(addr1)
					root := c.mustMount(path)
					wg.Go(func() {
						for i := 0; ; i++ {
							name, body, ok := c.tryPut(root, fmt.Sprintf("r%d-w%d-%d", round, writer, i), i)
							if !ok {
								return
							}
							mu.Lock()
							acknowledged[name] = body
							enough := len(acknowledged) >= 60*(round+1)
							mu.Unlock()
							if enough {
								cmd.Process.Kill()
							}
						}
					})
				}
				wg.Wait()
				cmd.Wait()
			}
			w.child()
			c := w.dial(addr1)
			all := c.tree(c.mustMount(path), "", map[string]string{})
			for name, body := range acknowledged {
				if all[name] != body {
					t.Fatalf("%s reads %d bytes, was acknowledged with %d", name, len(all[name]), len(body))
				}
			}
			if len(acknowledged) < 200 {
				t.Fatalf("only %d files were acknowledged", len(acknowledged))
			}
		})
	}
}

// tryPut makes a file, writes and renames it; ok is false when the server was
// gone before it was acknowledged.
func (c *client) tryPut(root handle, name string, i int) (final, body string, ok bool) {
	st, d, ok := c.try(procCreate, fh(root), str(name+".tmp"), u32(guarded), sattr{mode: ptr(uint32(0o644))}.xdr())
	if !ok || st != statusOK {
		return "", "", false
	}
	h, _ := c.made(st, d)
	body = strings.Repeat(name, 1+i%50)
	if i%2 == 0 {
		st, _, ok = c.try(procWrite, fh(h), u64(0), u32(uint32(len(body)), fileSync), str(body))
	} else if st, _, ok = c.try(procWrite, fh(h), u64(0), u32(uint32(len(body)), unstable), str(body)); ok && st == statusOK {
		st, _, ok = c.try(procCommit, fh(h), u64(0), u32(0))
	}
	if !ok || st != statusOK {
		return "", "", false
	}
	st, _, ok = c.try(procRename, fh(root), str(name+".tmp"), fh(root), str(name))
	return name, body, ok && st == statusOK
}

// A disk that is full is told as such, harms nothing that is there, and can be
// written again when there is room.
func TestAFullDiskLosesNothing(t *testing.T) {
	needRoot(t)
	for name, path := range kinds {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.stop()
			dir := filepath.Join(w.dir, "small")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2m,mode=755"); err != nil {
				t.Skipf("skipped: no tmpfs can be mounted here: %v", err)
			}
			defer func() {
				w.stop()
				if err := unix.Unmount(dir, 0); err != nil {
					t.Errorf("taking the small disk away: %v", err)
				}
			}()
			w.dir = dir
			if name == "records" {
				useRecords(t, w)
			}
			w.start()
			c := w.dial(addr1)
			root := c.mustMount(path)
			c.put(root, "kept", "kept")
			var names []string
			st := statusOK
			for i := 0; st == statusOK; i++ {
				var h handle
				if h, st = c.create(root, fmt.Sprint("fill-", i), guarded, sattr{}); st == statusOK {
					names = append(names, fmt.Sprint("fill-", i))
					st, _, _ = c.write(h, 0, fileSync, strings.Repeat("x", 64<<10))
				}
			}
			c.must("filling the disk", st, statusNoSpc)
			w.restart() // a full disk keeps nobody from what is there
			c = w.dial(addr1)
			if got := c.content(c.walk(root, "kept")); got != "kept" {
				t.Errorf("on the full disk, the old file reads %q", got)
			}
			for _, n := range names[:len(names)/2] {
				c.must("removing on a full disk", c.remove(root, n), statusOK)
			}
			c.put(root, "after", "after")
			w.restart()
			c = w.dial(addr1)
			for _, n := range []string{"kept", "after"} {
				if got := c.content(c.walk(root, n)); got != n {
					t.Errorf("%s reads %q", n, got)
				}
			}
		})
	}
}

// TestWithoutDescriptorsTheNodeWaits: a server that can open no more files tells
// clients to ask again later, not that something failed; and tells its operator.
func TestWithoutDescriptorsTheNodeWaits(t *testing.T) {
	needRoot(t)
	w := newWorld(t, nil)
	c := w.dial(addr1)
	root := c.mustMount("/persist/n1")
	const files = 100
	for i := range files {
		c.put(root, fmt.Sprint(i), "body")
	}
	w.restart() // nothing is open any more
	c = w.dial(addr1)
	root = c.mustMount("/persist/n1")
	restore := fewDescriptors(t, 20)
	waits := 0
	for i := range files {
		switch _, _, st := c.lookup(root, fmt.Sprint(i)); st {
		case statusOK:
		case statusJukebox:
			waits++
		default:
			restore()
			t.Fatalf("without descriptors, LOOKUP answers %v", st)
		}
	}
	restore()
	if waits == 0 || len(w.heard(boot.NFSError)) == 0 {
		t.Errorf("%d calls of %d were told to wait, and the operator heard of %d errors", waits, files, len(w.heard(boot.NFSError)))
	}
	for i := range files {
		if got := c.content(c.walk(root, fmt.Sprint(i))); got != "body" {
			t.Errorf("file %d holds %q", i, got)
		}
	}
}

// fewDescriptors leaves the process so many descriptors more than it has.
func fewDescriptors(t *testing.T, more uint64) (restore func()) {
	t.Helper()
	have, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	few := unix.Rlimit{Cur: uint64(len(have)) + more, Max: was.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	restore = sync.OnceFunc(func() { unix.Setrlimit(unix.RLIMIT_NOFILE, &was) })
	t.Cleanup(restore)
	return restore
}

// A directory that is not empty stays, and of the attempts to remove it nothing
// does: a node that tries again and again must not take the server's descriptors.
func TestARemovalThatFailsKeepsNothingOpen(t *testing.T) {
	needRoot(t)
	w := newWorld(t, nil)
	c := w.dial(addr1)
	root := c.mustMount("/persist/n1")
	c.mkdir(root, "empty", 0o755)
	for i := range 20 {
		name := fmt.Sprint("full-", i)
		full, _ := c.mkdir(root, name, 0o755)
		c.put(full, "in the way", "")
		c.must("removing a full directory", c.rmdir(root, name), statusNotEmpty)
		c.must("renaming over a full directory", c.rename(root, "empty", root, name), statusNotEmpty)
	}
	for _, place := range w.volumes.exports {
		cache := place.x.tree.(*disk).files
		cache.mu.Lock()
		for name, f := range cache.files {
			if f.uses > 0 {
				t.Errorf("no call is under way, and the file %x is held %d times", name, f.uses)
			}
		}
		cache.mu.Unlock()
	}
}

// TestANeighboursFilesDoNotTakeAllDescriptors: what is kept open for one node is
// closed where another's calls find no descriptor left. It would wait for ever
// otherwise: the one that has them need not call again.
func TestANeighboursFilesDoNotTakeAllDescriptors(t *testing.T) {
	needRoot(t)
	w := newWorld(t, nil)
	const files = 60
	before := w.dial(addr2)
	root2 := before.mustMount("/persist/n2")
	for i := range files {
		before.put(root2, fmt.Sprint(i), "body")
	}
	w.restart() // nothing is open any more
	c, other := w.dial(addr1), w.dial(addr2)
	root, others := c.mustMount("/persist/n1"), other.mustMount("/persist/n2")
	restore := fewDescriptors(t, 80)
	defer restore()
	for i := range files / 2 {
		c.put(root, fmt.Sprint(i), "body")
	}
	for i := range files {
		st := statusJukebox
		for try := 0; st == statusJukebox && try < 3; try++ {
			_, _, st = other.lookup(others, fmt.Sprint(i))
		}
		other.must("looking up a file after its neighbour opened many", st, statusOK)
	}
}
