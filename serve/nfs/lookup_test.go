package nfs

import (
	"errors"
	"strings"
	"testing"

	"rhizome/serve/rpc"
	"rhizome/serve/rpc/rpctest"
)

func TestAttributesAreThoseOfTheImage(t *testing.T) {
	w := newWorld(t)
	cases := map[string]fattr{
		"bin":        {Type: 2, Mode: 0o755, Nlink: 2},
		"bin/su":     {Type: 1, Mode: 0o4755, Nlink: 1, Size: 10, Used: 512},
		"bin/sh":     {Type: 1, Mode: 0o755, Nlink: 1, Size: 300_000, Used: 300_032},
		"dev/null":   {Type: 4, Mode: 0o666, Nlink: 1, Major: 1, Minor: 3},
		"dev/vda":    {Type: 3, Mode: 0o660, Nlink: 1, Major: 253, Minor: 0x12345},
		"dev/pipe":   {Type: 7, Mode: 0o600, Nlink: 1},
		"etc/shadow": {Type: 1, Mode: 0o640, Nlink: 1, GID: 42, Size: 8, Used: 512},
		"etc/twin":   {Type: 1, Mode: 0o644, Nlink: 2, Size: 20, Used: 512},
		"home/user":  {Type: 2, Mode: 0o700, Nlink: 2, UID: 1000, GID: 1000},
		"sbin/halt":  {Type: 5, Mode: 0o777, Nlink: 1, Size: 4, Used: 512},
		"tmp":        {Type: 2, Mode: 0o1777, Nlink: 2},
	}
	for name, want := range cases {
		t.Run(name, func(t *testing.T) {
			r := w.root().nfs(procGetattr, w.root().walk(strings.Split(name, "/")...))
			if r.Obj == nil {
				t.Fatalf("status %d", r.Status)
			}
			want.FSID, want.FileID = w.view.FSID(), r.Obj.FileID
			want.Mtime = uint64(mtime.Unix()) << 32
			want.Atime, want.Ctime = want.Mtime, want.Mtime
			if r.Obj.Type == 2 {
				want.Size, want.Used = r.Obj.Size, r.Obj.Used // a directory's size is its own affair
			}
			if *r.Obj != want || want.FSID == 0 || want.FileID == 0 {
				t.Errorf("attributes\n%+v, want\n%+v", *r.Obj, want)
			}
		})
	}
	twin, twin2 := w.root().walk("etc", "twin"), w.root().walk("etc", "twin2")
	if string(twin) != string(twin2) {
		t.Error("two names of one file have two handles")
	}
}

func TestLookupTakesOnlyWholeNamesOfTheDirectory(t *testing.T) {
	w := newWorld(t)
	etc, sh, top := w.root().walk("etc"), w.root().walk("bin", "sh"), w.root().walk()
	cases := map[string]struct {
		dir  []byte
		name string
		want status
	}{
		"a file":              {etc, "twin", ok},
		"not ASCII":           {etc, "Grüße", ok},
		"not UTF-8":           {etc, "Gr\xfc\xdfe", errNoEnt},
		"the directory":       {etc, ".", ok},
		"its parent":          {etc, "..", ok},
		"above the root":      {top, "..", ok},
		"nothing of the name": {etc, "passwd", errNoEnt},
		"no name":             {etc, "", errAcces},
		"a path":              {etc, "../etc/twin", errAcces},
		"a NUL":               {etc, "twin\x00", errAcces},
		"256 bytes":           {etc, strings.Repeat("x", 256), errNameTooLong},
		"255 bytes":           {etc, strings.Repeat("x", 255), errNoEnt},
		"in a file":           {sh, "x", errNotDir},
		"dot in a file":       {sh, ".", errNotDir},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := w.root().nfs(procLookup, c.dir, rpctest.Opaque([]byte(c.name)))
			attr := r.Dir
			if c.want != ok {
				attr = r.Obj
			}
			if r.Status != c.want || attr == nil {
				t.Errorf("status %d, directory's attributes %v; want %d", r.Status, attr, c.want)
			}
		})
	}
	if r := w.root().nfs(procLookup, top, rpctest.Opaque([]byte(".."))); string(r.Handle) != string(top) {
		t.Error("the root's parent is not the root")
	}
	if r := w.root().nfs(procLookup, etc, rpctest.Opaque([]byte(".."))); string(r.Handle) != string(top) {
		t.Error("the parent of /etc is not the root")
	}
}

