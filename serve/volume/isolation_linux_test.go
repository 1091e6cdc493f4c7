package volume

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rhizome/serve/boot"

	"golang.org/x/sys/unix"
)

func TestANodeReachesItsOwnExportsAndNoOthers(t *testing.T) {
	needRoot(t)
	w := newWorld(t, nil)
	c1, c2 := w.dial(addr1), w.dial(addr2)
	for _, path := range []string{"/persist/n1", "/cow/n1/etc"} {
		root := c1.mustMount(path)
		h := c1.put(root, "secret", "n1's")
		if _, st := c2.mount(path); st != 13 {
			t.Errorf("node n2 mounting %s: status %d, want 13 (MNT3ERR_ACCES)", path, st)
		}
		if _, st := c2.getattr(h); st != statusStale {
			t.Errorf("node n2 with a handle of n1 (%s): %v", path, st)
		}
		if len(w.heard(boot.NFSRefused)) == 0 {
			t.Error("nobody was told that a node used another's handle")
		}
		// A handle of its own, with the object of another's.
		own := c2.mustMount("/persist/n2")
		mixed := bytes.Clone(own)
		copy(mixed[handleFixed:], h[handleFixed:])
		if _, st := c2.getattr(mixed); st != statusBadHandle {
			t.Errorf("a handle put together from two: %v", st)
		}
		if st := c2.rename(own, "x", root, "y"); st != statusXDev {
			t.Errorf("renaming into another node's export: %v", st)
		}
	}
	if _, st := c1.mount("/persist/n1/../n2"); st != 13 {
		t.Errorf("mounting a path with ..: %d", st)
	}
	if _, st := c1.mount("/cow/n1/outside"); st != 2 {
		t.Errorf("mounting what the recipe does not name: %d, want 2 (MNT3ERR_NOENT)", st)
	}
}

// Without a MAC in the handle this reads any file of the server: a kernel's
// file handle is a type, an inode and a generation, which is 0 for many.
func TestAForgedHandleOpensNothing(t *testing.T) {
	needRoot(t)
	w := newWorld(t, nil)
	c := w.dial(addr1)
	root := c.mustMount("/persist/n1")
	outside := filepath.Join(w.dir, "outside")
	if err := os.WriteFile(outside, []byte("the server's"), 0o644); err != nil {
		t.Fatal(err)
	}
	k, _, err := unix.NameToHandleAt(unix.AT_FDCWD, outside, 0)
	if err != nil {
		t.Fatal(err)
	}
	forged := append(handle(nil), root[:handleFixed]...)
	id := append(binary.BigEndian.AppendUint32(nil, uint32(k.Type())), k.Bytes()...)
	forged[2] = byte(len(id))
	forged = append(forged, id...)
	forged = append(forged, make([]byte, -len(id)&3)...)
	if _, _, st := c.read(forged, 0, 100); st != statusBadHandle {
		t.Errorf("reading the server's file by a forged handle: %v", st)
	}
	for i := range root {
		bad := bytes.Clone(root)
		bad[i] ^= 1
		if _, st := c.getattr(bad); st == statusOK {
			t.Errorf("a handle with byte %d changed still opens something", i)
		}
	}
}

