package nfs

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"rhizome/serve/boot"
	"rhizome/serve/rpc"
	"rhizome/serve/rpc/rpctest"
)

// captured is one call of a real FreeBSD boot.
type captured struct {
	transport string
	// head is the message up to the arguments, and args those.
	head, args         []byte
	program, procedure uint32
	// handle begins an NFS call's arguments, and rest follows it.
	handle string
	rest   []byte
	// on is the file the handle means.
	on *node
}

// node is a file of the machine that was captured, as far as its calls tell:
// the replies were not kept.
type node struct {
	path     string
	children map[string]*node
	dir      bool
	symlink  bool
	size     uint64
	// ours is the handle it has here.
	ours []byte
}

// readCaptured reads what testdata/extract wrote.
func readCaptured(t *testing.T, name string) []*captured {
	t.Helper()
	f, err := os.Open(path.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var calls []*captured
	for lines := bufio.NewScanner(z); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		msg, err := hex.DecodeString(fields[2])
		if err != nil {
			t.Fatal(err)
		}
		calls = append(calls, parseCaptured(fields[0], msg))
	}
	return calls
}

func parseCaptured(transport string, msg []byte) *captured {
	d := rpc.NewDecoder(msg)
	d.Fixed(12)
	c := &captured{transport: transport, program: d.Uint32()}
	d.Uint32()
	c.procedure = d.Uint32()
	for range 2 { // credential and verifier
		d.Uint32()
		d.Opaque(400)
	}
	c.args = d.Rest()
	c.head = msg[:len(msg)-len(c.args)]
	if c.program == Program && c.procedure != procNull {
		c.handle = string(d.Opaque(maxHandle))
		c.rest = d.Rest()
	}
	return c
}

// inferTree makes of the calls a tree that they could have been done on. A
// handle that was not seen before is taken for that of the name looked up last
// that has none yet; names that get none are those that were not found.
func inferTree(calls []*captured) (root *node, all []*node) {
	byHandle := map[string]*node{}
	var lookups []func(*node) bool
	for _, c := range calls {
		if c.handle == "" {
			continue
		}
		n := byHandle[c.handle]
		if n == nil {
			n = &node{children: map[string]*node{}}
			byHandle[c.handle] = n
			all = append(all, n)
			if root == nil {
				root, n.dir = n, true
			} else {
				for i := len(lookups) - 1; i >= 0; i-- {
					if lookups[i](n) {
						break
					}
				}
			}
		}
		c.on = n
		if name := n.learn(c); name != "" {
			lookups = append(lookups, func(child *node) bool {
				if n.children[name] != nil {
					return false
				}
				child.path = path.Join(n.path, name)
				n.children[name] = child
				return true
			})
		}
	}
	return root, all
}

// learn notes what a call says about the file it is on, and gives the name
// that it looks up.
func (n *node) learn(c *captured) string {
	d := rpc.NewDecoder(c.rest)
	switch c.procedure {
	case procLookup:
		n.dir = true
		if name := string(d.Opaque(maxName)); name != "." && name != ".." {
			return name
		}
	case procReaddir:
		n.dir = true
	case procReadlink:
		n.symlink = true
	case procRead:
		n.size = max(n.size, d.Uint64()+uint64(d.Uint32()))
	}
	return ""
}

// files writes the tree as a layer.
func (n *node) files() []file {
	var fs []file
	names := make([]string, 0, len(n.children))
	for name := range n.children {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		c := n.children[name]
		switch {
		case c.dir:
			fs = append(fs, dir(c.path, 0o755))
		case c.symlink:
			fs = append(fs, link(c.path, "target"))
		default:
			fs = append(fs, reg(c.path, 0o755, text(int(c.size))))
		}
		fs = append(fs, c.files()...)
	}
	return fs
}