func TestReadlinkGivesTheText(t *testing.T) {
	w := newWorld(t)
	if r := w.root().nfs(procReadlink, w.root().walk("sbin", "halt")); r.Status != ok || string(r.Data) != "init" || r.Obj == nil {
		t.Errorf("got %+v", r)
	}
	if r := w.root().nfs(procReadlink, w.root().walk("bin", "sh")); r.Status != errInval || r.Obj == nil {
		t.Errorf("of a file: %+v", r)
	}
}

// TestPermissionsAreTheModesBits asks ACCESS for everything, and checks that
// LOOKUP, READ and READDIR say the same.
func TestPermissionsAreTheModesBits(t *testing.T) {
	w := newWorld(t)
	const read, look, exec = accessRead, accessLookup, accessExecute
	cases := []struct {
		who     string
		c       *caller
		path    string
		want    uint32
		canRead bool
	}{
		{"root", w.root(), "home/user", read | look, false},
		{"root", w.root(), "home/user/mine", read, true},
		{"root", w.root(), "bin/su", read | exec, true},
		{"the owner", w.as(nodeA, 1000, 1000), "home/user", read | look, false},
		{"the owner, of a file closed to it", w.as(nodeA, 1000, 1000), "home/user/mine", 0, true},
		{"the group", w.as(nodeA, 5, 42), "etc/shadow", read, true},
		{"a member of the group", w.as(nodeA, 5, 5, 7, 42), "etc/shadow", read, true},
		{"another", w.as(nodeA, 5, 5), "etc/shadow", 0, false},
		{"another", w.as(nodeA, 5, 5), "home/user", 0, false},
		{"another, of a program it may only run", w.as(nodeA, 5, 5), "bin/exec-only", exec, true},
		{"another", w.as(nodeA, 5, 5), "tmp", read | look, false},
		{"who claims to be root", w.claims(0, 0, 42), "etc/shadow", 0, false},
		{"who claims to be in the group", w.claims(5, 42), "etc/shadow", 0, false},
		{"who claims to be the owner", w.claims(1000, 1000), "home/user", 0, false},
		{"who claims to be the owner", w.claims(1000, 1000), "home/user/mine", 0, false},
		{"who claims to be anybody", w.claims(5, 5), "tmp", read | look, false},
	}
	for _, c := range cases {
		t.Run(c.who+", "+c.path, func(t *testing.T) {
			h := w.root().walk(strings.Split(c.path, "/")...)
			r := c.c.nfs(procAccess, h, rpctest.Words(0x3f))
			if r.Status != ok || r.Access != c.want || r.Obj == nil {
				t.Errorf("may %#x (status %d), want %#x", r.Access, r.Status, c.want)
			}
			if r := c.c.nfs(procAccess, h, rpctest.Words(accessRead)); r.Access&^accessRead != 0 {
				t.Errorf("grants %#x, which was not asked", r.Access)
			}
			if r.Obj.Type == 2 {
				list, look := c.c.nfs(procReaddir, h, u64(0), u64(0), rpctest.Words(4096)), c.c.nfs(procLookup, h, rpctest.Opaque([]byte("nothing")))
				if (list.Status == ok) != (c.want&accessRead != 0) || (look.Status == errNoEnt) != (c.want&accessLookup != 0) {
					t.Errorf("READDIR says %d and LOOKUP %d", list.Status, look.Status)
				}
				return
			}
			if r := c.c.nfs(procRead, h, u64(0), rpctest.Words(4)); (r.Status == ok) != c.canRead || !c.canRead && r.Status != errAcces {
				t.Errorf("READ says %d", r.Status)
			}
		})
	}
}

func TestEveryChangeIsRefusedAsReadOnly(t *testing.T) {
	w := newWorld(t)
	h := w.root().walk("etc")
	for _, p := range []uint32{procSetattr, procWrite, procCreate, procMkdir, procSymlink, procMknod, procRemove, procRmdir, procRename, procLink, procCommit} {
		r := w.root().nfs(p, h, make([]byte, 64))
		if r.Status != errROFS || r.Obj == nil {
			t.Errorf("%s: %+v", procNames[p], r)
		}
	}
}

