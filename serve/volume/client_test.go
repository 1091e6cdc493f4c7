package volume

import (
	"encoding/binary"
	"fmt"
	"net"
	"testing"

	"rhizome/serve/rpc"
	"rhizome/serve/rpc/rpctest"
)

// client speaks NFSv3 as RFC 1813 has it, with nothing of the server's code
// but its XDR decoder.
type client struct {
	t testing.TB
	*rpctest.Client
}

// handle is a file handle, as it went over the wire.
type handle []byte

// dial connects as root of the node with an address, from a reserved port.
func (w *world) dial(from string) *client {
	w.t.Helper()
	for port := 1023; port > 600; port-- {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from), Port: port}}
		nc, err := d.Dial("tcp4", w.addr)
		if err == nil {
			w.t.Cleanup(func() { nc.Close() })
			return &client{w.t, rpctest.NewClient(nc)}
		}
	}
	w.t.Fatalf("no reserved port of %s is free", from)
	return nil
}

// as makes the calls that follow those of a user.
func (c *client) as(uid, gid uint32, groups ...uint32) *client {
	c.Cred = rpctest.Sys(uid, gid, groups...)
	return c
}

// call gives the status and what follows it.
func (c *client) call(proc uint32, args ...[]byte) (status, rpc.Decoder) {
	c.t.Helper()
	var all []byte
	for _, a := range args {
		all = append(all, a...)
	}
	r, err := c.Call(100003, 3, proc, all)
	if err != nil {
		c.t.Fatalf("calling procedure %d: %v", proc, err)
	}
	if r.Denied || r.Status != rpc.Success {
		c.t.Fatalf("procedure %d: RPC status %d (denied %t)", proc, r.Status, r.Denied)
	}
	d := rpc.NewDecoder(r.Body)
	return status(d.Uint32()), d
}

// try is call for a server that may be gone; ok says that it answered.
func (c *client) try(proc uint32, args ...[]byte) (st status, d rpc.Decoder, ok bool) {
	var all []byte
	for _, a := range args {
		all = append(all, a...)
	}
	r, err := c.Call(100003, 3, proc, all)
	if err != nil || r.Denied || r.Status != rpc.Success {
		return 0, d, false
	}
	d = rpc.NewDecoder(r.Body)
	return status(d.Uint32()), d, true
}

func u32(vs ...uint32) []byte { return rpctest.Words(vs...) }
func u64(v uint64) []byte     { return binary.BigEndian.AppendUint64(nil, v) }
func str(s string) []byte     { return rpctest.Opaque([]byte(s)) }
func fh(h handle) []byte      { return rpctest.Opaque(h) }

// sattr is sattr3; a nil part is left alone.
type sattr struct {
	mode, uid, gid *uint32
	size           *uint64
	atime, mtime   *moment
}

func ptr[T any](v T) *T { return &v }

func (s sattr) xdr() []byte {
	var b []byte
	for _, v := range []*uint32{s.mode, s.uid, s.gid} {
		if v == nil {
			b = append(b, u32(0)...)
		} else {
			b = append(b, u32(1, *v)...)
		}
	}
	if s.size == nil {
		b = append(b, u32(0)...)
	} else {
		b = append(append(b, u32(1)...), u64(*s.size)...)
	}
	for _, m := range []*moment{s.atime, s.mtime} {
		if m == nil {
			b = append(b, u32(0)...)
		} else {
			b = append(b, u32(2, uint32(m.Sec), m.Nsec)...)
		}
	}
	return b
}

func (c *client) mount(path string) (handle, uint32) {
	c.t.Helper()
	r, err := c.Call(100005, 3, 1, str(path))
	if err != nil {
		c.t.Fatalf("mounting %q: %v", path, err)
	}
	d := rpc.NewDecoder(r.Body)
	st := d.Uint32()
	return append(handle(nil), d.Opaque(64)...), st
}

func (c *client) mustMount(path string) handle {
	c.t.Helper()
	h, st := c.mount(path)
	if st != 0 {
		c.t.Fatalf("mounting %q: status %d", path, st)
	}
	return h
}

func readAttr(d *rpc.Decoder) (a attr) {
	a.kind, a.mode, a.nlink, a.uid, a.gid = kind(d.Uint32()), d.Uint32(), d.Uint32(), d.Uint32(), d.Uint32()
	a.size, a.used, a.major, a.minor = d.Uint64(), d.Uint64(), d.Uint32(), d.Uint32()
	d.Uint64() // fsid
	a.fileid = d.Uint64()
	for _, m := range []*moment{&a.atime, &a.mtime, &a.ctime} {
		*m = moment{int64(d.Uint32()), d.Uint32()}
	}
	return a
}

