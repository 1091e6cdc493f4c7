// Nodes measures what a server needs for many nodes on one base, beside the
// frame cache: it serves a base of 30,000 files with a layer for each node from
// a process of its own, mounts each node's root from an address of its own, lists
// and reads there, and stays connected. It prints the server's resident memory,
// what of it is the frame cache, and the rest, in MB.
package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"rhizome/serve/rpc"
	"rhizome/serve/rpc/rpctest"
)

// nodes is how many there are, files how many each reads.
const (
	nodes = 1000
	files = 32
)

func main() {
	run := measure
	if len(os.Args) == 2 && os.Args[1] == "serve" {
		run = func() error { return serve(context.Background()) }
	}
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func measure() error {
	server := exec.Command(os.Args[0], "serve")
	server.Stderr = os.Stderr
	in, err := server.StdinPipe()
	if err != nil {
		return err
	}
	out, err := server.StdoutPipe()
	if err != nil {
		return err
	}
	if err := server.Start(); err != nil {
		return err
	}
	defer server.Process.Kill()
	said := bufio.NewScanner(out)
	said.Scan()
	addr := said.Text()
	before, err := resident(server.Process.Pid)
	if err != nil {
		return err
	}
	for i := range nodes {
		nc, err := dial(i, addr)
		if err != nil {
			return err
		}
		defer nc.Close()
		if err := node(i, rpctest.NewClient(nc)); err != nil {
			return fmt.Errorf("node %d: %w", i, err)
		}
	}
	in.Close()
	said.Scan()
	cached, err := strconv.ParseFloat(said.Text(), 64)
	if err != nil {
		return fmt.Errorf("the server said %q: %w", said.Text(), err)
	}
	after, err := resident(server.Process.Pid)
	if err != nil {
		return err
	}
	fmt.Printf("| %d nodes on one base | MB |\n|---|---|\n| resident before the first mounts | %.0f |\n| resident with all connected | %.0f |\n| of it the frame cache | %.0f |\n| beside the frame cache | %.0f |\n",
		nodes, before/1e6, after/1e6, cached/1e6, (after-cached)/1e6)
	return nil
}

// resident is a process's resident memory in bytes.
func resident(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	return kb * 1024, err
}

// dial connects from an address of the node's own.
func dial(i int, addr string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, byte(i>>8), byte(i))}}
	return d.Dial("tcp", addr)
}

// node mounts, lists and reads as a node does that boots.
func node(i int, c *rpctest.Client) error {
	mounted, err := ask(c, 100005, 1, rpctest.Opaque([]byte(exportOf(i))))
	if err != nil {
		return err
	}
	root := mounted.Opaque(64)
	if _, err := ask(c, 100003, 17, rpctest.Opaque(root), make([]byte, 16), rpctest.Words(8192, 32768)); err != nil {
		return err
	}
	for f := range files {
		found, err := ask(c, 100003, 3, rpctest.Opaque(root), rpctest.Opaque([]byte(nameOf((i*files+f)%baseFiles))))
		if err != nil {
			return err
		}
		if _, err := ask(c, 100003, 6, rpctest.Opaque(found.Opaque(64)), make([]byte, 8), rpctest.Words(1<<20)); err != nil {
			return err
		}
	}
	own, err := ask(c, 100003, 3, rpctest.Opaque(root), rpctest.Opaque([]byte("hostname")))
	if err != nil {
		return err
	}
	_, err = ask(c, 100003, 6, rpctest.Opaque(own.Opaque(64)), make([]byte, 8), rpctest.Words(100))
	return err
}

// ask makes a call whose status must be 0 and gives what follows it.
func ask(c *rpctest.Client, program, procedure uint32, args ...[]byte) (*rpc.Decoder, error) {
	var all []byte
	for _, a := range args {
		all = append(all, a...)
	}
	r, err := c.Call(program, 3, procedure, all)
	if err != nil {
		return nil, err
	}
	d := rpc.NewDecoder(r.Body)
	if st := d.Uint32(); st != 0 || r.Status != rpc.Success {
		return nil, fmt.Errorf("procedure %d of program %d: status %d", procedure, program, st)
	}
	return &d, nil
}
