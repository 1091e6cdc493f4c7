package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"rhizome/cmd/rhizome-node/internal/agent"
	"rhizome/registry/imagefmt"
	"rhizome/serve/boot"
	"rhizome/serve/bootspec"
	httpd "rhizome/serve/http"
	"rhizome/serve/node"
	"rhizome/serve/node/nodeapi"
	"rhizome/serve/rootfs"
	"rhizome/serve/volume"
)

// The tests run rhizome-node itself, which is this test's program under
// another name, against a server in a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv("RHIZOME_TEST_SERVER") != "" {
		runServer(os.Getenv("RHIZOME_TEST_SERVER"), os.Getenv("RHIZOME_TEST_ADDR"))
		return
	}
	if os.Getenv("RHIZOME_RUN") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// cluster is a store in a folder, and two nodes at 127.0.0.1 and 127.0.0.2
// that share an export. Both see it at DIR/mnt, where nothing is mounted: what
// they can see there is what prefetch puts there.
type cluster struct {
	*testing.T
	dir, mnt string
	port     string
	server   *exec.Cmd
	// region, where it is set, is another than mnt/src.
	region string
}

// nodesOf is what the server knows of the nodes: each has DIR/conf of its image
// to change, and view is that image.
type nodesOf struct {
	dir  string
	view *rootfs.View
}

func (n nodesOf) ByAddr(a netip.Addr) (volume.Node, bool) {
	name := map[string]string{"127.0.0.1": "n1", "127.0.0.2": "n2"}[a.String()]
	v := volume.Node{Cluster: "c", View: n.view}
	v.Node = imagefmt.Node{Name: name, Address: a, Shared: filepath.Join(n.dir, "mnt"), CopyOnWrite: []string{filepath.Join(n.dir, "conf")}}
	return v, name != ""
}

func (n nodesOf) ByDigest(string) *rootfs.View { return n.view }

func (n nodesOf) machine(a netip.Addr) (bootspec.Machine, bool) {
	v, ok := n.ByAddr(a)
	m := bootspec.Machine{Node: v.Node}
	m.Cluster.Name = v.Cluster
	return m, ok
}

func folder(dir, kind string) func(cluster, node string) (string, error) {
	return func(cluster, node string) (string, error) {
		d := filepath.Join(dir, kind, cluster, node)
		return d, os.MkdirAll(d, 0o700)
	}
}

// runServer serves until it is killed. Events are lines of stdout.
func runServer(dir, port string) {
	nodes := nodesOf{dir, confImage(dir)}
	var mu sync.Mutex
	events := func(e boot.Event) {
		mu.Lock()
		defer mu.Unlock()
		_ = json.NewEncoder(os.Stdout).Encode(e)
	}
	v := volume.New(volume.Config{Nodes: nodes, Persist: folder(dir, "persist"), State: folder(dir, "cow"), Events: events})
	api := node.New(node.Config{Secrets: folder(dir, "secrets"), Regions: v.Regions(), Events: events,
		Plan: func(netip.Addr) (nodeapi.Plan, bool) { return nodeapi.Plan{}, false }})
	web := &httpd.Server{Machines: nodes.machine, Under: map[string]func(http.ResponseWriter, *http.Request, bootspec.Machine){nodeapi.Prefix: api.Handle}}
	var wg sync.WaitGroup
	for _, ip := range []string{"127.0.0.1", "127.0.0.2"} {
		ln, err := net.Listen("tcp", ip+":"+port)
		if err != nil {
			panic(err)
		}
		wg.Go(func() { _ = web.Serve(context.Background(), twins{ln}) })
	}
	fmt.Println(`{"kind":"ready"}`)
	wg.Wait()
}

// twins makes the address that was called that of the caller: on the loopback
// network all callers are 127.0.0.1.
type twins struct{ net.Listener }

func (t twins) Accept() (net.Conn, error) {
	c, err := t.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return twin{c}, nil
}

