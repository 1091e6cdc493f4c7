// Package rpctest has what tests of RPC programs share: a client that can
// misbehave, and network namespaces in which real clients find port 111.
package rpctest

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"rhizome/serve/rpc"
)

// patience is how long a test waits for what must come.
const patience = time.Minute

// Client calls an RPC server over a connection of its own. Its methods are for
// one goroutine.
type Client struct {
	net.Conn
	xid uint32
	// Cred is the credential as it goes over the wire: flavor, length, body.
	Cred []byte
}

// Dial connects over "tcp" or "udp".
func Dial(network, addr string) (*Client, error) {
	nc, err := net.DialTimeout(network, addr, patience)
	if err != nil {
		return nil, err
	}
	return NewClient(nc), nil
}

// NewClient calls over a connection that exists, as root.
func NewClient(nc net.Conn) *Client { return &Client{Conn: nc, Cred: Sys(0, 0)} }

// None is the credential AUTH_NONE.
func None() []byte { return make([]byte, 8) }

// Sys is a credential of AUTH_SYS.
func Sys(uid, gid uint32, groups ...uint32) []byte {
	body := Words(7, 4)
	body = append(body, "host"...)
	body = append(body, Words(uid, gid, uint32(len(groups)))...)
	body = append(body, Words(groups...)...)
	return append(Words(rpc.AuthSys, uint32(len(body))), body...)
}

// Words is XDR of unsigned ints.
func Words(vs ...uint32) []byte {
	var b []byte
	for _, v := range vs {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

// Opaque is XDR of variable-length bytes.
func Opaque(b []byte) []byte {
	out := append(Words(uint32(len(b))), b...)
	return append(out, make([]byte, -len(b)&3)...)
}

// Message is a call message.
func Message(xid, program, version, procedure uint32, cred, args []byte) []byte {
	m := Words(xid, 0, 2, program, version, procedure)
	m = append(m, cred...)
	m = append(m, 0, 0, 0, 0, 0, 0, 0, 0)
	return append(m, args...)
}

// Record puts a record mark before a message.
func Record(msg []byte) []byte { return append(Words(1<<31|uint32(len(msg))), msg...) }

// Reply is what came back.
type Reply struct {
	XID uint32
	// Denied is set for a rejected call; Status is reject_stat then, and
	// accept_stat otherwise.
	Denied bool
	Status rpc.Status
	// Body is what follows the status.
	Body []byte
}

// Call sends a call and waits for its reply.
func (c *Client) Call(program, version, procedure uint32, args []byte) (Reply, error) {
	xid, err := c.Send(program, version, procedure, args)
	if err != nil {
		return Reply{}, err
	}
	r, err := c.Receive()
	if err == nil && r.XID != xid {
		err = fmt.Errorf("the reply to call %d came for call %d", r.XID, xid)
	}
	return r, err
}

// Send sends a call and gives its xid.
func (c *Client) Send(program, version, procedure uint32, args []byte) (uint32, error) {
	c.xid++
	msg := Message(c.xid, program, version, procedure, c.Cred, args)
	if c.stream() {
		msg = Record(msg)
	}
	_, err := c.Write(msg)
	return c.xid, err
}

func (c *Client) stream() bool { return c.LocalAddr().Network() != "udp" }

// Receive waits for the next reply.
func (c *Client) Receive() (Reply, error) {
	c.SetReadDeadline(time.Now().Add(patience))
	msg, err := c.receive()
	if err != nil {
		return Reply{}, err
	}
	return ParseReply(msg)
}

func (c *Client) receive() ([]byte, error) {
	if !c.stream() {
		buf := make([]byte, 1<<16)
		n, err := c.Read(buf)
		return buf[:n], err
	}
	var mark [4]byte
	if _, err := io.ReadFull(c, mark[:]); err != nil {
		return nil, err
	}
	msg := make([]byte, binary.BigEndian.Uint32(mark[:])&^(1<<31))
	_, err := io.ReadFull(c, msg)
	return msg, err
}

// ParseReply reads a reply message (RFC 5531, 9).
func ParseReply(msg []byte) (Reply, error) {
	d := rpc.NewDecoder(msg)
	r := Reply{XID: d.Uint32()}
	if d.Uint32() != 1 {
		return r, fmt.Errorf("not a reply: %x", msg)
	}
	if r.Denied = d.Uint32() == 1; !r.Denied {
		d.Uint32()
		if verf := d.Opaque(400); len(verf) != 0 {
			return r, fmt.Errorf("a verifier of %d bytes, which FreeBSD's loader refuses", len(verf))
		}
	}
	r.Status = rpc.Status(d.Uint32())
	r.Body = d.Rest()
	if !d.Ok() {
		return r, fmt.Errorf("a reply cut short: %x", msg)
	}
	return r, nil
}
