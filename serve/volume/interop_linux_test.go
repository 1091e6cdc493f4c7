package volume

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	nfsc "github.com/willscott/go-nfs-client/nfs"
	nfsrpc "github.com/willscott/go-nfs-client/nfs/rpc"
)

// Clients that others wrote read and write what we serve: libnfs's tools.
func TestLibnfsCopiesThereAndBack(t *testing.T) {
	needRoot(t)
	cp, err := exec.LookPath("nfs-cp")
	if err != nil {
		t.Skip("skipped: nfs-cp is not installed (package libnfs-utils)")
	}
	for _, path := range []string{"/persist/n1", "/cow/n1/etc"} {
		w := newWorld(t, nil)
		_, port, _ := net.SplitHostPort(w.addr)
		url := func(name string) string {
			return "nfs://127.0.0.1" + path + "/" + name + "?nfsport=" + port + "&mountport=" + port
		}
		body := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
		local := filepath.Join(t.TempDir(), "local")
		if err := os.WriteFile(local, body, 0o644); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{local, url("big")}, {url("big"), local + ".back"}} {
			if out, err := exec.Command(cp, args...).CombinedOutput(); err != nil {
				t.Fatalf("nfs-cp %q: %v\n%s", args, err, out)
			}
		}
		if back, err := os.ReadFile(local + ".back"); err != nil || !bytes.Equal(back, body) {
			t.Errorf("%s: %d bytes of %d came back, %v", path, len(back), len(body), err)
		}
		if out, err := exec.Command("nfs-ls", strings.Replace(url(""), "/?", "?", 1)).CombinedOutput(); err != nil || !bytes.Contains(out, []byte("big")) {
			t.Errorf("nfs-ls: %v\n%s", err, out)
		}
		w.stop()
	}
}

// go-nfs-client decodes every reply by reflection from the RFC's structures: a
// field too many or too few fails it.
func TestGoNFSClientWorksOnEveryKind(t *testing.T) {
	onEach(t, func(t *testing.T, w *world, c *client, _ handle) {
		path := kinds[t.Name()[strings.LastIndex(t.Name(), "/")+1:]]
		auth := nfsrpc.NewAuthUnix("client", 1000, 1000).Auth()
		rc, err := nfsrpc.DialTCP("tcp", w.addr, false)
		for range 20 { // it asks from any port, in use or not
			if !errors.Is(err, syscall.EADDRINUSE) {
				break
			}
			rc, err = nfsrpc.DialTCP("tcp", w.addr, false)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer rc.Close()
		target, err := nfsc.NewTargetWithClient(rc, auth, c.mustMount(path), path, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		f, err := target.OpenFile("here/file", 0o644)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte("written by a client")); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		r, err := target.Open("here/file")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != "written by a client" {
			t.Errorf("read %q, %v", got, err)
		}
		if _, err := target.Mkdir("here/dir", 0o755); err != nil {
			t.Error(err)
		}
		names, err := target.ReadDirPlus("here")
		if err != nil || len(names) != 2 {
			t.Errorf("ReadDirPlus: %v, %v", names, err)
		}
		if err := target.RemoveAll("here/dir"); err != nil {
			t.Error(err)
		}
		if err := target.Remove("here/file"); err != nil {
			t.Error(err)
		}
	})
}