// TestCapturedFreeBSDBootsAreAnsweredAsTheLoaderNeeds sends the calls of two
// real boots, loader and kernel, in their order, with our handles put in.
func TestCapturedFreeBSDBootsAreAnsweredAsTheLoaderNeeds(t *testing.T) {
	for _, name := range []string{"freebsd15-bios-pxeboot-e1000.calls.gz", "freebsd15-uefi-loader-virtio.calls.gz"} {
		t.Run(name, func(t *testing.T) {
			calls := readCaptured(t, name)
			root, all := inferTree(calls)
			w := newWorld(t, root.files()...)
			w.exports.views["/nodes/suigintou"] = w.view
			delete(w.exports.views, "/nodes/a")
			s := w.listenAt(rpc.Limits{}, 0)
			r := replayer{t: t, root: root, clients: map[string]*rpctest.Client{}}
			for network, addr := range map[string]string{"udp": s.udp.String(), "tcp": s.tcp.String()} {
				c, err := rpctest.Dial(network, addr)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				r.clients[network] = c
			}
			for i, c := range calls {
				if err := r.replay(c); err != nil {
					t.Fatalf("call %d of %d, %s procedure %d of program %d: %v", i, len(calls), c.transport, c.procedure, c.program, err)
				}
			}
			t.Logf("%d calls on %d files", len(calls), len(all))
			want := []boot.Kind{boot.MountDone, boot.NFSFirstCall, boot.NFSInit}
			if got := w.kinds(); !slices.Equal(got, want) {
				t.Errorf("the boot made the events %v", got)
			}
		})
	}
}

type replayer struct {
	t       *testing.T
	root    *node
	clients map[string]*rpctest.Client
}

// replay sends one call with our handle in it, and checks the reply.
func (r *replayer) replay(c *captured) error {
	msg := slices.Concat(c.head, c.args)
	if c.handle != "" {
		if c.on.ours == nil {
			return fmt.Errorf("no reply has given a handle of %q yet", c.on.path)
		}
		msg = slices.Concat(c.head, rpctest.Opaque(c.on.ours), c.rest)
	}
	if c.transport == "tcp" {
		msg = rpctest.Record(msg)
	}
	client := r.clients[c.transport]
	if _, err := client.Write(msg); err != nil {
		return err
	}
	reply, err := client.Receive()
	if err != nil {
		return err
	}
	if reply.XID != rpcXID(c.head) || reply.Denied || reply.Status != rpc.Success {
		return fmt.Errorf("the reply %+v", reply)
	}
	return r.check(c, reply.Body)
}

func rpcXID(head []byte) uint32 {
	d := rpc.NewDecoder(head)
	return d.Uint32()
}

func (r *replayer) check(c *captured, body []byte) error {
	switch {
	case c.program == rpc.PortmapProgram:
		if !bytes.Equal(body, rpctest.Words(Port)) && !bytes.Equal(body, rpctest.Words(MountPort)) {
			return fmt.Errorf("GETPORT answered %x", body)
		}
		return nil
	case c.program == MountProgram:
		d := rpc.NewDecoder(body)
		st, h, n, first := d.Uint32(), d.Opaque(maxHandle), d.Uint32(), d.Uint32()
		if st != 0 || len(h)%4 != 0 || n == 0 || first != rpc.AuthSys || !d.Ok() {
			return fmt.Errorf("MNT answered %x", body)
		}
		r.root.ours = bytes.Clone(h)
		return nil
	case c.procedure == procNull:
		return nil
	}
	res, err := parseResults(c.procedure, body)
	if err != nil {
		return err
	}
	return c.checkResults(res)
}

func (c *captured) checkResults(res results) error {
	if res.Obj == nil {
		return fmt.Errorf("no attributes in %+v", res)
	}
	d := rpc.NewDecoder(c.rest)
	switch c.procedure {
	case procLookup:
		name := string(d.Opaque(maxName))
		child := c.on.children[name]
		if name == "." || name == ".." {
			return nil
		}
		if child == nil {
			if res.Status != errNoEnt {
				return fmt.Errorf("LOOKUP of %q, which there is not: status %d", name, res.Status)
			}
			return nil
		}
		if res.Status != ok || res.Dir == nil {
			return fmt.Errorf("LOOKUP of %q in %q: %+v", name, c.on.path, res)
		}
		child.ours = bytes.Clone(res.Handle)
		return nil
	case procRead:
		return c.checkRead(res, d.Uint64(), d.Uint32())
	}
	if res.Status != ok {
		return fmt.Errorf("status %d on %q", res.Status, c.on.path)
	}
	return nil
}

func (c *captured) checkRead(res results, offset uint64, count uint32) error {
	if res.Status != ok || len(res.Data) != int(count) {
		return fmt.Errorf("READ of %d at %d of %q: status %d, %d bytes", count, offset, c.on.path, res.Status, len(res.Data))
	}
	line := offset &^ 15
	want := fmt.Appendf(nil, "%015d\n", line/16)[offset-line:]
	if !bytes.HasPrefix(res.Data, want[:min(len(want), len(res.Data))]) {
		return fmt.Errorf("READ at %d of %q gave %q", offset, c.on.path, res.Data[:16])
	}
	return nil
}