// While a node puts symlinks in the place of directories, nothing that it does
// by name reaches what lies outside of its export.
func TestSymlinksPutInTheWayLeadNowhere(t *testing.T) {
	needRoot(t)
	w := newWorld(t, nil)
	c := w.dial(addr1)
	root := c.mustMount("/persist/n1")
	outside := filepath.Join(w.dir, "outside")
	if err := os.Mkdir(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(outside, "f"), []byte("the server's"), 0o644); err != nil {
		t.Fatal(err)
	}
	host := filepath.Join(w.dir, "persist", "c", "n1")
	dir, _ := c.mkdir(root, "d", 0o755)
	c.put(dir, "f", "the node's")
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { // the host swaps the directory for a symlink, as fast as it can
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			os.Rename(filepath.Join(host, "d"), filepath.Join(host, "away"))
			os.Symlink(outside, filepath.Join(host, "d"))
			os.Remove(filepath.Join(host, "d"))
			os.Rename(filepath.Join(host, "away"), filepath.Join(host, "d"))
		}
	}()
	for range 2000 {
		h, a, st := c.lookup(root, "d")
		if st != statusOK {
			continue
		}
		if a.kind == kindDir {
			if f, _, st := c.lookup(h, "f"); st == statusOK && c.content(f) != "the node's" {
				t.Fatal("a name led out of the export")
			}
		} else if _, _, st := c.lookup(h, "f"); st != statusNotDir && st != statusStale {
			t.Fatalf("looking into a symlink: %v", st)
		}
		c.create(h, "planted", guarded, sattr{})
	}
	close(stop)
	<-done
	names, err := os.ReadDir(outside)
	if err != nil || len(names) != 1 {
		t.Fatalf("something was made outside of the export: %v %v", names, err)
	}
}

func TestOnlyOneServerOwnsANodesExports(t *testing.T) {
	needRoot(t)
	w := newWorld(t, nil)
	c := w.dial(addr1)
	root := c.mustMount("/persist/n1")
	h := c.put(root, "f", "1")
	firstStop := w.stop
	w.start() // a second server on the same store
	second := w.dial(addr1)
	if _, st := second.mount("/persist/n1"); st != 10006 {
		t.Errorf("mounting at the second server: %d, want 10006 (MNT3ERR_SERVERFAULT)", st)
	}
	if _, st := second.getattr(h); st != statusJukebox {
		t.Errorf("a call at the second server: %v, want to be told to ask again later", st)
	}
	firstStop()
	if got := second.content(h); got != "1" {
		t.Errorf("after the first server ended, the second reads %q", got)
	}
	var busy *BusyError
	if _, err := own(filepath.Join(w.dir, "cow", "c", "n1")); !errors.As(err, &busy) {
		t.Errorf("the second server does not hold the lock: %v", err)
	}
}

func TestAQuotaIsTheEndOfWhatANodeCanWrite(t *testing.T) {
	needRoot(t)
	const limit = 1 << 20
	for name, path := range kinds {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(n *Node) { n.PersistQuota = limit })
			if name == "records" {
				useRecords(t, w)
			}
			c := w.dial(addr1)
			root := c.mustMount(path)
			chunk := string(make([]byte, 64<<10))
			fill := func(file string) (n uint64, end status) {
				h, st := c.create(root, file, guarded, sattr{mode: ptr(uint32(0o644))})
				for st == statusOK {
					if st, _, _ = c.write(h, n, unstable, chunk); st == statusOK {
						n += uint64(len(chunk))
					}
				}
				return n, st
			}
			n, st := fill("big")
			c.must("writing on and on", st, statusDQuot)
			if n > limit || n < limit/2 {
				t.Errorf("%d bytes were written under a quota of %d", n, limit)
			}
			if len(w.heard(boot.NFSError)) == 0 {
				t.Error("nobody was told that a node ran into its quota")
			}
			w.restart()
			c = w.dial(addr1)
			if n, _ := fill("more"); n > 64<<10 {
				t.Errorf("after a restart the node wrote %d bytes more", n)
			}
			c.must("removing", c.remove(root, "big"), statusOK)
			if n, _ := fill("again"); n < limit/2 {
				t.Errorf("removing gave only %d bytes back", n)
			}
			// A hole costs nothing, until it is filled.
			c.must("removing", c.remove(root, "again"), statusOK)
			hole := c.put(root, "hole", "")
			c.must("making a hole", c.setattr(hole, sattr{size: ptr(uint64(64 << 20))}), statusOK)
			st = statusOK
			for off := uint64(0); st == statusOK && off < 4<<20; off += uint64(len(chunk)) {
				st, _, _ = c.write(hole, off, unstable, chunk)
			}
			c.must("filling a hole beyond the quota", st, statusDQuot)
		})
	}
}