func readPostOp(d *rpc.Decoder) (a attr, ok bool) {
	if ok = d.Bool(); ok {
		a = readAttr(d)
	}
	return a, ok
}

// readWcc gives the size, mtime and ctime before, and the attributes after.
func readWcc(d *rpc.Decoder) (before, now attr) {
	if d.Bool() {
		before.size = d.Uint64()
		before.mtime = moment{int64(d.Uint32()), d.Uint32()}
		before.ctime = moment{int64(d.Uint32()), d.Uint32()}
	}
	now, _ = readPostOp(d)
	return before, now
}

func (c *client) getattr(h handle) (attr, status) {
	c.t.Helper()
	st, d := c.call(procGetattr, fh(h))
	if st != statusOK {
		return attr{}, st
	}
	return readAttr(&d), st
}

func (c *client) lookup(dir handle, name string) (handle, attr, status) {
	c.t.Helper()
	st, d := c.call(procLookup, fh(dir), str(name))
	if st != statusOK {
		return nil, attr{}, st
	}
	h := append(handle(nil), d.Opaque(64)...)
	a, _ := readPostOp(&d)
	return h, a, st
}

// walk looks up a path of several names.
func (c *client) walk(h handle, names ...string) handle {
	c.t.Helper()
	for _, n := range names {
		next, _, st := c.lookup(h, n)
		if st != statusOK {
			c.t.Fatalf("looking up %q of %q: %v", n, names, st)
		}
		h = next
	}
	return h
}

// made reads the results of CREATE, MKDIR, SYMLINK and MKNOD.
func (c *client) made(st status, d rpc.Decoder) (handle, status) {
	if st != statusOK {
		return nil, st
	}
	if !d.Bool() {
		c.t.Fatal("no handle of what was made")
	}
	return append(handle(nil), d.Opaque(64)...), st
}

func (c *client) create(dir handle, name string, how uint32, s sattr) (handle, status) {
	c.t.Helper()
	return c.made(c.call(procCreate, fh(dir), str(name), u32(how), s.xdr()))
}

func (c *client) createExclusive(dir handle, name string, verf uint64) (handle, status) {
	c.t.Helper()
	return c.made(c.call(procCreate, fh(dir), str(name), u32(exclusive), u64(verf)))
}

func (c *client) mkdir(dir handle, name string, mode uint32) (handle, status) {
	c.t.Helper()
	return c.made(c.call(procMkdir, fh(dir), str(name), sattr{mode: &mode}.xdr()))
}

func (c *client) symlink(dir handle, name, target string) (handle, status) {
	c.t.Helper()
	return c.made(c.call(procSymlink, fh(dir), str(name), sattr{}.xdr(), str(target)))
}

func (c *client) mknod(dir handle, name string, k kind, major, minor uint32) (handle, status) {
	c.t.Helper()
	args := append(u32(uint32(k)), sattr{mode: ptr(uint32(0o640))}.xdr()...)
	if k.device() {
		args = append(args, u32(major, minor)...)
	}
	return c.made(c.call(procMknod, fh(dir), str(name), args))
}

func (c *client) remove(dir handle, name string) status {
	c.t.Helper()
	st, _ := c.call(procRemove, fh(dir), str(name))
	return st
}

func (c *client) rmdir(dir handle, name string) status {
	c.t.Helper()
	st, _ := c.call(procRmdir, fh(dir), str(name))
	return st
}

func (c *client) rename(from handle, name string, to handle, toName string) status {
	c.t.Helper()
	st, _ := c.call(procRename, fh(from), str(name), fh(to), str(toName))
	return st
}

func (c *client) link(h, dir handle, name string) status {
	c.t.Helper()
	st, _ := c.call(procLink, fh(h), fh(dir), str(name))
	return st
}

func (c *client) setattr(h handle, s sattr) status {
	c.t.Helper()
	st, _ := c.call(procSetattr, fh(h), s.xdr(), u32(0))
	return st
}