type twin struct{ net.Conn }

func (t twin) RemoteAddr() net.Addr {
	called, caller := t.LocalAddr().(*net.TCPAddr), t.Conn.RemoteAddr().(*net.TCPAddr)
	return &net.TCPAddr{IP: called.IP, Port: caller.Port}
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("mounting memory takes root")
	}
	dir := t.TempDir()
	c := &cluster{T: t, dir: dir, mnt: filepath.Join(dir, "mnt"), port: freePort(t)}
	for _, d := range []string{"mnt/src", "conf/app/sub", "run1", "run2"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c.start()
	t.Cleanup(func() { c.kill(); c.unmountAll() })
	for i, ip := range []string{"127.0.0.1", "127.0.0.2"} {
		addr := net.JoinHostPort(ip, c.port)
		b, err := (&agent.Client{Server: addr}).Boot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := agent.Save(c.run(i+1), addr, b.Token); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func freePort(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}

func (c *cluster) run(node int) string { return filepath.Join(c.dir, fmt.Sprintf("run%d", node)) }

// start starts the server, and returns when it answers.
func (c *cluster) start() {
	c.Helper()
	c.server = exec.Command(os.Args[0])
	c.server.Env = append(os.Environ(), "RHIZOME_TEST_SERVER="+c.dir, "RHIZOME_TEST_ADDR="+c.port)
	events, err := os.OpenFile(filepath.Join(c.dir, "events"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.Fatal(err)
	}
	defer events.Close()
	c.server.Stdout, c.server.Stderr = events, os.Stderr
	c.server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.server.Start(); err != nil {
		c.Fatal(err)
	}
	c.await("the server", func() bool {
		conn, err := net.Dial("tcp", "127.0.0.2:"+c.port)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// await waits until something is so.
func (c *cluster) await(what string, so func() bool) {
	c.Helper()
	for range 6000 {
		if so() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	c.Fatalf("waiting for %s", what)
}

func (c *cluster) kill() {
	_ = c.server.Process.Kill()
	_ = c.server.Wait()
}

// unmountAll takes away what killed prefetches left.
func (c *cluster) unmountAll() {
	for _, run := range []string{"run1", "run2"} {
		left, _ := filepath.Glob(filepath.Join(c.dir, run, "prefetch", "*"))
		for _, d := range left {
			_ = syscall.Unmount(d, syscall.MNT_DETACH)
		}
	}
}

func (c *cluster) shared(p string) string {
	return filepath.Join(c.dir, "persist", "c", "@shared", p)
}

// lay writes files into the shared export.
func (c *cluster) lay(files ...string) {
	c.Helper()
	for i := 0; i < len(files); i += 2 {
		if err := errors.Join(os.MkdirAll(filepath.Dir(c.shared(files[i])), 0o755), os.WriteFile(c.shared(files[i]), []byte(files[i+1]), 0o644)); err != nil {
			c.Fatal(err)
		}
	}
}

func (c *cluster) read(p string) string {
	data, err := os.ReadFile(c.shared(p))
	if err != nil {
		return err.Error()
	}
	return string(data)
}

func (c *cluster) events() string {
	data, err := os.ReadFile(filepath.Join(c.dir, "events"))
	if err != nil {
		c.Fatal(err)
	}
	return string(data)
}

// command is rhizome-node on a node.
func (c *cluster) command(node int, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "RHIZOME_RUN="+c.run(node))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// do runs it to its end.
func (c *cluster) do(node int, args ...string) (code int, out string) {
	c.Helper()
	cmd := c.command(node, args...)
	var buf bytes.Buffer
	cmd.Stdout, cmd.Stderr = &buf, &buf
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), buf.String()
}

// src is the region that the stories work on.
func (c *cluster) src() string {
	if c.region != "" {
		return c.region
	}
	return filepath.Join(c.mnt, "src")
}

func TestACommandWorksInMemoryAndItsChangesGoBack(t *testing.T) {
	c := newCluster(t)
	c.lay("src/main.c", "int main(void) { return 0; }\n", "src/old/gone", "x", "src/mode", "m", "src/same", "s")
	if err := os.Link(c.shared("src/same"), c.shared("src/same2")); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(c.shared("src/same"))
	if err != nil {
		t.Fatal(err)
	}
	script := `set -e; cc -c main.c -o main.o; rm -r old; chmod 600 mode; chown 7:8 mode; ln -s main.o latest; ln main.o also.o; mkfifo pipe; mkdir -m 700 new; echo n > new/n; stat -f -c %T . ; exit 3`
	cmd := c.command(1, "prefetch", c.src(), "--", "sh", "-c", "cd "+c.src()+" && "+script)
	out, err := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != 3 || !strings.Contains(string(out), "tmpfs") {
		t.Fatalf("exit code %d, %v: %s", code, err, out)
	}
	list, err := exec.Command("sh", "-c", "cd "+c.shared("src")+" && find . -printf '%p %y %m %U:%G %l %n\n' | sort && file -b main.o").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"./mode f 600 7:8", "./latest l 777 0:0 main.o", "./also.o f 644 0:0  2", "./main.o f 644 0:0  2", "./pipe p", "./new d 700", "./new/n f", "./same2 f 644 0:0  2", "ELF"} {
		if !strings.Contains(string(list), want) {
			t.Errorf("there is no %q in\n%s", want, list)
		}
	}
	if strings.Contains(string(list), "old") {
		t.Errorf("what was removed is there:\n%s", list)
	}
	if after, err := os.Stat(c.shared("src/same")); err != nil || !os.SameFile(before, after) {
		t.Errorf("a file that nobody changed is another now (%v)", err)
	}
	if names, _ := os.ReadDir(c.src()); len(names) != 0 {
		t.Errorf("the memory was seen by others: %v", names)
	}
	if left, _ := os.ReadDir(filepath.Join(c.run(1), "prefetch")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if code, out := c.do(1, "status", "--json"); code != 0 || !strings.Contains(out, `"leases":[]`) {
		t.Errorf("status: %d %s", code, out)
	}
}

func TestWhatIsOnlyReadIsNotWrittenBack(t *testing.T) {
	c := newCluster(t)
	c.lay("src/a", "a")
	code, out := c.do(1, "prefetch", "--read-only", c.src(), "--", "sh", "-c", "cat "+c.src()+"/a; echo x > "+c.src()+"/b")
	if code == 0 || !strings.HasPrefix(out, "a") || !strings.Contains(out, "ead-only") {
		t.Errorf("%d %s", code, out)
	}
	if _, err := os.Stat(c.shared("src/b")); err == nil {
		t.Error("it was written back")
	}
}

func TestEachThingThatCanBeWrongHasItsExitCodeAndItsEvent(t *testing.T) {
	c := newCluster(t)
	c.lay("src/a", strings.Repeat("a", 1000))
	if err := os.WriteFile(c.shared("src/huge"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	outside := t.TempDir()
	for _, f := range []struct {
		name, says string
		code       int
		args       []string
	}{
		{"no command", "no command", 127, []string{c.src(), "--", "no-such-command"}},
		{"not a command", "cannot be run", 126, []string{c.src(), "--", "/etc/passwd"}},
		{"no folder", "there is no", 3, []string{c.src() + "/missing", "--", "true"}},
		{"no export", "in no writable export", 2, []string{outside, "--", "true"}},
		{"too little memory", "--memory allows", 1, []string{"--memory", "1000", c.src(), "--", "true"}},
	} {
		code, out := c.do(1, append([]string{"prefetch"}, f.args...)...)
		if code != f.code || !strings.Contains(out, f.says) {
			t.Errorf("%s: %d %s", f.name, code, out)
		}
		if !strings.Contains(c.events(), f.says) {
			t.Errorf("%s: the server does not know", f.name)
		}
	}
	if err := os.Truncate(c.shared("src/huge"), 1<<50); err == nil {
		code, out := c.do(1, "prefetch", c.src(), "--", "true")
		if code != 1 || !strings.Contains(out, "there is no memory") || !strings.Contains(c.events(), "there is no memory") {
			t.Errorf("a region of a petabyte: %d %s", code, out)
		}
	}
	if code, out := c.do(1, "prefetch", c.src()); code != 2 {
		t.Errorf("without a command: %d %s", code, out)
	}
	c.kill()
	if code, out := c.do(1, "prefetch", c.src(), "--", "true"); code != 4 {
		t.Errorf("without a server: %d %s", code, out)
	}
}

// holding starts a prefetch whose command waits until DIR/go is there; it
// returns when the command runs.
func (c *cluster) holding(node int, script string, options ...string) (*exec.Cmd, output) {
	c.Helper()
	out, err := os.Create(filepath.Join(c.dir, fmt.Sprintf("out%d", node)))
	if err != nil {
		c.Fatal(err)
	}
	defer out.Close()
	inside := filepath.Join(c.dir, fmt.Sprintf("inside%d", node))
	args := append(append([]string{"prefetch"}, options...), c.src(), "--", "sh", "-c",
		fmt.Sprintf("cd %s; touch %s; while [ -e %s ] && ! [ -e %s/go ]; do sleep 0.02; done; %s", c.src(), inside, inside, c.dir, script))
	cmd := c.command(node, args...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		c.Fatal(err)
	}
	c.await("the command", func() bool {
		_, err := os.Stat(inside)
		return err == nil
	})
	return cmd, output(out.Name())
}

// output is the file of what a command printed so far.
type output string

func (o output) String() string {
	data, err := os.ReadFile(string(o))
	if err != nil {
		return err.Error()
	}
	return string(data)
}

func (c *cluster) letGo() {
	if err := os.WriteFile(filepath.Join(c.dir, "go"), nil, 0o644); err != nil {
		c.Fatal(err)
	}
}

func TestTwoNodesFightForOneRegion(t *testing.T) {
	c := newCluster(t)
	c.lay("src/count", "1")
	first, out := c.holding(1, "echo 2 > count")
	code, said := c.do(2, "prefetch", c.src(), "--", "sh", "-c", "echo 3 > "+c.src()+"/count")
	if code != 5 || !strings.Contains(said, `node "n1" has`) || !strings.Contains(c.events(), "node.lease-refused") {
		t.Errorf("the second: %d %s", code, said)
	}
	waiting := c.command(2, "prefetch", "--wait", "60s", c.src(), "--", "sh", "-c", "cat "+c.src()+"/count; echo 3 > "+c.src()+"/count")
	var saw bytes.Buffer
	waiting.Stdout, waiting.Stderr = &saw, &saw
	if err := waiting.Start(); err != nil {
		t.Fatal(err)
	}
	c.letGo()
	if err := first.Wait(); err != nil {
		t.Errorf("the first: %v %s", err, out)
	}
	if err := waiting.Wait(); err != nil || saw.String() != "2\n" || c.read("src/count") != "3\n" {
		t.Errorf("the one who waited: %v %s; the file has %s", err, &saw, c.read("src/count"))
	}
}

func TestChangesToARegionThatChangedAreKeptAside(t *testing.T) {
	c := newCluster(t)
	c.lay("src/a", "old")
	cmd, out := c.holding(1, "echo mine > a")
	c.lay("src/a", "theirs")
	c.letGo()
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 5 || c.read("src/a") != "theirs" {
		t.Fatalf("%d %s; the file has %s", code, out, c.read("src/a"))
	}
	name := regexp.MustCompile(regexp.QuoteMeta(c.mnt) + `/(\.kept/\S+\.tar)`).FindStringSubmatch(out.String())
	if name == nil {
		t.Fatalf("no name of what was kept in %s", out)
	}
	data, err := exec.Command("tar", "-xOf", c.shared(name[1]), c.src()[1:]+"/a").Output()
	if err != nil || string(data) != "mine\n" {
		t.Errorf("what was kept has %q, %v", data, err)
	}
	if !strings.Contains(c.events(), "node.conflict") {
		t.Error("there is no event of it")
	}
}

func TestAServerThatIsKilledInTheMiddleOfAJobIsWaitedFor(t *testing.T) {
	c := newCluster(t)
	c.lay("src/a", "old")
	cmd, out := c.holding(1, "echo new > a; exit 7", "--ttl", "5s")
	c.kill()
	c.letGo()
	c.await("a try to write back", func() bool { return strings.Contains(out.String(), "back again") })
	c.start()
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 7 || c.read("src/a") != "new\n" {
		t.Errorf("%d %s; the file has %s", code, out, c.read("src/a"))
	}
}

func TestAServerThatStaysAwayLeavesTheChangesInMemory(t *testing.T) {
	c := newCluster(t)
	c.lay("src/a", "old")
	cmd, out := c.holding(1, "echo new > a", "--retry", "1s")
	c.kill()
	c.letGo()
	_ = cmd.Wait()
	left := regexp.MustCompile(`left in (\S+):`).FindStringSubmatch(out.String())
	if cmd.ProcessState.ExitCode() != 4 || left == nil {
		t.Fatalf("%d %s", cmd.ProcessState.ExitCode(), out)
	}
	if data, err := os.ReadFile(left[1] + c.src() + "/a"); err != nil || string(data) != "new\n" {
		t.Errorf("in memory is %q, %v", data, err)
	}
	c.start()
	if _, out := c.do(1, "status"); !strings.Contains(out, "LEFT BEHIND") {
		t.Errorf("status says %s", out)
	}
	if code, out := c.do(1, "drop", filepath.Base(left[1])); code != 0 {
		t.Errorf("drop: %d %s", code, out)
	}
	if _, err := os.Stat(left[1]); err == nil {
		t.Error("it is there still")
	}
}

func TestAPrefetchThatIsKilledChangesNothingAndItsLeaseEnds(t *testing.T) {
	c := newCluster(t)
	c.lay("src/a", "old")
	cmd, _ := c.holding(1, "true", "--ttl", "5s")
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	code, out := c.do(2, "prefetch", "--wait", "60s", c.src(), "--", "sh", "-c", "echo two > "+c.src()+"/a")
	if code != 0 || c.read("src/a") != "two\n" {
		t.Errorf("%d %s; the file has %s", code, out, c.read("src/a"))
	}
	if !strings.Contains(c.events(), "node.lease-expired") {
		t.Error("there is no event of the lease's end")
	}
	if names, _ := os.ReadDir(c.src()); len(names) != 0 {
		t.Errorf("the memory is still in place: %v", names)
	}
}

func TestSignalsReachTheCommand(t *testing.T) {
	c := newCluster(t)
	c.lay("src/a", "old")
	cmd, out := c.holding(1, "true")
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 128+int(syscall.SIGTERM) {
		t.Errorf("%d %s", code, out)
	}
}

func TestAJobsEndsAreTold(t *testing.T) {
	c := newCluster(t)
	if code, out := c.do(1, "job", "build", "--", "sh", "-c", "exit 9"); code != 9 {
		t.Errorf("%d %s", code, out)
	}
	for _, want := range []string{`"node.job-begin"`, `"node.job-end"`, "exit code 9"} {
		if !strings.Contains(c.events(), want) {
			t.Errorf("there is no %s", want)
		}
	}
	if code, out := c.do(1, "report", "mine", "ok", "all", "well"); code != 0 || !strings.Contains(c.events(), "all well") {
		t.Errorf("%d %s", code, out)
	}
}
