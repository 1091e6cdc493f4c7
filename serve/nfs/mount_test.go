package nfs

import (
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"rhizome/serve/boot"
	"rhizome/serve/rpc"
	"rhizome/serve/rpc/rpctest"
)

func TestMountAnswersANodeItsOwnRoot(t *testing.T) {
	w := newWorld(t)
	cases := map[string]struct {
		c    *caller
		path string
		want uint32
	}{
		"its own":                {w.root(), "/nodes/a", mntOK},
		"with a slash":           {w.root(), "/nodes/a/", mntOK},
		"with slashes":           {w.root(), "//nodes///a//", mntOK},
		"a directory in it":      {w.root(), "/nodes/a/home/user", mntOK},
		"as an ordinary user":    {w.as(nodeA, 1000, 1000), "/nodes/a", mntOK},
		"a file in it":           {w.root(), "/nodes/a/bin/sh", mntNotDir},
		"nothing in it":          {w.root(), "/nodes/a/opt", mntNoEnt},
		"out of it":              {w.root(), "/nodes/a/../b", mntAcces},
		"another node's":         {w.root(), "/nodes/b", mntAcces},
		"another's directory":    {w.root(), "/nodes/b/etc", mntAcces},
		"another's, as admin":    {w.as(admin, 0, 0), "/nodes/b", mntOK},
		"nobody's":               {w.root(), "/nodes/c", mntNoEnt},
		"the root of all":        {w.root(), "/", mntNoEnt},
		"no path":                {w.root(), "", mntInval},
		"not an absolute path":   {w.root(), "nodes/a", mntInval},
		"a NUL in it":            {w.root(), "/nodes/a\x00/etc", mntInval},
		"longer than MNTPATHLEN": {w.root(), "/nodes/a/" + strings.Repeat("x", 1024), mntNameTooLong},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			st, h := c.c.mount(c.path)
			if st != c.want {
				t.Fatalf("status %d, want %d", st, c.want)
			}
			if st != mntOK {
				return
			}
			if r := c.c.nfs(procGetattr, h); r.Status != ok || r.Obj.Type != 2 {
				t.Errorf("the handle's GETATTR: %+v", r)
			}
		})
	}
}

func TestMountReplyNamesAuthSysFirst(t *testing.T) {
	w := newWorld(t)
	_, body := w.root().serve(w.Programs()[1], 3, mntMnt, rpctest.Opaque([]byte("/nodes/a")))
	_, h := w.root().mount("/nodes/a")
	want := slices.Concat(rpctest.Words(0), rpctest.Opaque(h), rpctest.Words(2, rpc.AuthSys, rpc.AuthNone))
	if string(body) != string(want) {
		t.Errorf("v3: %x", body)
	}
	_, body = w.root().serve(w.Programs()[1], 1, mntMnt, rpctest.Opaque([]byte("/nodes/a")))
	if string(body) != string(rpctest.Words(0))+string(h) {
		t.Errorf("v1: %x, and not status and 32 bytes", body)
	}
}

// TestHandlesAreTheSameOnEveryServer: the digest makes them, so that a restart
// or another server changes nothing.
func TestHandlesAreTheSameOnEveryServer(t *testing.T) {
	one, two := newWorld(t), newWorld(t)
	if h := one.root().walk("etc", "twin"); string(h) != string(two.root().walk("etc", "twin")) {
		t.Error("two servers of one digest give two handles")
	} else if r := two.root().over(rpc.UDP).nfs(procGetattr, h); r.Status != ok {
		t.Errorf("one's handle is refused by the other, over another transport: %d", r.Status)
	}
}

func TestExportsAndMountsAreListed(t *testing.T) {
	w := newWorld(t)
	w.root().mount("/nodes/a/")
	w.root().mount("/nodes/a/etc")
	w.as(nodeB, 0, 0).mount("/nodes/b")
	list := func(c *caller, procedure uint32) (paths []string) {
		_, body := c.serve(w.Programs()[1], 3, procedure, nil)
		d := rpc.NewDecoder(body)
		for d.Bool() {
			first := string(d.Opaque(1024))
			if procedure == mntDump {
				first += " " + string(d.Opaque(1024))
			} else {
				for d.Bool() {
					first += " " + string(d.Opaque(1024))
				}
			}
			paths = append(paths, first)
		}
		if !d.Ok() || len(d.Rest()) > 0 {
			t.Errorf("a malformed list: %x", body)
		}
		return paths
	}
	if got := list(w.root(), mntExport); !slices.Equal(got, []string{"/nodes/a 10.77.0.11"}) {
		t.Errorf("exports to a node: %q", got)
	}
	if got := list(w.as(admin, 0, 0), mntExport); len(got) != 2 {
		t.Errorf("exports to an administrator: %q", got)
	}
	if got := list(w.root(), mntDump); !slices.Equal(got, []string{"10.77.0.11 /nodes/a/", "10.77.0.11 /nodes/a/etc"}) {
		t.Errorf("mounts: %q", got)
	}
	w.root().serve(w.Programs()[1], 3, mntUmnt, rpctest.Opaque([]byte("/nodes/a/etc")))
	if got := list(w.root(), mntDump); len(got) != 1 {
		t.Errorf("mounts after UMNT: %q", got)
	}
	w.root().serve(w.Programs()[1], 3, mntUmntall, nil)
	if got := list(w.root(), mntDump); len(got) != 0 {
		t.Errorf("mounts after UMNTALL: %q", got)
	}
	if got := list(w.as(nodeB, 0, 0), mntDump); len(got) != 1 {
		t.Errorf("another node's mounts: %q", got)
	}
}

