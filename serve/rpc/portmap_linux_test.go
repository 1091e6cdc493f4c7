package rpc_test

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"rhizome/serve/rpc"
	"rhizome/serve/rpc/rpctest"
)

// mappings are those that serve advertises.
var mappings = []rpc.Mapping{
	{Program: 100003, Version: 3, Transport: rpc.TCP, Port: 2049},
	{Program: 100003, Version: 3, Transport: rpc.UDP, Port: 2049},
	{Program: 100005, Version: 1, Transport: rpc.TCP, Port: 20048},
	{Program: 100005, Version: 3, Transport: rpc.UDP, Port: 20048},
}

// servePortmapper answers on port 111 of the test's namespace.
func servePortmapper(t *testing.T) {
	t.Helper()
	nl, err := net.Listen("tcp", "127.0.0.1:111")
	if err != nil {
		t.Fatal(err)
	}
	pc, err := net.ListenPacket("udp", "127.0.0.1:111")
	if err != nil {
		t.Fatal(err)
	}
	s := rpc.NewServer([]rpc.Program{rpc.NewPortmapper(mappings...).Program()}, rpc.Limits{}, nil)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- s.ServeTCP(ctx, nl) }()
	go func() { done <- s.ServeUDP(ctx, pc) }()
	t.Cleanup(func() { cancel(); <-done; <-done })
}

func TestRpcinfoReadsThePortmapper(t *testing.T) {
	rpctest.Namespace(t)
	servePortmapper(t)
	list := rpctest.Run(t, "rpcinfo", "-p", "127.0.0.1")
	for _, line := range []string{
		"100000    2   tcp    111", "100000    2   udp    111", "100003    3   tcp   2049",
		"100003    3   udp   2049", "100005    1   tcp  20048", "100005    3   udp  20048",
	} {
		if !strings.Contains(list, line) {
			t.Errorf("rpcinfo -p does not show %q:\n%s", line, list)
		}
	}
	for _, flag := range []string{"-t", "-u"} {
		out := rpctest.Run(t, "rpcinfo", flag, "127.0.0.1", "100000", "2")
		if !strings.Contains(out, "program 100000 version 2 ready and waiting") {
			t.Errorf("rpcinfo %s says %q", flag, out)
		}
	}
}

func TestGetportNamesWhatIsServed(t *testing.T) {
	p := rpc.NewPortmapper(mappings...)
	cases := map[string]struct {
		ask  []uint32
		port uint32
	}{
		"NFS over TCP":             {[]uint32{100003, 3, 6, 0}, 2049},
		"NFS over UDP":             {[]uint32{100003, 3, 17, 0}, 2049},
		"the port asked with":      {[]uint32{100003, 3, 17, 999}, 2049},
		"MOUNT v1":                 {[]uint32{100005, 1, 6, 0}, 20048},
		"another version":          {[]uint32{100003, 4, 6, 0}, 2049},
		"the portmapper itself":    {[]uint32{100000, 2, 17, 0}, 111},
		"a program nobody has":     {[]uint32{100021, 4, 17, 0}, 0},
		"a transport nobody knows": {[]uint32{100003, 3, 99, 0}, 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var out rpc.Reply
			status := p.Serve(&rpc.Call{Procedure: 3, Args: rpctest.Words(c.ask...)}, &out)
			if status != rpc.Success || !bytes.Equal(out.Bytes(), rpctest.Words(c.port)) {
				t.Errorf("status %d, port %x", status, out.Bytes())
			}
		})
	}
}

// TestProgramsAreRegisteredWithTheSystemsRpcbind runs Debian's rpcbind.
func TestProgramsAreRegisteredWithTheSystemsRpcbind(t *testing.T) {
	rpctest.Namespace(t)
	path, err := exec.LookPath("rpcbind")
	if err != nil {
		t.Skip("skipped: rpcbind is not installed")
	}
	daemon := exec.Command(path, "-f")
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { daemon.Process.Kill(); daemon.Wait() })
	system, ctx := rpc.LocalRpcbind(), context.Background()
	// The sockets must be opened in this goroutine's namespace: dialling an
	// address does so.
	until(t, "rpcbind answers", func() bool { return system.Ping(ctx) == nil })
	for range 2 { // the second time replaces what the first left behind
		if err := system.Register(ctx, mappings...); err != nil {
			t.Fatal(err)
		}
	}
	if list := rpctest.Run(t, "rpcinfo", "-p", "127.0.0.1"); !strings.Contains(list, "100003    3   tcp   2049") {
		t.Errorf("rpcinfo -p does not show NFS:\n%s", list)
	}
	if err := system.Unregister(ctx, mappings...); err != nil {
		t.Fatal(err)
	}
	if list := rpctest.Run(t, "rpcinfo", "-p", "127.0.0.1"); strings.Contains(list, "100003") {
		t.Errorf("rpcinfo -p still shows NFS:\n%s", list)
	}
	owner, found := rpc.PortOwner("tcp", 111)
	if !found || owner.PID != daemon.Process.Pid || owner.Command != "rpcbind" {
		t.Errorf("port 111 is said to be held by %+v, %v; it is rpcbind, %d", owner, found, daemon.Process.Pid)
	}
}

func TestNoPortmapperIsAnError(t *testing.T) {
	nl, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := nl.Addr().(*net.TCPAddr).AddrPort()
	nl.Close()
	r := rpc.Rpcbind{Addr: netip.AddrPortFrom(addr.Addr(), addr.Port())}
	if err := r.Ping(context.Background()); err == nil || !strings.Contains(err.Error(), "calling the portmapper at 127.0.0.1") {
		t.Errorf("got %v", err)
	}
}

func TestPortOwnerFindsItself(t *testing.T) {
	nl, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer nl.Close()
	pc, err := net.ListenPacket("udp", "[::1]:0")
	if err != nil {
		t.Skipf("skipped: no IPv6 loopback: %v", err)
	}
	defer pc.Close()
	for network, addr := range map[string]net.Addr{"tcp": nl.Addr(), "udp": pc.LocalAddr()} {
		port := netip.MustParseAddrPort(addr.String()).Port()
		if o, found := rpc.PortOwner(network, port); !found || !strings.Contains(o.Command, "rpc.test") {
			t.Errorf("%s port %d is held by %+v, %v", network, port, o, found)
		}
	}
	if o, found := rpc.PortOwner("tcp", 1); found {
		t.Errorf("port 1 is held by %+v", o)
	}
}

// FuzzPortmapper: no call makes the portmapper answer with more than its list,
// and none changes it.
func FuzzPortmapper(f *testing.F) {
	f.Add(uint32(3), rpctest.Words(100003, 3, 17, 0))
	f.Add(uint32(4), []byte{})
	f.Add(uint32(1), rpctest.Words(100003, 3, 17, 0))
	p := rpc.NewPortmapper(mappings...)
	f.Fuzz(func(t *testing.T, procedure uint32, args []byte) {
		var out rpc.Reply
		if p.Serve(&rpc.Call{Procedure: procedure, Args: args}, &out); len(out.Bytes()) > 6*20+4 {
			t.Errorf("an answer of %d bytes", len(out.Bytes()))
		}
		var list rpc.Reply
		if p.Serve(&rpc.Call{Procedure: 4}, &list); len(list.Bytes()) != 6*20+4 {
			t.Errorf("the list has %d bytes now", len(list.Bytes()))
		}
	})
}
