package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rhizome/cmd/rhizome/internal/rig"
)

// counter is a running serve with an admin address, and a person beside it.
type counter struct {
	t     *testing.T
	n     *rig.Net
	store string
}

// run runs a command in the server's namespace.
func (c counter) run(args ...string) string {
	c.t.Helper()
	out, err := c.n.Command(c.t.Context(), args...).CombinedOutput()
	if err != nil {
		c.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func openCounter(t *testing.T, binary string) counter {
	t.Helper()
	store := filepath.Join(t.TempDir(), "store")
	if code, _, errs := rhizome(t, "--store", store, "build", tiny(t), "--tag", "lab/bsd:v1"); code != 0 {
		t.Fatalf("build: %s", errs)
	}
	n, err := rig.NewNet(t.Context(), fmt.Sprintf("rz-admin-%d", os.Getpid()), "10.77.0.1/24")
	if err != nil {
		t.Skipf("skipped: no network namespace: %v", err)
	}
	t.Cleanup(func() { n.Close() })
	s, err := n.Start(context.WithoutCancel(t.Context()), nil, binary, "--store", store, "serve", "lab/bsd:v1", "--interface", "br0", "--admin", "127.0.0.1:8080")
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
	return counter{t, n, store}
}

// Issue 6, item 3: the store's images can be pulled from the admin address by
// another server or a plain client, and operators read there what serve counts.
func TestOperatorsAreServedOnTheAdminAddress(t *testing.T) {
	if err := rig.Usable(); err != nil {
		t.Skipf("skipped: %v", err)
	}
	binary := filepath.Join(t.TempDir(), "rhizome")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	c := openCounter(t, binary)

	want := lastLine(c.run(binary, "--store", c.store, "images", "--json"))
	other := filepath.Join(t.TempDir(), "other")
	digest := lastLine(c.run(binary, "--store", other, "pull", "127.0.0.1:8080/lab/bsd:v1", "--plain-http", "--quiet"))
	if !strings.Contains(want, digest) {
		t.Errorf("pulled %s of %s", digest, want)
	}
	c.run(binary, "--store", other, "verify", "lab/bsd:v1")

	copied := filepath.Join(t.TempDir(), "copy")
	c.run("skopeo", "copy", "--quiet", "--all", "--preserve-digests", "--insecure-policy", "--src-tls-verify=false", "docker://127.0.0.1:8080/lab/bsd:v1", "oci:"+copied+":v1")
	if _, err := os.Stat(filepath.Join(copied, "blobs", strings.Replace(digest, ":", "/", 1))); err != nil {
		t.Errorf("skopeo's copy lacks the index: %v", err)
	}

	for path, part := range map[string]string{
		"/v2/_catalog":            `"lab/bsd"`,
		"/v2/lab/bsd/tags/list":   `"v1"`,
		"/v2/lab/bsd/manifests/9": "MANIFEST_UNKNOWN",
		"/metrics":                `rhizome_node_state{node="n1",state="unseen"} 1`,
		"/nodes.json":             `"missing":"a request from the machine"`,
		"/":                       "2 unseen",
	} {
		if got := c.run("curl", "-s", "http://127.0.0.1:8080"+path); !strings.Contains(got, part) {
			t.Errorf("%s: no %s in %.300s", path, part, got)
		}
	}
	c.run("curl", "-s", "http://10.77.0.1/boot.ipxe") // a stranger, who is counted
	if got := c.run("curl", "-s", "http://127.0.0.1:8080/metrics"); !strings.Contains(got, `rhizome_events_total{kind="http.refused",node="",proto="http"} 1`) {
		t.Errorf("the stranger is not counted:\n%s", got)
	}
	// A host answers for all its addresses on every interface.
	if got := c.run("curl", "-s", "--interface", "10.77.0.1", "-w", "%{http_code}", "http://127.0.0.1:8080/v2/_catalog"); !strings.Contains(got, "403") || strings.Contains(got, "lab/bsd") {
		t.Errorf("a client of the nodes' network got %s", got)
	}
	c.refused(binary, "10.77.0.1:8080", "is on the nodes' network")
	c.refused(binary, "0.0.0.0:8080", "is every address")
	c.refused(binary, "8080", "write ADDRESS:PORT")
}

// refused wants serve to refuse an admin address with a sentence.
func (c counter) refused(binary, addr, part string) {
	c.t.Helper()
	out, err := c.n.Command(c.t.Context(), binary, "--store", c.store, "serve", "lab/bsd:v1", "--interface", "br0", "--admin", addr).CombinedOutput()
	if exitOf(err) != exitUsage || !strings.Contains(string(out), part) {
		c.t.Errorf("--admin %s: %v: %s", addr, err, out)
	}
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// Issue 6: the interface goes down and up, loses its address, and is made anew:
// serve says so, and answers by every protocol when it is back.
func TestServeOutlivesItsInterface(t *testing.T) {
	if err := rig.Usable(); err != nil {
		t.Skipf("skipped: %v", err)
	}
	binary := filepath.Join(t.TempDir(), "rhizome")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	c := openCounter(t, binary)
	guest, err := rig.NewNet(t.Context(), c.n.Name+"-g", "10.99.9.1/24")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { guest.Close() })
	c.run("ip", "link", "add", "card", "type", "veth", "peer", "name", "card", "netns", guest.Name)
	c.run("ip", "link", "set", "card", "master", "br0", "up")
	(counter{t, guest, ""}).run("ip", "link", "set", "card", "address", "52:54:00:77:00:01", "up")
	for _, step := range []struct{ name, commands string }{
		{"nothing happened", "true"},
		{"down and up", "ip link set br0 down; ip link set br0 up"},
		{"another address and back", "ip addr add 10.88.0.1/24 dev br0; ip addr del 10.77.0.1/24 dev br0; ip addr add 10.77.0.1/24 dev br0; ip addr del 10.88.0.1/24 dev br0"},
		{"made anew", "ip link del br0; ip link add br0 type bridge; ip addr add 10.77.0.1/24 dev br0; ip link set br0 up; ip link set card master br0 up"},
	} {
		t.Run(step.name, func(t *testing.T) {
			c := counter{t, c.n, c.store}
			c.run("sh", "-c", step.commands)
			if got := c.run("curl", "-s", "http://10.77.0.1/boot.ipxe"); !strings.Contains(got, "no node of this cluster has the address") {
				t.Errorf("HTTP: %s", got)
			}
			if got := c.run("rpcinfo", "-T", "udp", "10.77.0.1", "nfs", "3"); !strings.Contains(got, "ready and waiting") {
				t.Errorf("NFS: %s", got)
			}
			// udhcpc asks until it is answered: serve may be opening its sockets.
			if got := (counter{t, guest, ""}).run("busybox", "udhcpc", "-i", "card", "-f", "-q", "-n", "-t", "30", "-T", "1", "-s", "/bin/true"); !strings.Contains(got, "lease of 10.77.0.11 obtained") {
				t.Errorf("DHCP: %s", got)
			}
		})
	}
}