func TestARepeatedCallGetsItsFirstReply(t *testing.T) {
	onEach(t, func(t *testing.T, w *world, c *client, dir handle) {
		c.put(dir, "f", "")
		args := append(fh(dir), str("f")...)
		xid, err := c.Send(100003, 3, procRemove, args)
		if err != nil {
			t.Fatal(err)
		}
		first, err := c.Receive()
		if err != nil {
			t.Fatal(err)
		}
		c.resend(xid, procRemove, args)
		again, err := c.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first.Body, again.Body) || binary.BigEndian.Uint32(again.Body) != 0 {
			t.Errorf("the same REMOVE again answered %x, first %x", again.Body, first.Body)
		}
		c.must("another REMOVE", c.remove(dir, "f"), statusNoEnt)
	})
}

// What another recipe says of a node's quota and devices holds as soon as the node
// has it, and not when the server is started next.
func TestAnotherRecipesQuotaHoldsAtOnce(t *testing.T) {
	needRoot(t)
	w := newWorld(t, func(n *Node) { n.PersistQuota, n.PersistDevices = 1<<20, true })
	c := w.dial(addr1)
	for _, path := range []string{"/persist/n1", "/cow/n1/etc"} {
		w.nodes.edit(addr1, func(n *Node) { n.PersistQuota, n.PersistDevices = 1<<20, true })
		root := c.mustMount(path)
		h := c.put(root, "big", "")
		big := strings.Repeat("x", 1<<19)
		fill := func() (st status) {
			for i := range uint64(4) {
				if st, _, _ = c.write(h, i<<19, fileSync, big); st != statusOK {
					break
				}
			}
			return st
		}
		c.must("writing 2 MiB where 1 MiB is the quota", fill(), statusDQuot)
		w.nodes.edit(addr1, func(n *Node) { n.PersistQuota, n.PersistDevices = 4<<20, false })
		c.must("writing 2 MiB where 4 MiB is the quota", fill(), statusOK)
		w.nodes.edit(addr1, func(n *Node) { n.PersistQuota = 0 })
		c.must("writing without a quota", fill(), statusOK)
		w.nodes.edit(addr1, func(n *Node) { n.PersistQuota = 1 << 20 })
		st, _, _ := c.write(h, 8<<20, fileSync, big)
		c.must("writing beyond a quota that is smaller now", st, statusDQuot)
	}
	w.nodes.edit(addr1, func(n *Node) { n.PersistQuota = 0 })
	root := c.mustMount("/persist/n1")
	_, st := c.mknod(root, "null", kindChar, 1, 3)
	c.must("making a device that the node may not have any more", st, statusPerm)
}

// A node that changes much, or asks for what is not there, does not push the replies
// out that its neighbour may need yet.
func TestANeighbourPushesNoReplyOut(t *testing.T) {
	needRoot(t)
	w := newWorld(t, nil)
	c, other := w.dial(addr1), w.dial(addr2)
	root, others := c.mustMount("/persist/n1"), other.mustMount("/persist/n2")
	c.put(root, "f", "")
	args := append(fh(root), str("f")...)
	xid, err := c.Send(100003, 3, procRemove, args)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Receive(); err != nil {
		t.Fatal(err)
	}
	for range maxReplays + 100 {
		other.must("removing what is not there", other.remove(others, "none"), statusNoEnt)
	}
	c.resend(xid, procRemove, args)
	again, err := c.Receive()
	if err != nil {
		t.Fatal(err)
	}
	if st := status(binary.BigEndian.Uint32(again.Body)); st != statusOK {
		t.Errorf("the same REMOVE again, after a neighbour's calls: %v", st)
	}
	kept := w.volumes.replays
	kept.mu.Lock()
	defer kept.mu.Unlock()
	if n := kept.all.Len(); n > maxReplays || n != len(kept.known) {
		t.Errorf("%d replies are kept, and %d known", n, len(kept.known))
	}
}