func TestFileSystemTellsItsSizes(t *testing.T) {
	w := newWorld(t)
	top := w.root().walk()
	for transport, most := range map[rpc.Transport]uint64{rpc.TCP: 1 << 20, rpc.UDP: 32 << 10} {
		r := w.root().over(transport).nfs(procFsinfo, top)
		if r.Words[0] != most || r.Words[1] != most || r.Words[3] != most || r.Words[9]&fsfSymlink == 0 || r.Words[9]&fsfLink == 0 || r.Obj == nil {
			t.Errorf("FSINFO over %s: %v", transport, r.Words)
		}
	}
	if r := w.root().nfs(procPathconf, top); r.Words[1] != 255 || r.Obj == nil {
		t.Errorf("PATHCONF: %v", r.Words)
	}
	bytes, inodes := w.view.Usage()
	if r := w.root().nfs(procFsstat, top); r.Words[0] != bytes || r.Words[1] != 0 || r.Words[3] != inodes || bytes < 2_800_000 || inodes < 20 {
		t.Errorf("FSSTAT: %v, of %d bytes and %d inodes", r.Words, bytes, inodes)
	}
}

func TestHandlesOfOthersAndOfNobodyAreRefused(t *testing.T) {
	w := newWorld(t)
	own := w.root().walk("etc", "twin")
	_, others := w.as(nodeB, 0, 0).mount("/nodes/b")
	changed := func(at int, to byte) []byte {
		h := append([]byte{}, own...)
		h[at] ^= to
		return h
	}
	// Wherever a handle is changed, it is refused, or it names another file of
	// the same root: never one of another image, and never a crash.
	for at := range own {
		r := w.root().nfs(procGetattr, changed(at, 0x40))
		if r.Status != ok && r.Status != errStale && r.Status != errBadHandle && r.Status != errAcces {
			t.Errorf("byte %d changed: status %d", at, r.Status)
		}
		if r.Status == ok && r.Obj.FSID != w.view.FSID() {
			t.Errorf("byte %d changed: a file of another root", at)
		}
	}
	cases := map[string]struct {
		c      *caller
		handle []byte
		want   status
	}{
		"another node's":            {w.root(), others, errAcces},
		"own, from another node":    {w.as(nodeB, 0, 0), own, errAcces},
		"own, from the admin":       {w.as(admin, 0, 0), own, ok},
		"empty":                     {w.root(), nil, errBadHandle},
		"short":                     {w.root(), own[:20], errBadHandle},
		"long":                      {w.root(), append(append([]byte{}, own...), own...), errBadHandle},
		"another server's":          {w.root(), []byte("ganesha's handle of 32 bytes----"), errBadHandle},
		"an image gone for good":    {w.root(), goneHandle(own), errStale},
		"own, once it is withdrawn": {nil, own, errStale},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if c.c == nil {
				c.c = w.root()
				w.exports.mu.Lock()
				gone := w.exports.views["/nodes/a"]
				delete(w.exports.views, "/nodes/a")
				w.exports.mu.Unlock()
				w.exports.generation.Add(1)
				defer func() { w.exports.views["/nodes/a"] = gone; w.exports.generation.Add(1) }()
			}
			if r := c.c.nfs(procGetattr, c.handle); r.Status != c.want {
				t.Errorf("status %d, want %d", r.Status, c.want)
			}
		})
	}
}

// goneHandle is like h, but of an image that is not there.
func goneHandle(h []byte) []byte {
	blob := append([]byte{}, h...)
	for i := 16; i < 32; i++ {
		blob[i] ^= 0xff
	}
	return blob
}

func TestArgumentsCutShortAreGarbage(t *testing.T) {
	w := newWorld(t)
	h := rpctest.Opaque(w.root().walk("bin", "sh"))
	needed := map[uint32]int{procGetattr: 0, procLookup: 4, procAccess: 4, procRead: 12, procReaddir: 20, procReaddirplus: 24, procFsinfo: 0}
	for p, n := range needed {
		args := append(append([]byte{}, h...), make([]byte, n)...)
		for cut := range args {
			status, body := w.root().serve(w.Programs()[0], 3, p, args[:cut])
			if status != rpc.GarbageArgs {
				t.Errorf("%s with %d of %d bytes: RPC status %d, %x", procNames[p], cut, len(args), status, body)
			}
		}
		if status, _ := w.root().serve(w.Programs()[0], 3, p, args); status != rpc.Success {
			t.Errorf("%s with all its bytes: RPC status %d", procNames[p], status)
		}
	}
	huge := append(rpctest.Words(1<<32-1), make([]byte, 100)...)
	if status, _ := w.root().serve(w.Programs()[0], 3, procGetattr, huge); status != rpc.GarbageArgs {
		t.Errorf("a handle of 2^32-1 bytes: RPC status %d", status)
	}
}

func TestErrorsOfAViewHaveTheirStatus(t *testing.T) {
	if toStatus(errors.New("anything else")) != errIO {
		t.Error("an error of no name is not EIO")
	}
}