// write gives the status, how stable the bytes are, and the verifier.
func (c *client) write(h handle, off uint64, stable uint32, data string) (status, uint32, uint64) {
	c.t.Helper()
	st, d := c.call(procWrite, fh(h), u64(off), u32(uint32(len(data)), stable), str(data))
	if st != statusOK {
		return st, 0, 0
	}
	readWcc(&d)
	if n := d.Uint32(); int(n) != len(data) {
		c.t.Fatalf("%d of %d bytes were written", n, len(data))
	}
	return st, d.Uint32(), d.Uint64()
}

func (c *client) commit(h handle) (status, uint64) {
	c.t.Helper()
	st, d := c.call(procCommit, fh(h), u64(0), u32(0))
	if st != statusOK {
		return st, 0
	}
	readWcc(&d)
	return st, d.Uint64()
}

func (c *client) read(h handle, off uint64, n uint32) (string, bool, status) {
	c.t.Helper()
	st, d := c.call(procRead, fh(h), u64(off), u32(n))
	if st != statusOK {
		return "", false, st
	}
	readPostOp(&d)
	d.Uint32()
	eof := d.Bool()
	return string(d.Opaque(1 << 20)), eof, st
}

func (c *client) readlink(h handle) (string, status) {
	c.t.Helper()
	st, d := c.call(procReadlink, fh(h))
	readPostOp(&d)
	if st != statusOK {
		return "", st
	}
	return string(d.Opaque(4096)), st
}

// item is an entry of READDIRPLUS.
type item struct {
	name   string
	fileid uint64
	cookie uint64
	attr   attr
	handle handle
}

// page reads one READDIRPLUS reply.
func (c *client) page(dir handle, cookie uint64, size uint32) (items []item, eof bool, st status) {
	c.t.Helper()
	st, d := c.call(procReaddirplus, fh(dir), u64(cookie), u64(0), u32(size, size))
	if st != statusOK {
		return nil, false, st
	}
	readPostOp(&d)
	d.Uint64()
	for d.Bool() {
		i := item{fileid: d.Uint64(), name: string(d.Opaque(255)), cookie: d.Uint64()}
		i.attr, _ = readPostOp(&d)
		if d.Bool() {
			i.handle = append(handle(nil), d.Opaque(64)...)
		}
		items = append(items, i)
	}
	eof = d.Bool()
	if !d.Ok() {
		c.t.Fatal("READDIRPLUS answered something cut short")
	}
	return items, eof, st
}

// list reads a whole directory, without "." and "..".
func (c *client) list(dir handle) map[string]item {
	c.t.Helper()
	all, cookie := map[string]item{}, uint64(0)
	for {
		items, eof, st := c.page(dir, cookie, 8192)
		if st != statusOK {
			c.t.Fatalf("READDIRPLUS: %v", st)
		}
		for _, i := range items {
			if !isDots(i.name) {
				if _, twice := all[i.name]; twice {
					c.t.Fatalf("READDIRPLUS gave %q twice", i.name)
				}
				all[i.name] = i
			}
			cookie = i.cookie
		}
		if eof {
			return all
		}
	}
}

// must stops the test where a call did not answer as it should.
func (c *client) must(what string, got, want status) {
	c.t.Helper()
	if got != want {
		c.t.Fatalf("%s: %v (%d), want %v (%d)", what, got, uint32(got), want, uint32(want))
	}
}

// put makes a file with content, stable.
func (c *client) put(dir handle, name, content string) handle {
	c.t.Helper()
	h, st := c.create(dir, name, unchecked, sattr{mode: ptr(uint32(0o644))})
	c.must(fmt.Sprintf("creating %q", name), st, statusOK)
	st, _, _ = c.write(h, 0, fileSync, content)
	c.must(fmt.Sprintf("writing %q", name), st, statusOK)
	return h
}

func (c *client) content(h handle) string {
	c.t.Helper()
	s, _, st := c.read(h, 0, 1<<20)
	c.must("reading", st, statusOK)
	return s
}

// dialAnyPort connects from a port that any user can have.
func (w *world) dialAnyPort(from string) *client {
	w.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	nc, err := d.Dial("tcp4", w.addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { nc.Close() })
	return &client{w.t, rpctest.NewClient(nc)}
}

// resend sends a call again as it was sent before.
func (c *client) resend(xid, proc uint32, args []byte) {
	c.t.Helper()
	msg := rpctest.Message(xid, 100003, 3, proc, c.Cred, args)
	if _, err := c.Write(rpctest.Record(msg)); err != nil {
		c.t.Fatal(err)
	}
}