// TestBootMakesOneEventOfEachStep: FreeBSD's loader mounts for every file, its
// kernel then comes over TCP, and looks for init.
func TestBootMakesOneEventOfEachStep(t *testing.T) {
	w := newWorld(t)
	boots := func() {
		loader := w.root().over(rpc.UDP)
		var top []byte
		for range 62 {
			_, top = loader.mount("/nodes/a")
			loader.nfs(procLookup, top, rpctest.Opaque([]byte("bin")))
			w.clock.Add(int64(time.Second))
		}
		kernel := w.root()
		sbin := kernel.nfs(procLookup, top, rpctest.Opaque([]byte("sbin"))).Handle
		for range 2 {
			kernel.nfs(procLookup, sbin, rpctest.Opaque([]byte("init")))
		}
	}
	boots()
	want := []boot.Kind{boot.MountDone, boot.NFSFirstCall, boot.NFSInit}
	if got := w.kinds(); !slices.Equal(got, want) {
		t.Fatalf("a boot made %v", got)
	}
	if e := w.events[0]; e.Addr != nodeA || e.Digest != digestA || e.File != "/nodes/a" || e.Detail != "over udp" {
		t.Errorf("the mount's event: %+v", e)
	}
	// It asks for an address again at once: another boot.
	w.Booting(nodeA)
	boots()
	if got := w.kinds(); !slices.Equal(got, append(want, want...)) {
		t.Errorf("two boots made %v", got)
	}
}

func TestRefusalsAreToldOnceInAWhile(t *testing.T) {
	w := newWorld(t)
	for range 100 {
		w.root().mount("/nodes/b")
		w.as(nodeB, 0, 0).mount("/nodes/a")
	}
	_, others := w.as(nodeB, 0, 0).mount("/nodes/b")
	w.root().nfs(procGetattr, others)
	want := []boot.Kind{boot.MountRefused, boot.MountRefused, boot.MountDone, boot.NFSRefused}
	if got := w.kinds(); !slices.Equal(got, want) {
		t.Errorf("events: %v", got)
	}
	if e := w.events[0]; e.Addr != nodeA || e.File != "/nodes/b" || !strings.Contains(e.Error, "another node's") {
		t.Errorf("the refusal: %+v", e)
	}
	w.clock.Add(int64(quiet))
	w.root().mount("/nodes/b")
	if got := w.kinds(); len(got) != 5 {
		t.Errorf("nothing was told after a while: %v", got)
	}
}

// backend is a writable export that answers every call with what it was given.
type backend struct{ calls int }

func (b *backend) Owns(h []byte) bool { return strings.HasPrefix(string(h), "persist") }

func (b *backend) Mount(path string, c *rpc.Call) ([]byte, error) {
	if path != "/persist/a" {
		return nil, fs.ErrPermission
	}
	return []byte("persist-handle"), nil
}

func (b *backend) Call(c *rpc.Call, out *rpc.Reply) rpc.Status {
	b.calls++
	out.Uint32(uint32(ok))
	out.Raw(c.Args)
	return rpc.Success
}

func TestWritableExportsGoToTheirBackend(t *testing.T) {
	w := newWorld(t)
	b := &backend{}
	w.Server = NewServer(Config{Exports: w.exports, Backends: []Mounted{{"/persist/", b}}})
	st, h := w.root().mount("/persist/a/")
	if st != mntOK || string(h) != "persist-handle" {
		t.Fatalf("MNT: %d, %q", st, h)
	}
	if st, _ := w.root().mount("/persist/b"); st != mntAcces {
		t.Errorf("MNT of another's: %d", st)
	}
	args := rpctest.Opaque(h)
	status, body := w.root().serve(w.Programs()[0], 3, procWrite, args)
	if status != rpc.Success || b.calls != 1 || !strings.HasSuffix(string(body), string(args)) {
		t.Errorf("WRITE: RPC status %d, %x", status, body)
	}
	call := rpc.Call{Procedure: procGetattr, Args: args, Peer: w.root().peer}
	if status := w.Serve(&call, &rpc.Reply{}); status != rpc.WouldBlock || b.calls != 1 {
		t.Errorf("a call that may not wait: RPC status %d", status)
	}
}
