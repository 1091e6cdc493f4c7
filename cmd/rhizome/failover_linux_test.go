package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"rhizome/cmd/rhizome/internal/rig"
)

// pair is two servers of one image, each in a network of its own that has the
// server's address, and a client whose cable goes to the one or the other: the
// address moves with the cable. Each server has its own store.
type pair struct {
	t       *testing.T
	client  *rig.Net
	nets    [2]*rig.Net
	stores  [2]string
	servers [2]*rig.Server
	binary  string
}

func newPair(t *testing.T, image func(store string)) *pair {
	p := &pair{t: t, binary: filepath.Join(t.TempDir(), "rhizome")}
	if out, err := exec.Command("go", "build", "-o", p.binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	p.client = p.network("client", "10.77.0.11/24")
	for i := range p.nets {
		p.stores[i] = filepath.Join(t.TempDir(), "store")
		image(p.stores[i])
		p.nets[i] = p.network(fmt.Sprint("server", i), "10.77.0.1/24")
		// One hardware address for both, as VRRP has it: the client's neighbour
		// cache need not hear of the move.
		p.ip(p.nets[i], "link", "set", "br0", "address", "02:00:00:77:00:01")
		cable := fmt.Sprint("cable", i)
		p.ip(p.nets[i], "link", "add", "port", "type", "veth", "peer", "name", cable, "netns", p.client.Name)
		p.ip(p.nets[i], "link", "set", "port", "master", "br0", "up")
		p.ip(p.client, "link", "set", cable, "master", "br0")
		p.start(i)
	}
	return p
}

func (p *pair) network(role, cidr string) *rig.Net {
	n, err := rig.NewNet(p.t.Context(), fmt.Sprintf("rz-pair-%d-%s", os.Getpid(), role), cidr)
	if err != nil {
		p.t.Skipf("skipped: no network namespace: %v", err)
	}
	p.t.Cleanup(func() { n.Close() })
	return n
}

func (p *pair) ip(n *rig.Net, args ...string) {
	p.t.Helper()
	if err := n.Run(p.t.Context(), append([]string{"ip"}, args...)...); err != nil {
		p.t.Fatal(err)
	}
}

// start starts server i and waits until it answers.
func (p *pair) start(i int) {
	p.t.Helper()
	s, err := p.nets[i].Start(context.WithoutCancel(p.t.Context()), nil,
		p.binary, "--store", p.stores[i], "serve", "bsd", "--interface", "br0", "--dhcp", "off")
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(s.Kill)
	p.await(s.Console, 0, `serve\.ready`)
	p.servers[i] = s
}

// plug moves the address to server i.
func (p *pair) plug(i int) {
	p.t.Helper()
	p.ip(p.client, "link", "set", fmt.Sprint("cable", 1-i), "down")
	p.ip(p.client, "link", "set", fmt.Sprint("cable", i), "up")
}

// await waits for a pattern and returns where it ended.
func (p *pair) await(c *rig.Console, from int, pattern string) int {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 2*time.Minute)
	defer cancel()
	_, end, err := c.Wait(ctx, from, pattern)
	if err != nil {
		p.t.Fatalf("%v\n%s", err, c.Tail(2000))
	}
	return end
}

// moreRounds waits until the client has begun and ended a round anew.
func (p *pair) moreRounds(c *rig.Console) {
	p.t.Helper()
	p.await(c, len(c.Text()), `(?s)round \d+\n.*round \d+\n`)
}

// TestAClientReadsOnWhereTheAddressMovesBetweenTwoServers: two processes, each
// with a store and a network of its own, and of the same digest. Either is
// killed, and the address goes to the other: a client that knows nothing of it,
// libnfs, reads on through the handles it has, and every byte is right.
func TestAClientReadsOnWhereTheAddressMovesBetweenTwoServers(t *testing.T) {
	if err := rig.Usable(); err != nil {
		t.Skipf("skipped: %v", err)
	}
	recipe := tiny(t)
	local := filepath.Join(filepath.Dir(recipe), "n1")
	names := writeBodies(t, local, 8, 3<<20)
	reread := filepath.Join(t.TempDir(), "reread")
	if out, err := exec.Command("gcc", "-O2", "-Wall", "-o", reread, "testdata/nfsclient/reread.c", "-lnfs").CombinedOutput(); err != nil {
		t.Skipf("skipped: the client was not built (gcc, libnfs-dev): %v\n%s", err, out)
	}
	digests := map[string]bool{}
	p := newPair(t, func(store string) {
		code, out, errs := rhizome(t, "--store", store, "build", recipe, "--tag", "bsd")
		if code != 0 {
			t.Fatalf("build: %s", errs)
		}
		digests[out] = true
	})
	if len(digests) != 1 {
		t.Fatalf("the two stores have two images: %v", digests)
	}
	p.plug(0)
	c, err := p.client.Start(context.WithoutCancel(t.Context()), nil, append([]string{reread, "nfs://10.77.0.1/nodes/n1", local}, names...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Kill)
	p.moreRounds(c.Console)
	for i := range p.servers {
		p.servers[i].Kill()
		p.plug(1 - i)
		p.moreRounds(c.Console)
		// Back, and forth again: both live, and each meets a connection that it
		// does not know.
		p.start(i)
		p.plug(i)
		p.moreRounds(c.Console)
		p.plug(1 - i)
		p.moreRounds(c.Console)
	}
	c.Stop()
	p.await(c.Console, 0, `round (\d+)\ndone\n$`)
	t.Log(c.Console.Tail(20))
}

// writeBodies makes files of bytes that no other place has, and names them.
func writeBodies(t *testing.T, dir string, n, size int) []string {
	t.Helper()
	var names []string
	for i := range n {
		var body bytes.Buffer
		r := rand.NewPCG(uint64(i), 77)
		for body.Len() < size {
			fmt.Fprintf(&body, "%d %d %x\n", i, body.Len(), r.Uint64())
		}
		name := fmt.Sprint("body", i)
		if err := os.WriteFile(filepath.Join(dir, name), body.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		names = append(names, "/"+name)
	}
	return names
}
