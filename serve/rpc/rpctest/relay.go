package rpctest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"rhizome/serve/rpc"
)

// Faults are what a network does to datagrams, as chances of each.
type Faults struct{ Loss, Double, Swap float64 }

// Relay is a bad network between one UDP client and a server: a port that hands
// datagrams on in both directions and loses some, doubles some and sends some
// only after the next. It is for kernels without netem.
type Relay struct {
	faults      Faults
	front, back *net.UDPConn

	mu     sync.Mutex
	random *rand.Rand
	client net.Addr
	held   map[*net.UDPConn][]byte
	did    Done
}

// Done counts what a relay did to datagrams.
type Done struct{ Lost, Doubled, Swapped int }

// NewRelay starts a relay to a server, which sees the address local; it ends
// with the test. A nil local is any of the loopback's.
func NewRelay(t testing.TB, server string, local *net.UDPAddr, f Faults) *Relay {
	t.Helper()
	to, err := net.ResolveUDPAddr("udp", server)
	if err != nil {
		t.Fatal(err)
	}
	back, err := net.DialUDP("udp", local, to)
	if err != nil {
		t.Fatal(err)
	}
	front, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	r := &Relay{faults: f, front: front, back: back, random: rand.New(rand.NewPCG(1, 2)), held: map[*net.UDPConn][]byte{}}
	var done sync.WaitGroup
	done.Go(func() { r.carry(front, back) })
	done.Go(func() { r.carry(back, front) })
	t.Cleanup(func() { front.Close(); back.Close(); done.Wait() })
	return r
}

// Done is what was done so far.
func (r *Relay) Done() Done {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.did
}

// Addr is where the client sends to.
func (r *Relay) Addr() string { return r.front.LocalAddr().String() }

func (r *Relay) carry(from, to *net.UDPConn) {
	buf := make([]byte, 1<<16)
	for {
		n, sender, err := from.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // a datagram that was refused: the server is gone for now
		}
		r.mu.Lock()
		if from == r.front {
			r.client = sender
		}
		r.pass(to, append([]byte(nil), buf[:n]...))
		r.mu.Unlock()
	}
}

// pass sends a datagram, or not, or twice, or after the next one.
func (r *Relay) pass(to *net.UDPConn, datagram []byte) {
	late := r.held[to]
	delete(r.held, to)
	switch x := r.random.Float64(); {
	case x < r.faults.Loss:
		r.did.Lost++
	case x < r.faults.Loss+r.faults.Double:
		r.did.Doubled++
		r.write(to, datagram)
		r.write(to, datagram)
	case x < r.faults.Loss+r.faults.Double+r.faults.Swap:
		r.did.Swapped++
		r.held[to] = datagram
	default:
		r.write(to, datagram)
	}
	if late != nil {
		r.write(to, late)
	}
}

func (r *Relay) write(to *net.UDPConn, datagram []byte) {
	if to == r.front {
		_, _ = to.WriteTo(datagram, r.client)
		return
	}
	_, _ = to.Write(datagram)
}

// resendAfter is how long Insist waits before it asks again.
const resendAfter = 50 * time.Millisecond

// Insist makes calls over UDP as NFS clients do: it sends each again, with the
// same xid, until its reply has come, and takes no notice of replies to others.
// All calls are in flight at once. The replies are in the order of the calls.
func (c *Client) Insist(program, version, procedure uint32, args ...[]byte) ([]Reply, error) {
	replies, missing := make([]Reply, len(args)), map[uint32]int{}
	first := c.xid + 1
	c.xid += uint32(len(args))
	for i := range args {
		missing[first+uint32(i)] = i
	}
	for deadline := time.Now().Add(6 * patience); len(missing) > 0; {
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%d of %d calls were never answered: %w", len(missing), len(args), context.DeadlineExceeded)
		}
		for xid, i := range missing {
			if _, err := c.Write(Message(xid, program, version, procedure, c.Cred, args[i])); err != nil {
				return nil, err
			}
		}
		if err := c.collect(replies, missing); err != nil {
			return nil, err
		}
	}
	return replies, nil
}

// collect takes replies until none comes for a while.
func (c *Client) collect(replies []Reply, missing map[uint32]int) error {
	for len(missing) > 0 {
		c.SetReadDeadline(time.Now().Add(resendAfter))
		msg, err := c.receive()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		reply, err := ParseReply(msg)
		if err != nil {
			return err
		}
		if reply.Status != rpc.Success || reply.Denied {
			return fmt.Errorf("the reply %+v", reply)
		}
		if i, ok := missing[reply.XID]; ok {
			replies[i] = reply
			delete(missing, reply.XID)
		}
	}
	return nil
}
