package tftp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"rhizome/serve/bootspec"
)

// transfer sends one file to one client over a socket of its own, connected to
// the client's port: so the kernel drops what strangers send, and says when the
// client is gone.
type transfer struct {
	conn  *net.UDPConn
	file  bootspec.File
	terms terms
	// heard is called at the first acknowledgement.
	heard func()

	win     window
	clock   patience
	out     *burst
	body    []byte
	packets []byte
	in      [512]byte
	// opening is set until the OACK is acknowledged.
	opening bool
	started time.Time
	repeats int
}

func newTransfer(conn *net.UDPConn, f bootspec.File, t terms, heard func()) *transfer {
	blocks := int(min(int64(t.window), f.Size/int64(t.block)+1))
	return &transfer{
		conn: conn, file: f, terms: t, heard: heard,
		win: newWindow(f.Size, t), clock: patience{fixed: t.timeout}, out: newBurst(conn, t.block+header),
		body: make([]byte, blocks*t.block), packets: make([]byte, 0, blocks*(t.block+header)),
		opening: len(t.granted) > 0,
	}
}

// run sends until the last block is acknowledged, and returns how many bytes of
// the file the client has acknowledged. ctx ends it between two packets. The
// error is errGone, a *clientError, the context's cause, or what reading the file
// gave.
func (t *transfer) run(ctx context.Context) (int64, error) {
	stop := context.AfterFunc(ctx, func() { _ = t.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := t.push(); err != nil {
		return 0, t.closed(err)
	}
	for {
		err := t.step(ctx)
		if errors.Is(err, io.EOF) {
			return t.file.Size, nil
		}
		if err != nil {
			return t.acknowledged(), t.closed(err)
		}
	}
}

// acknowledged is the number of bytes that the client has.
func (t *transfer) acknowledged() int64 {
	return min(t.win.base*int64(t.terms.block), t.file.Size)
}

// step waits for one packet or for the clock, and acts. io.EOF says that all is
// sent and acknowledged.
func (t *transfer) step(ctx context.Context) error {
	r, err := t.receive(ctx)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return t.expired()
	case err != nil:
		return err
	case r.op == opERROR:
		return &clientError{code: r.code, message: r.message}
	case r.op != opACK:
		return nil
	case t.opening:
		return t.opened(r.block)
	}
	return t.acked(r.block)
}

func (t *transfer) opened(block uint16) error {
	if block != 0 {
		return nil
	}
	t.opening = false
	t.answered()
	return t.push()
}

func (t *transfer) acked(block uint16) error {
	switch t.win.acknowledge(block) {
	case done:
		t.heard()
		return io.EOF
	case send:
		t.answered()
		return t.push()
	case repeat:
		t.repeats++
		return t.push()
	}
	return nil
}

func (t *transfer) answered() {
	t.heard()
	t.clock.answered(time.Since(t.started), t.clock.failed > 0)
}

func (t *transfer) expired() error {
	if !t.clock.expired() {
		return errGone
	}
	t.win.lost()
	t.repeats++
	return t.push()
}

// receive waits as long as the clock says. A packet that is neither ACK nor
// ERROR, and a network that is down for a while, come back as the zero reply.
func (t *transfer) receive(ctx context.Context) (reply, error) {
	if err := t.conn.SetReadDeadline(t.started.Add(t.clock.wait())); err != nil {
		return reply{}, err
	}
	if ctx.Err() != nil {
		return reply{}, context.Cause(ctx)
	}
	n, err := t.conn.Read(t.in[:])
	if ctx.Err() != nil {
		return reply{}, context.Cause(ctx)
	}
	if err != nil {
		return reply{}, passing(err)
	}
	r, err := parseReply(t.in[:n])
	if err != nil {
		return reply{}, nil //nolint:nilerr // a stray packet is no reason to end a boot
	}
	return r, nil
}

// push sends what belongs on its way: the OACK, or the window.
func (t *transfer) push() error {
	t.started = time.Now()
	if t.opening {
		_, err := t.conn.Write(appendOACK(nil, t.terms.granted))
		return passing(err)
	}
	first, last := t.win.next()
	if err := t.fill(first, last); err != nil {
		return err
	}
	return passing(t.out.send(t.packets, t.terms.block+header))
}

// fill reads blocks first to last in one go and lays them into packets.
func (t *transfer) fill(first, last int64) error {
	block := int64(t.terms.block)
	from, to := (first-1)*block, min(last*block, t.file.Size)
	body := t.body[:to-from]
	if n, err := t.file.ReadAt(body, from); n < len(body) {
		return &fileError{fmt.Errorf("reading %q at byte %d: %w", t.file.Name, from, err)}
	}
	t.packets = t.packets[:0]
	for n := first; n <= last; n++ {
		t.packets = binary.BigEndian.AppendUint16(t.packets, opDATA)
		t.packets = binary.BigEndian.AppendUint16(t.packets, uint16(n))
		size := min(len(body), t.terms.block)
		t.packets = append(t.packets, body[:size]...)
		body = body[size:]
	}
	return nil
}

// closed gives the kernel's word that nobody listens its meaning. After the
// last block it means that the client has all and closed its socket, and only its
// acknowledgement was lost.
func (t *transfer) closed(err error) error {
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	if t.win.sent == t.win.last {
		return nil
	}
	return errClosed
}

// writeEach sends packets in one call each. A full queue is a loss like any
// other.
func writeEach(conn *net.UDPConn, packets []byte, packet int) error {
	for len(packets) > 0 {
		n := min(len(packets), packet)
		if _, err := conn.Write(packets[:n]); passing(err) != nil {
			return err
		}
		packets = packets[n:]
	}
	return nil
}

// passing drops the errors of sending that pass: then the packet is lost, and
// will be sent again.
func passing(err error) error {
	if errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EPERM) ||
		errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETDOWN) {
		return nil
	}
	return err
}
