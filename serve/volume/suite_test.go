package volume

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rhizome/serve/rpc"
)

// kinds are the exports that the one suite is run against: a folder of the
// host, records without an image (what a host without file handles gets), and
// records over an image.
var kinds = map[string]string{"disk": "/persist/n1", "records": "/persist/n1", "cow": "/cow/n1/etc"}

// onEach runs a story on every kind of export, in a directory of its own that
// everybody may write to.
func onEach(t *testing.T, story func(t *testing.T, w *world, c *client, dir handle)) {
	needRoot(t)
	for name, path := range kinds {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			if name == "records" {
				useRecords(t, w)
			}
			c := w.dial(addr1)
			root := c.mustMount(path)
			dir, st := c.mkdir(root, "here", 0o777)
			c.must("making the story's directory", st, statusOK)
			story(t, w, c, dir)
		})
	}
}

// useRecords makes /persist of node n1 one of records.
func useRecords(t *testing.T, w *world) {
	if err := os.MkdirAll(filepath.Join(w.dir, "cow", "c", "n1", "persist"), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestAFileIsWrittenReadCutAndRemoved(t *testing.T) {
	onEach(t, func(t *testing.T, w *world, c *client, dir handle) {
		h := c.put(dir, "file", "hello, world")
		if got := c.content(h); got != "hello, world" {
			t.Fatalf("read %q", got)
		}
		c.must("truncating", c.setattr(h, sattr{size: ptr(uint64(5))}), statusOK)
		if got := c.content(h); got != "hello" {
			t.Fatalf("after truncating to 5: %q", got)
		}
		c.must("growing", c.setattr(h, sattr{size: ptr(uint64(8))}), statusOK)
		if got := c.content(h); got != "hello\x00\x00\x00" {
			t.Fatalf("after growing to 8: %q", got)
		}
		st, _, _ := c.write(h, 1<<20, unstable, "far")
		c.must("writing far behind the end", st, statusOK)
		if a, _ := c.getattr(h); a.size != 1<<20+3 {
			t.Fatalf("size %d", a.size)
		}
		c.must("removing", c.remove(dir, "file"), statusOK)
		c.must("removing again", c.remove(dir, "file"), statusNoEnt)
		_, st2 := c.getattr(h)
		c.must("asking for what was removed", st2, statusStale)
	})
}

func TestCreateKeepsToItsMode(t *testing.T) {
	onEach(t, func(t *testing.T, w *world, c *client, dir handle) {
		first := c.put(dir, "f", "content")
		again, st := c.create(dir, "f", unchecked, sattr{})
		c.must("unchecked, on a file that exists", st, statusOK)
		if string(again) != string(first) || c.content(again) != "content" {
			t.Error("an unchecked CREATE made another file of it")
		}
		_, st = c.create(dir, "f", unchecked, sattr{size: ptr(uint64(0))})
		c.must("unchecked, with size 0", st, statusOK)
		if c.content(first) != "" {
			t.Error("O_TRUNC did not truncate")
		}
		_, st = c.create(dir, "f", guarded, sattr{})
		c.must("guarded, on a file that exists", st, statusExist)
		x, st := c.createExclusive(dir, "x", 0xdeadbeefcafef00d)
		c.must("exclusive", st, statusOK)
		y, st := c.createExclusive(dir, "x", 0xdeadbeefcafef00d)
		c.must("the same exclusive CREATE again", st, statusOK)
		if string(x) != string(y) {
			t.Error("the repeated CREATE made another file")
		}
		_, st = c.createExclusive(dir, "x", 1)
		c.must("an exclusive CREATE of somebody else", st, statusExist)
		_, st = c.create(dir, ".", guarded, sattr{})
		c.must("creating .", st, statusExist)
	})
}

func TestRenameReplacesAndKeepsHandles(t *testing.T) {
	onEach(t, func(t *testing.T, w *world, c *client, dir handle) {
		a, b := c.put(dir, "a", "from a"), c.put(dir, "b", "from b")
		c.must("renaming over an open file", c.rename(dir, "a", dir, "b"), statusOK)
		if got := c.content(a); got != "from a" {
			t.Errorf("the renamed file's handle reads %q", got)
		}
		if got := c.content(c.walk(dir, "b")); got != "from a" {
			t.Errorf("b reads %q", got)
		}
		_, st := c.getattr(b)
		c.must("the file that was replaced", st, statusStale)
		_, _, st = c.lookup(dir, "a")
		c.must("the former name", st, statusNoEnt)

		sub, _ := c.mkdir(dir, "sub", 0o755)
		deep, _ := c.mkdir(sub, "deep", 0o755)
		c.put(deep, "leaf", "leaf")
		c.must("a directory into itself", c.rename(dir, "sub", deep, "loop"), statusInval)
		c.must("a directory over a file", c.rename(dir, "sub", dir, "b"), statusNotDir)
		c.must("a file over a directory", c.rename(dir, "b", dir, "sub"), statusIsDir)
		full, _ := c.mkdir(dir, "full", 0o755)
		c.put(full, "in the way", "")
		c.must("a directory over a full one", c.rename(dir, "sub", dir, "full"), statusNotEmpty)
		empty, _ := c.mkdir(dir, "empty", 0o755)
		c.must("a directory over an empty one", c.rename(dir, "sub", dir, "empty"), statusOK)
		if got := c.content(c.walk(dir, "empty", "deep", "leaf")); got != "leaf" {
			t.Errorf("below a moved directory: %q", got)
		}
		if up := c.walk(deep, "..", ".."); string(up) != string(dir) {
			t.Error("the moved directory's parent is not where it is now")
		}
		_, st = c.getattr(empty)
		c.must("the directory that was replaced", st, statusStale)
	})
}

func TestLinksShareOneFile(t *testing.T) {
	onEach(t, func(t *testing.T, w *world, c *client, dir handle) {
		h := c.put(dir, "one", "1")
		c.must("linking", c.link(h, dir, "two"), statusOK)
		c.must("linking over a name", c.link(h, dir, "one"), statusExist)
		two, a, _ := c.lookup(dir, "two")
		if string(two) != string(h) || a.nlink != 2 {
			t.Errorf("the link has another handle, or %d links", a.nlink)
		}
		c.must("removing the first name", c.remove(dir, "one"), statusOK)
		if a, st := c.getattr(h); st != statusOK || a.nlink != 1 || c.content(two) != "1" {
			t.Errorf("after removing one of two names: %v, %d links", st, a.nlink)
		}
		sub, _ := c.mkdir(dir, "sub", 0o755)
		c.must("linking a directory", c.link(sub, dir, "no"), statusPerm)

		l, st := c.symlink(dir, "sym", "../../../etc/passwd")
		c.must("making a symlink", st, statusOK)
		if target, _ := c.readlink(l); target != "../../../etc/passwd" {
			t.Errorf("the symlink reads %q", target)
		}
		_, _, st = c.read(l, 0, 10)
		c.must("reading a symlink as a file", st, statusInval)
	})
}

func TestSpecialFiles(t *testing.T) {
	onEach(t, func(t *testing.T, w *world, c *client, dir handle) {
		h, st := c.mknod(dir, "fifo", kindFifo, 0, 0)
		c.must("making a fifo", st, statusOK)
		if a, _ := c.getattr(h); a.kind != kindFifo || a.mode != 0o640 {
			t.Errorf("the fifo is %d with mode %o", a.kind, a.mode)
		}
		c.must("making the same again", second(c.mknod(dir, "fifo", kindFifo, 0, 0)), statusExist)
		_, st = c.mknod(dir, "sock", kindSocket, 0, 0)
		c.must("making a socket", st, statusOK)
		_, st = c.mknod(dir, "null", kindChar, 1, 3)
		want := statusPerm // on the host's own disk, device nodes are refused
		if strings.HasSuffix(t.Name(), "/cow") {
			want = statusOK
		}
		c.must("making a device", st, want)
		if n, a, st := c.lookup(dir, "null"); st == statusOK && (a.kind != kindChar || a.major != 1 || a.minor != 3) {
			t.Errorf("the device %x is %d %d:%d", n, a.kind, a.major, a.minor)
		}
		c.as(1000, 1000)
		_, st = c.mknod(dir, "mine", kindBlock, 8, 0)
		c.must("making a device as a user", st, statusPerm)
	})
}

func second[A, B any](_ A, b B) B { return b }

func TestAttributesAreKeptAsTheyWereSet(t *testing.T) {
	onEach(t, func(t *testing.T, w *world, c *client, dir handle) {
		h := c.put(dir, "f", "content")
		at, mt := moment{1_000_000_000, 5000}, moment{1_100_000_000, 7000}
		c.must("setting all", c.setattr(h, sattr{mode: ptr(uint32(0o4711)), uid: ptr(uint32(1000)), gid: ptr(uint32(100)), atime: &at, mtime: &mt}), statusOK)
		a, _ := c.getattr(h)
		// chown takes setuid off, as on any Unix; chmod after it sets it.
		if a.mode != 0o711 || a.uid != 1000 || a.gid != 100 || a.mtime != mt || a.atime != at {
			t.Errorf("got mode %o, owner %d:%d, atime %v, mtime %v", a.mode, a.uid, a.gid, a.atime, a.mtime)
		}
		c.must("setting setuid", c.setattr(h, sattr{mode: ptr(uint32(0o4711))}), statusOK)
		if b, _ := c.getattr(h); b.mode != 0o4711 || !b.ctime.after(at) || b.mtime != mt {
			t.Errorf("after chmod: mode %o, ctime %v, mtime %v", b.mode, b.ctime, b.mtime)
		}
		st, _ := c.call(procSetattr, fh(h), sattr{mode: ptr(uint32(0o600))}.xdr(), u32(1), u32(1, 2))
		c.must("a guard that does not hold", st, statusNotSync)
		a, _ = c.getattr(h)
		st, _ = c.call(procSetattr, fh(h), sattr{mode: ptr(uint32(0o600))}.xdr(), u32(1), u32(uint32(a.ctime.Sec), a.ctime.Nsec))
		c.must("a guard that holds", st, statusOK)
		d, _ := c.getattr(dir)
		if d.nlink != 2 || d.kind != kindDir {
			t.Errorf("an empty directory has %d links", d.nlink)
		}
	})
}

func TestEachUserMayWhatModesGive(t *testing.T) {
	onEach(t, func(t *testing.T, w *world, c *client, dir handle) {
		secret := c.put(dir, "secret", "root's")
		c.must("chmod", c.setattr(secret, sattr{mode: ptr(uint32(0o600))}), statusOK)
		shut, _ := c.mkdir(dir, "shut", 0o700)
		c.put(shut, "f", "")
		suid := c.put(dir, "suid", "x")
		c.must("chmod", c.setattr(suid, sattr{mode: ptr(uint32(0o4777))}), statusOK)

		c.as(1000, 1000, 50)
		_, _, st := c.read(secret, 0, 10)
		c.must("reading another's file", st, statusAcces)
		st, _, _ = c.write(secret, 0, unstable, "x")
		c.must("writing another's file", st, statusAcces)
		c.must("chmod of another's file", c.setattr(secret, sattr{mode: ptr(uint32(0o777))}), statusPerm)
		_, _, st = c.lookup(shut, "f")
		c.must("looking into a closed directory", st, statusAcces)
		_, st = c.create(shut, "g", guarded, sattr{})
		c.must("creating in a closed directory", st, statusAcces)
		mine, st := c.create(dir, "mine", guarded, sattr{mode: ptr(uint32(0o400))})
		c.must("creating one's own", st, statusOK)
		if a, _ := c.getattr(mine); a.uid != 1000 || a.gid != 1000 {
			t.Errorf("the new file is %d:%d's", a.uid, a.gid)
		}
		st, _, _ = c.write(mine, 0, unstable, "I made it")
		c.must("writing what one made read-only", st, statusOK)
		c.must("giving a file away", c.setattr(mine, sattr{uid: ptr(uint32(0))}), statusPerm)
		c.must("giving it to a group of one's own", c.setattr(mine, sattr{gid: ptr(uint32(50))}), statusOK)
		c.must("giving it to another group", c.setattr(mine, sattr{gid: ptr(uint32(51))}), statusPerm)
		st, _, _ = c.write(suid, 0, unstable, "y")
		c.must("writing a setuid file that all may write", st, statusOK)
		if a, _ := c.getattr(suid); a.mode != 0o777 {
			t.Errorf("a stranger wrote to a setuid file and left it mode %o", a.mode)
		}
		c.as(0, 0).must("sticky", c.setattr(dir, sattr{mode: ptr(uint32(0o1777))}), statusOK)
		c.as(2000, 2000).must("removing another's in a sticky directory", c.remove(dir, "mine"), statusAcces)
		c.must("renaming another's in a sticky directory", c.rename(dir, "mine", dir, "taken"), statusAcces)
		c.as(1000, 1000).must("removing one's own", c.remove(dir, "mine"), statusOK)
	})
}

func TestNobodyIsBelievedFromAPortThatAnybodyCanHave(t *testing.T) {
	onEach(t, func(t *testing.T, w *world, c *client, dir handle) {
		secret := c.put(dir, "secret", "root's")
		c.must("chmod", c.setattr(secret, sattr{mode: ptr(uint32(0o600))}), statusOK)
		liar := w.dialAnyPort(addr1)
		_, _, st := liar.read(secret, 0, 10)
		liar.must("claiming to be root", st, statusAcces)
		c.must("chown", c.setattr(secret, sattr{uid: ptr(uint32(1000)), gid: ptr(uint32(50))}), statusOK)
		c.must("chmod", c.setattr(secret, sattr{mode: ptr(uint32(0o660))}), statusOK)
		for _, who := range [][]uint32{{1000, 1000}, {1001, 50}, {1001, 1001, 50}} {
			_, _, st := liar.as(who[0], who[1], who[2:]...).read(secret, 0, 10)
			liar.must("claiming to be the owner, or of the group", st, statusAcces)
			st, _, _ = liar.write(secret, 0, unstable, "x")
			liar.must("claiming to be the owner, or of the group", st, statusAcces)
		}
		made, st := liar.as(1000, 1000).create(dir, "claimed", guarded, sattr{})
		liar.must("creating where everybody may", st, statusOK)
		if a, _ := c.getattr(made); a.uid != rpc.Nobody || a.gid != rpc.Nobody {
			t.Errorf("what was made under another's name is %d:%d's", a.uid, a.gid)
		}
	})
}

func TestHostileNamesAreRefused(t *testing.T) {
	onEach(t, func(t *testing.T, w *world, c *client, dir handle) {
		file := c.put(dir, "f", "")
		long := strings.Repeat("x", 256)
		for name, want := range map[string]status{"a/b": statusAcces, "../up": statusAcces, "nul\x00byte": statusAcces, "": statusAcces, long: statusNameTooLong} {
			what := fmt.Sprintf("%.12q", name)
			c.must("CREATE "+what, second(c.create(dir, name, guarded, sattr{})), want)
			c.must("MKDIR "+what, second(c.mkdir(dir, name, 0o755)), want)
			c.must("SYMLINK "+what, second(c.symlink(dir, name, "t")), want)
			c.must("LINK "+what, c.link(file, dir, name), want)
			c.must("RENAME "+what, c.rename(dir, "f", dir, name), want)
			c.must("RENAME from "+what, c.rename(dir, name, dir, "g"), want)
			c.must("REMOVE "+what, c.remove(dir, name), want)
			_, _, st := c.lookup(dir, name)
			c.must("LOOKUP "+what, st, want)
		}
		c.must("removing ..", c.rmdir(dir, ".."), statusExist)
		c.must("removing .", c.rmdir(dir, "."), statusInval)
		c.must("renaming ..", c.rename(dir, "..", dir, "x"), statusInval)
		c.must("a symlink to nowhere", second(c.symlink(dir, "l", "")), statusInval)
		odd := strings.Repeat("\xff", 255)
		c.put(dir, odd, "not UTF-8")
		if got := c.content(c.list(dir)[odd].handle); got != "not UTF-8" {
			t.Errorf("a name that is not UTF-8 reads %q", got)
		}
		st, _, _ := c.write(file, 1<<63-2, unstable, "behind the end of all files")
		c.must("writing across 2^63", st, statusFBig)
		if s, eof, st := c.read(file, 1<<63+5, 100); st != statusOK || s != "" || !eof {
			t.Errorf("reading behind 2^63: %q %t %v", s, eof, st)
		}
		c.must("a size of 2^64-1", c.setattr(file, sattr{size: ptr(^uint64(0))}), statusFBig)
	})
}

func TestADirectoryOf10000NamesIsListedWhileItChanges(t *testing.T) {
	onEach(t, func(t *testing.T, w *world, c *client, dir handle) {
		const n = 10_000
		for i := range n {
			_, st := c.create(dir, fmt.Sprintf("file-%05d", i), guarded, sattr{mode: ptr(uint32(0o644))})
			c.must("creating", st, statusOK)
		}
		if got := len(c.list(dir)); got != n {
			t.Fatalf("%d names of %d", got, n)
		}
		// Half of the names go, and others come, while the list is read: what
		// stayed all the while is there once.
		seen, cookie, gone := map[string]int{}, uint64(0), 0
		for {
			items, eof, st := c.page(dir, cookie, 16384)
			c.must("READDIRPLUS", st, statusOK)
			for _, i := range items {
				seen[i.name]++
				cookie = i.cookie
			}
			for range 100 {
				if gone < n {
					c.must("removing", c.remove(dir, fmt.Sprintf("file-%05d", gone)), statusOK)
					gone += 2
				}
			}
			if eof {
				break
			}
		}
		for i := 1; i < n; i += 2 {
			if name := fmt.Sprintf("file-%05d", i); seen[name] != 1 {
				t.Fatalf("%q, which was there all the while, was listed %d times", name, seen[name])
			}
		}
	})
}

func TestHandlesOutliveTheServer(t *testing.T) {
	onEach(t, func(t *testing.T, w *world, c *client, dir handle) {
		f := c.put(dir, "f", "before")
		sub, _ := c.mkdir(dir, "sub", 0o755)
		deep := c.put(sub, "deep", "deep")
		_, _, verf := c.write(f, 0, unstable, "before")
		w.restart()
		c = w.dial(addr1)
		if got := c.content(f); got != "before" {
			t.Errorf("after a restart the file reads %q", got)
		}
		c.must("renaming by old handles", c.rename(dir, "sub", dir, "moved"), statusOK)
		st, _, _ := c.write(deep, 4, fileSync, "er")
		c.must("writing by an old handle", st, statusOK)
		w.restart()
		c = w.dial(addr1)
		if got := c.content(deep); got != "deeper" {
			t.Errorf("after two restarts and a rename above it, the file reads %q", got)
		}
		if up := c.walk(sub, ".."); string(up) != string(dir) {
			t.Error("a directory's parent has another handle after the restart")
		}
		_, now := c.commit(f)
		if now == verf {
			t.Error("the write verifier is that of an earlier life: lost writes would go unnoticed")
		}
	})
}

func TestStabilityIsWhatTheClientAskedFor(t *testing.T) {
	onEach(t, func(t *testing.T, w *world, c *client, dir handle) {
		h := c.put(dir, "f", "")
		_, how, v1 := c.write(h, 0, unstable, "a")
		if how != unstable {
			t.Errorf("an unstable write came out %d", how)
		}
		for _, ask := range []uint32{dataSync, fileSync} {
			if _, how, _ = c.write(h, 0, ask, "a"); how < ask {
				t.Errorf("a write that was to be %d came out %d", ask, how)
			}
		}
		st, v2 := c.commit(h)
		c.must("COMMIT", st, statusOK)
		if v1 != v2 {
			t.Error("WRITE and COMMIT of one server's life have two verifiers")
		}
		st, _ = c.commit(dir)
		c.must("COMMIT of a directory", st, statusInval)
	})
}
