package nfs

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"rhizome/serve/rpc"
	"rhizome/serve/rpc/rpctest"
)

// servePortmapper tells, on port 111 of the test's namespace, where the
// programs are.
func (s *socketed) servePortmapper() {
	s.t.Helper()
	var ms []rpc.Mapping
	for _, m := range []rpc.Mapping{{Program: Program, Version: 3}, {Program: MountProgram, Version: 1}, {Program: MountProgram, Version: 3}} {
		m.Transport, m.Port = rpc.TCP, s.tcp.Port()
		ms = append(ms, m)
		m.Transport, m.Port = rpc.UDP, s.udp.Port()
		ms = append(ms, m)
	}
	nl, err := net.Listen("tcp", "127.0.0.1:111")
	if err != nil {
		s.t.Fatal(err)
	}
	pc, err := net.ListenPacket("udp", "127.0.0.1:111")
	if err != nil {
		s.t.Fatal(err)
	}
	p := rpc.NewServer([]rpc.Program{rpc.NewPortmapper(ms...).Program()}, rpc.Limits{}, nil)
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { p.ServeTCP(ctx, nl) })
	done.Go(func() { p.ServeUDP(ctx, pc) })
	s.t.Cleanup(func() { cancel(); done.Wait() })
}

func TestRpcinfoAndShowmountUnderstandTheServer(t *testing.T) {
	rpctest.Namespace(t)
	s := newWorld(t).listenAt(rpc.Limits{}, 2049)
	s.servePortmapper()
	for _, args := range [][]string{
		{"-t", "127.0.0.1", "100003", "3"}, {"-u", "127.0.0.1", "100003", "3"},
		{"-t", "127.0.0.1", "100005", "1"}, {"-u", "127.0.0.1", "100005", "3"}, {"-t", "127.0.0.1", "100005", "3"},
	} {
		if out := rpctest.Run(t, "rpcinfo", args...); !strings.Contains(out, "version "+args[3]+" ready and waiting") {
			t.Errorf("rpcinfo %v: %s", args, out)
		}
	}
	for _, args := range [][]string{{"-t", "127.0.0.1", "100003", "4"}, {"-t", "127.0.0.1", "100003", "2"}, {"-t", "127.0.0.1", "100005", "2"}} {
		if out, err := rpctest.Try(t, "rpcinfo", args...); err == nil {
			t.Errorf("rpcinfo %v finds a version that is not served: %s", args, out)
		}
	}
	if out := rpctest.Run(t, "showmount", "-e", "127.0.0.1"); !strings.Contains(out, "/nodes/a 10.77.0.11") || !strings.Contains(out, "/nodes/b 10.77.0.12") {
		t.Errorf("showmount -e:\n%s", out)
	}
	rpctest.Run(t, "nfs-ls", "nfs://127.0.0.1/nodes/a/etc")
	if out := rpctest.Run(t, "showmount", "-a", "127.0.0.1"); !strings.Contains(out, "127.0.0.1:/nodes/a/etc") {
		t.Errorf("showmount -a:\n%s", out)
	}
	if out := rpctest.Run(t, "showmount", "127.0.0.1"); !strings.Contains(out, "127.0.0.1") {
		t.Errorf("showmount:\n%s", out)
	}
}

// tool runs one of libnfs's tools.
func tool(t testing.TB, name string, args ...string) []byte {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("skipped: %s is not installed (libnfs-utils)", name)
	}
	var errs bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, errs.Bytes())
	}
	return out
}

func TestLibnfsListsAndReadsEverything(t *testing.T) {
	s := newWorld(t).listenAt(rpc.Limits{}, 0)
	list := string(tool(t, "nfs-ls", "-R", s.url("/")))
	for _, line := range []string{
		"-rwxr-xr-x  1     0     0           10 bin/su", "crw-rw-rw-  1", "-rw-r-----  1     0    42            8 etc/shadow",
		"etc/Grüße", "-rwxr-xr-x  1     0     0      2500000 sbin/init", "-rw-r--r--  2     0     0           20 etc/twin2",
	} {
		if !strings.Contains(list, line) {
			t.Errorf("nfs-ls -R does not show %q:\n%s", line, list)
		}
	}
	for _, f := range sampleFiles() {
		if f.body == nil || f.Mode&0o4 == 0 {
			continue
		}
		if got := tool(t, "nfs-cat", s.url("/"+f.Name)); !bytes.Equal(got, f.body) {
			t.Errorf("nfs-cat of %s: %d bytes, not the %d of the image", f.Name, len(got), len(f.body))
		}
	}
}

func TestLibnfsReadsBlobs(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("skipped: only root calls from a reserved port")
	}
	s := newWorld(t).listenAt(rpc.Limits{}, 0)
	large := s.withBlobs()
	url := func(name string) string { return strings.Replace(s.url(name), "/nodes/a", "/blobs/a", 1) }
	if list := string(tool(t, "nfs-ls", url("/"))); !strings.Contains(list, "-r--------  1     0     0            3 sha256-1") || !strings.Contains(list, "2500001 sha256-2") {
		t.Errorf("nfs-ls shows\n%s", list)
	}
	if got := tool(t, "nfs-cat", url("/sha256-2")); !bytes.Equal(got, large) {
		t.Errorf("nfs-cat: %d bytes, and not the %d of the blob", len(got), len(large))
	}
}

// TestClientReadsOnOverARestart: the second server knows nothing of the first
// but the image; handles, and bytes, are the same.
func TestClientReadsOnOverARestart(t *testing.T) {
	body := text(2_500_000)
	read := func(c *rpctest.Client, h []byte, offset uint64) []byte {
		reply, err := c.Call(Program, 3, procRead, append(rpctest.Opaque(h), append(u64(offset), rpctest.Words(65536)...)...))
		if err != nil {
			t.Fatal(err)
		}
		r, err := parseResults(procRead, reply.Body)
		if err != nil || r.Status != ok {
			t.Fatalf("READ at %d: status %d, %v", offset, r.Status, err)
		}
		return r.Data
	}
	var h, got []byte
	for range 2 {
		t.Run("a server", func(t *testing.T) {
			w := newWorld(t)
			s := w.listenOn(rpc.Limits{}, "127.0.0.1:0")
			if h == nil {
				h = w.root().walk("sbin", "init")
			}
			c, err := rpctest.Dial("tcp", s.tcp.String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for range 10 {
				got = append(got, read(c, h, uint64(len(got)))...)
			}
		})
	}
	if !bytes.Equal(got, body[:20*65536]) {
		t.Errorf("%d bytes arrived, and they are not the file's", len(got))
	}
}
