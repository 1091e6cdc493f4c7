package dhcp_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"rhizome/registry/imagefmt"
	"rhizome/serve/boot"
	"rhizome/serve/dhcp"
)

// patience is the end of a wait that has failed; nothing is timed by it. A machine
// emulated on busy cores takes minutes to its second request.
const patience = 5 * time.Minute

// serverSpec is what a server process of a test is started with.
type serverSpec struct {
	Config     dhcp.Config
	Machines   []dhcp.Machine
	ProbeEvery time.Duration
	// HTTP has files served as well: every GET is an event.
	HTTP bool
}

const specEnv = "RZT_DHCP_SERVER"

// TestMain is the tests, or a server in a namespace that a test started.
func TestMain(m *testing.M) {
	if spec := os.Getenv(specEnv); spec != "" {
		os.Exit(serveSpec(spec))
	}
	if spec := os.Getenv(vandalEnv); spec != "" {
		if err := sendSpec(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func serveSpec(text string) int {
	var spec serverSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	events := make(chan boot.Event, 1024)
	go func() {
		for e := range events {
			_ = json.NewEncoder(os.Stdout).Encode(e)
		}
	}()
	s := dhcp.Server{
		Config: spec.Config, Nodes: table(spec.Machines), ProbeEvery: spec.ProbeEvery,
		Events: func(e boot.Event) { events <- e },
		Log:    slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Ready:  func() { events <- boot.Event{Kind: boot.ServeReady} },
	}
	if spec.HTTP {
		go serveHTTP(events)
	}
	if err := s.Serve(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// serveHTTP gives every path an iPXE script that ends the boot.
func serveHTTP(events chan<- boot.Event) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		events <- boot.Event{Kind: boot.HTTPGet, File: r.URL.Path}
		_, _ = io.WriteString(w, "#!ipxe\necho booted\npoweroff\n")
	})
	_ = http.ListenAndServe("10.77.0.1:80", h)
}

// table is a Nodes for tests.
type table []dhcp.Machine

func (t table) ByMAC(mac net.HardwareAddr) (dhcp.Machine, bool) {
	for _, m := range t {
		for _, have := range m.Node.MACs {
			if have == mac.String() {
				return m, true
			}
		}
	}
	return dhcp.Machine{}, false
}

func testCluster() imagefmt.Cluster {
	return imagefmt.Cluster{Name: "beowulf", Network: imagefmt.Network{
		Subnet: netip.MustParsePrefix("10.77.0.0/24"), Server: netip.MustParseAddr("10.77.0.1"),
		Gateway: netip.MustParseAddr("10.77.0.254"), DNS: []netip.Addr{netip.MustParseAddr("10.77.0.253")},
		Domain: "cluster.example", MTU: 1500, LeaseSeconds: 3600,
	}}
}

// linuxNode is suigintou with Debian; its MAC and address are those of the
// captured packets.
func linuxNode() dhcp.Machine {
	return dhcp.Machine{Cluster: testCluster(), Digest: "sha256:1111", Node: imagefmt.Node{
		Name: "suigintou", MACs: []string{"52:54:00:77:00:01"}, Address: netip.MustParseAddr("10.77.0.51"), Root: "nfs",
		Boot: imagefmt.Boot{
			OS: "linux", Kernel: "/boot/vmlinuz", Initrd: "/boot/initrd.img", Cmdline: "root=/dev/nfs",
			BIOS: "/usr/lib/ipxe/undionly.kpxe", UEFI: "/usr/lib/ipxe/ipxe.efi", UEFIArm64: "/usr/lib/ipxe/arm64/ipxe.efi",
		},
	}}
}

func freebsdNode() dhcp.Machine {
	m := linuxNode()
	m.Node.Boot = imagefmt.Boot{
		OS: "freebsd", BIOS: "/boot/pxeboot", UEFI: "/boot/loader.efi",
		Kenv: []string{"boot.nfsroot.options=nolockd,nocto,rsize=32768", "nfs.read_size=8192", "init_script=/etc/rhizome/early.sh"},
	}
	return m
}

// lab is a network of namespaces: a bridge, where the server is, and machines.
type lab struct {
	t  *testing.T
	ns string // where the bridge and the server are
	n  int
}

var labs atomic.Int32

const serverInterface = "br0"

// newLab makes the network, and its end takes it away.
func newLab(t *testing.T) *lab {
	t.Helper()
	needs(t, "ip")
	l := &lab{t: t, ns: fmt.Sprintf("rzt-dhcp-%d-%d", os.Getpid(), labs.Add(1))}
	l.netns(l.ns)
	l.ip(l.ns, "link add br0 address 52:54:00:77:00:f0 type bridge forward_delay 0 mcast_snooping 0")
	l.ip(l.ns, "addr add 10.77.0.1/24 dev br0")
	l.ip(l.ns, "link set br0 up")
	if dir := os.Getenv("RZT_CAPTURE"); dir != "" {
		l.capture(filepath.Join(dir, strings.ReplaceAll(t.Name(), "/", "-")+".pcap"))
	}
	return l
}

func needs(t *testing.T, programs ...string) {
	t.Helper()
	if os.Geteuid() != 0 || runtime.GOOS != "linux" {
		t.Skip("skipped: network namespaces need root on Linux")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("skipped: %s is not installed", p)
		}
	}
}

func (l *lab) netns(name string) {
	l.t.Helper()
	run(l.t, "ip", "netns", "add", name)
	l.t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	l.ip(name, "link set lo up")
}

func (l *lab) ip(ns, command string) {
	l.t.Helper()
	run(l.t, "ip", append([]string{"-n", ns}, strings.Fields(command)...)...)
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// machine is a namespace with one network card, on the bridge.
type machine struct {
	*lab
	name, dev string
}

func (l *lab) machine(mac string) *machine {
	l.t.Helper()
	l.n++
	m := &machine{lab: l, name: fmt.Sprintf("%s-m%d", l.ns, l.n), dev: fmt.Sprintf("e%d-%d", os.Getpid()%100000, l.n)}
	l.netns(m.name)
	port := fmt.Sprintf("port%d", l.n)
	l.ip(l.ns, fmt.Sprintf("link add %s type veth peer name %s netns %s address %s", port, m.dev, m.name, mac))
	l.ip(l.ns, "link set "+port+" master br0 up")
	l.ip(m.name, "link set "+m.dev+" up")
	return m
}

// command runs in a namespace; its end of life is the test's.
func (l *lab) command(ns, name string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithCancel(context.Background())
	l.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", ns, name}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

func (l *lab) background(cmd *exec.Cmd) {
	l.t.Helper()
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		_ = cmd.Cancel()
		_ = cmd.Wait()
	})
}

func (l *lab) capture(path string) {
	cmd := l.command(l.ns, "tcpdump", "-i", "br0", "-s0", "-U", "--immediate-mode", "-w", path)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	l.background(cmd)
	_, _ = bufio.NewReader(stderr).ReadString('\n')
	go func() { _, _ = io.Copy(io.Discard, stderr) }()
}

// service is a server process and the events it tells.
type service struct {
	t      *testing.T
	cmd    *exec.Cmd
	events chan boot.Event
	log    *lines
}

// lines gathers a process's output for the report of a failure.
type lines struct {
	seen chan string
	mu   sync.Mutex
	buf  bytes.Buffer
}

func newLines() *lines { return &lines{seen: make(chan string, 4096)} }

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range strings.SplitAfter(string(p), "\n") {
		select {
		case l.seen <- s:
		default:
		}
	}
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// serve starts a server in the lab and waits until it listens.
func (l *lab) serve(spec serverSpec) *service {
	l.t.Helper()
	s := l.start(spec)
	s.wait(boot.ServeReady)
	return s
}

func (l *lab) start(spec serverSpec) *service {
	l.t.Helper()
	if spec.Config.Interface == "" {
		spec.Config.Interface = serverInterface
	}
	text, err := json.Marshal(spec)
	if err != nil {
		l.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		l.t.Fatal(err)
	}
	s := &service{t: l.t, cmd: l.command(l.ns, self), events: make(chan boot.Event, 4096), log: newLines()}
	s.cmd.Env = append(os.Environ(), specEnv+"="+string(text))
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	s.cmd.Stderr = s.log
	l.background(s.cmd)
	go s.read(out)
	return s
}

func (s *service) read(out io.Reader) {
	defer close(s.events)
	d := json.NewDecoder(out)
	for {
		var e boot.Event
		if d.Decode(&e) != nil {
			return
		}
		s.events <- e
	}
}

// wait returns the next event of a kind, passing over others.
func (s *service) wait(k boot.Kind) boot.Event {
	s.t.Helper()
	end := time.After(patience)
	var seen []string
	for {
		select {
		case e, ok := <-s.events:
			if !ok {
				s.t.Fatalf("the server ended before event %s; it saw %v\n%s", k, seen, s.log)
			}
			if e.Kind == k {
				return e
			}
			seen = append(seen, string(e.Kind)+" "+e.Client)
		case <-end:
			s.t.Fatalf("no event %s; there were %v\n%s", k, seen, s.log)
		}
	}
}

// drain forgets the events of before.
func (s *service) drain() {
	for {
		select {
		case <-s.events:
		default:
			return
		}
	}
}

// waitLog waits for words of the server's log.
func (s *service) waitLog(words string) {
	s.t.Helper()
	end := time.After(patience)
	for {
		select {
		case line := <-s.log.seen:
			if strings.Contains(line, words) {
				return
			}
		case <-end:
			s.t.Fatalf("the log does not say %q but:\n%s", words, s.log)
		}
	}
}

// waitFile waits until a client's script has written its file.
func waitFile(t *testing.T, path string) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		}
	}
	t.Fatalf("nobody wrote %s", path)
}
