package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rhizome/cmd/rhizome/internal/rig"
)

// bootLimit is how long an emulated machine may take to its userland before a
// test gives up; it asserts nothing about speed.
const bootLimit = 8 * time.Minute

var nets atomic.Int32

// lan makes a namespace with the server's address on its bridge.
func lan(t *testing.T) *rig.Net {
	t.Helper()
	return network(t, "10.77.0.1/24")
}

// network makes a namespace with an address on its bridge.
func network(t *testing.T, cidr string) *rig.Net {
	t.Helper()
	n, err := rig.NewNet(t.Context(), fmt.Sprintf("rz-e2e-%d-%d", os.Getpid(), nets.Add(1)), cidr)
	if err != nil {
		t.Skipf("skipped: no network namespace: %v", err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// serve starts the program in the namespace and waits until it answers.
func (w *world) serve(t *testing.T, n *rig.Net, more ...string) *rig.Server {
	t.Helper()
	return w.serveImage(t, n, "e2e:v1", more...)
}

func (w *world) serveImage(t *testing.T, n *rig.Net, image string, more ...string) *rig.Server {
	t.Helper()
	args := append([]string{w.binary, "--store", w.store, "serve", image, "--interface", n.Bridge}, more...)
	s, err := n.Start(context.WithoutCancel(t.Context()), nil, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Stop()
		if t.Failed() {
			t.Logf("serve's last words:\n%s", s.Console.Tail(4000))
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, _, err := s.Console.Wait(ctx, 0, `serve\.ready`); err != nil {
		t.Fatalf("serve did not start: %v\n%s", err, s.Console.Text())
	}
	return s
}

// boot switches machine number i of the recipe on.
func (w *world) boot(t *testing.T, n *rig.Net, i int, change func(*rig.Machine)) *rig.Running {
	t.Helper()
	m := rig.Machine{Name: fmt.Sprintf("n%d", i), MAC: fmt.Sprintf("52:54:00:77:00:%02x", i), MemoryMB: 512, CPU: w.cpu}
	if change != nil {
		change(&m)
	}
	r, err := n.Boot(context.WithoutCancel(t.Context()), m, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Off()
		if t.Failed() {
			t.Logf("%s's console ends with:\n%s", m.Name, r.Console.Tail(4000))
		}
	})
	return r
}

// await waits for a pattern on a machine's console and returns its groups.
func await(t *testing.T, r *rig.Running, from int, pattern string) ([]string, int) {
	t.Helper()
	return awaitIn(t, r.Console, from, pattern)
}

// awaitIn waits for a pattern in what a machine or a process printed.
func awaitIn(t *testing.T, c *rig.Console, from int, pattern string) ([]string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), bootLimit, errors.New("it took too long"))
	defer cancel()
	groups, end, err := c.Wait(ctx, from, pattern)
	if err != nil {
		t.Fatal(err)
	}
	return groups, end
}

// login waits for the root shell on a machine's console and quiets the kernel
// and systemd, who write to the same console.
func login(t *testing.T, r *rig.Running, name string) {
	t.Helper()
	await(t, r, 0, `root@`+name+`:`)
	if err := r.Type("dmesg -n 1; kill -s RTMIN+21 1; systemctl is-system-running --wait; echo QUI''ET\n"); err != nil {
		t.Fatal(err)
	}
	await(t, r, 0, `QUIET`)
}

// answer is a line that a command printed; whatever the console got beside it
// does not begin with the mark.
var answer = regexp.MustCompile(`OUT\|([^\r\n]*)`)

// shell runs a command in the root shell on a machine's serial console and
// returns what it printed. The marks are put together by the shell, so that
// the echo of the command is not taken for them.
func shell(t *testing.T, r *rig.Running, command string) string {
	t.Helper()
	from := len(r.Console.Text())
	if err := r.Type(fmt.Sprintf("{ %s; } > /run/out 2>&1; s=$?; sed 's/^/OU''T|/' /run/out; echo STATUS=$s E''ND\n", command)); err != nil {
		t.Fatal(err)
	}
	g, _ := await(t, r, from, `(?s)^(.*?)STATUS=(\d+) END`)
	var lines []string
	for _, l := range answer.FindAllStringSubmatch(g[1], -1) {
		lines = append(lines, l[1])
	}
	if g[2] != "0" {
		t.Fatalf("on the node, %q ended with status %s:\n%s", command, g[2], strings.Join(lines, "\n"))
	}
	return strings.Join(lines, "\n")
}

func freeLoopback() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// answering waits until something accepts connections.
func answering(host string, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		c, err := net.DialTimeout("tcp", host, time.Second)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("nothing answers at %s: %w", host, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
