package nfs

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"rhizome/serve/rootfs"
	"rhizome/serve/rpc/rpctest"
)

// tally is a meter that writes down what it hears.
type tally struct {
	mu   sync.Mutex
	said []string
	name map[rootfs.File]string
}

func (m *tally) note(what string, f rootfs.File) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.said = append(m.said, what+" "+m.name[f])
}

func (m *tally) Called(f rootfs.File)          { m.note("called", f) }
func (m *tally) Searched(dir rootfs.File)      { m.note("searched", dir) }
func (m *tally) Read(f rootfs.File, n int)     { m.note(fmt.Sprintf("read %d of", n), f) }
func (m *tally) take() (said []string)         { said, m.said = m.said, nil; return said }
func (m *tally) knows(f rootfs.File, n string) { m.name[f] = n }

// Each call counts once, about the file that a node would not have asked for if
// it had it in memory: a LOOKUP about what it found, or, finding nothing, about
// the directory that was searched.
func TestAMeterHearsEachCallOnce(t *testing.T) {
	w := newWorld(t)
	m := &tally{name: map[rootfs.File]string{}}
	for _, p := range []string{"/", "/etc", "/bin/sh", "/sbin/halt"} {
		f, err := w.view.Locate(p)
		if err != nil {
			t.Fatal(err)
		}
		m.knows(f, p)
	}
	var metered []netip.Addr
	w.meters = func(client netip.Addr, _ FS) Meter {
		metered = append(metered, client)
		return m
	}
	c := w.root()
	top, etc, sh, halt := c.walk(), c.walk("etc"), c.walk("bin", "sh"), c.walk("sbin", "halt")
	m.take()
	name := func(n string) []byte { return rpctest.Opaque([]byte(n)) }
	for _, call := range []struct {
		do   func() results
		want string
	}{
		{func() results { return c.nfs(procGetattr, sh) }, "[called /bin/sh]"},
		{func() results { return c.nfs(procAccess, etc, rpctest.Words(1)) }, "[called /etc]"},
		{func() results { return c.nfs(procReadlink, halt) }, "[called /sbin/halt]"},
		{func() results { return c.nfs(procLookup, top, name("etc")) }, "[called /etc]"},
		{func() results { return c.nfs(procLookup, etc, name("nothing")) }, "[searched /etc]"},
		{func() results { return c.nfs(procReaddir, etc, u64(0), u64(0), rpctest.Words(4096)) }, "[searched /etc]"},
		{func() results { return c.nfs(procRead, sh, u64(0), rpctest.Words(4096)) }, "[read 4096 of /bin/sh]"},
	} {
		call.do()
		if got := fmt.Sprint(m.take()); got != call.want {
			t.Errorf("heard %s, want %s", got, call.want)
		}
	}
	if len(metered) != 1 || metered[0] != nodeA {
		t.Errorf("meters were asked for by %v: once for a client and its root is enough", metered)
	}
}
