package simulate

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// replyLimit is the longest reply that is taken, in bytes: a READ of 1 MiB and
// its frame.
const replyLimit = 1<<20 + 4096

// patience is how long a call may take on a server under load.
const patience = 2 * time.Minute

// conn calls RPC programs over one TCP connection (RFC 5531).
type conn struct {
	nc    net.Conn
	in    *bufio.Reader
	xid   uint32
	reply []byte
	count *Counts
}

// dial connects from a port below 1024, as a kernel does: only root may read
// as root.
func (m *machine) dial(port uint16) (*conn, error) {
	to := net.TCPAddrFromAddrPort(netip.AddrPortFrom(m.plan.Server, port))
	var last error
	for from := uint16(1023); from > 900; from-- {
		nc, err := net.DialTCP("tcp4", net.TCPAddrFromAddrPort(netip.AddrPortFrom(m.node.Addr, from)), to)
		if err == nil {
			return &conn{nc: nc, in: bufio.NewReaderSize(nc, 64<<10), count: &m.count}, nil
		}
		last = err
	}
	return nil, last
}

func (c *conn) close() { c.nc.Close() }

// xdr appends XDR (RFC 4506).
type xdr []byte

func (x xdr) word(v uint32) xdr   { return binary.BigEndian.AppendUint32(x, v) }
func (x xdr) double(v uint64) xdr { return binary.BigEndian.AppendUint64(x, v) }
func (x xdr) opaque(b string) xdr {
	x = append(x.word(uint32(len(b))), b...)
	return append(x, make([]byte, -len(b)&3)...)
}

// call sends one call as root and returns the results of its reply, good until
// the next one.
func (c *conn) call(program, version, proc uint32, args xdr) (*results, error) {
	c.xid++
	// AUTH_SYS (RFC 5531, appendix A): stamp, machine, uid, gid, no groups.
	cred := xdr{}.word(0).opaque("node").word(0).word(0).word(0)
	msg := xdr{}.word(0).word(c.xid).word(0).word(2).word(program).word(version).word(proc)
	msg = msg.word(1).opaque(string(cred)).word(0).word(0)
	msg = append(msg, args...)
	binary.BigEndian.PutUint32(msg, 1<<31|uint32(len(msg)-4))
	if err := c.nc.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if _, err := c.nc.Write(msg); err != nil {
		return nil, err
	}
	if err := c.receive(); err != nil {
		return nil, err
	}
	c.count.Calls++
	c.count.Bytes += int64(len(c.reply)) + 4
	return c.accepted()
}

func (c *conn) receive() error {
	c.reply = c.reply[:0]
	for last := false; !last; {
		var head [4]byte
		if _, err := io.ReadFull(c.in, head[:]); err != nil {
			return err
		}
		mark := binary.BigEndian.Uint32(head[:])
		last = mark>>31 == 1
		n, have := int(mark&^(1<<31)), len(c.reply)
		if have+n > replyLimit {
			return fmt.Errorf("a reply of more than %d bytes", replyLimit)
		}
		if cap(c.reply) < have+n {
			c.reply = append(make([]byte, 0, have+n), c.reply...)
		}
		c.reply = c.reply[:have+n]
		if _, err := io.ReadFull(c.in, c.reply[have:]); err != nil {
			return err
		}
	}
	return nil
}

// accepted checks the reply's head: xid, REPLY, MSG_ACCEPTED, verifier, SUCCESS.
func (c *conn) accepted() (*results, error) {
	r := &results{rest: c.reply}
	if xid, kind, state := r.word(), r.word(), r.word(); xid != c.xid || kind != 1 || state != 0 {
		return nil, fmt.Errorf("the reply is to call %d of kind %d in state %d", xid, kind, state)
	}
	r.word()
	r.opaque()
	if state := r.word(); state != 0 || r.short {
		return nil, fmt.Errorf("the call was accepted with state %d", state)
	}
	return r, nil
}

// results reads XDR; short is set when something was missing.
type results struct {
	rest  []byte
	short bool
}

var errShort = errors.New("the reply ends too early")

func (r *results) take(n int) []byte {
	if n < 0 || n > len(r.rest) {
		r.short, r.rest = true, nil
		return make([]byte, min(max(n, 0), 8))
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *results) word() uint32 { return binary.BigEndian.Uint32(r.take(4)) }

func (r *results) opaque() []byte {
	n := int(r.word())
	if n > len(r.rest) {
		r.short = true
		return nil
	}
	b := r.take(n)
	r.take(-n & 3)
	return b
}
