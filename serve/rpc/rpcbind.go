package rpc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// Rpcbind is another process's portmapper on this host, to which programs are
// registered when it holds port 111.
type Rpcbind struct {
	// Addr is where it listens: 127.0.0.1:111.
	Addr netip.AddrPort
	// Timeout is how long one call may take; 0 is two seconds.
	Timeout time.Duration
}

// LocalRpcbind is the portmapper of this host.
func LocalRpcbind() Rpcbind {
	return Rpcbind{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), PortmapPort)}
}

// Ping tells whether a portmapper answers; the error says why not.
func (r Rpcbind) Ping(ctx context.Context) error {
	_, err := r.call(ctx, pmapNull, Mapping{})
	return err
}

// Register makes the mappings known (PMAPPROC_SET). What somebody left behind
// is replaced: first all are taken back, for UNSET removes a version over all
// transports. It needs root: rpcbind takes registrations from reserved ports of
// the loopback address only.
func (r Rpcbind) Register(ctx context.Context, ms ...Mapping) error {
	if err := r.Unregister(ctx, ms...); err != nil {
		return err
	}
	for _, m := range ms {
		if err := r.set(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

func (r Rpcbind) set(ctx context.Context, m Mapping) error {
	ok, err := r.call(ctx, pmapSet, m)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("registering program %d version %d (%s, port %d) with the portmapper at %s: it refused; is another NFS server registered? (rpcinfo -p shows it)",
			m.Program, m.Version, m.Transport, m.Port, r.Addr)
	}
	return nil
}

// Unregister takes the mappings back (PMAPPROC_UNSET).
func (r Rpcbind) Unregister(ctx context.Context, ms ...Mapping) error {
	var errs []error
	for _, m := range ms {
		_, err := r.call(ctx, pmapUnset, m)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// call does one call over a connection of its own and gives its boolean result
// (false for NULL, which has none).
func (r Rpcbind) call(ctx context.Context, procedure uint32, m Mapping) (bool, error) {
	timeout := r.Timeout
	if timeout == 0 {
		timeout = 2 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	nc, err := dialReserved(ctx, r.Addr)
	if err != nil {
		return false, fmt.Errorf("calling the portmapper at %s: %w", r.Addr, err)
	}
	defer nc.Close()
	if d, ok := ctx.Deadline(); ok {
		nc.SetDeadline(d)
	}
	ok, err := exchange(nc, procedure, m)
	if err != nil {
		return false, fmt.Errorf("calling the portmapper at %s: %w", r.Addr, err)
	}
	return ok, nil
}

// dialReserved connects from a port below 1024 if it may, as rpcresvport does.
func dialReserved(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	for port := 1023; port >= 600; port-- {
		d := net.Dialer{LocalAddr: &net.TCPAddr{Port: port}}
		nc, err := d.DialContext(ctx, "tcp", to.String())
		if err == nil || !errors.Is(err, errAddrInUse) {
			if errors.Is(err, errPermission) {
				break
			}
			return nc, err
		}
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", to.String())
}

func exchange(nc net.Conn, procedure uint32, m Mapping) (bool, error) {
	const xid = 1
	out := newReply()
	defer out.release()
	out.begin()
	AppendCall(out, xid, PortmapProgram, portmapVersion, procedure)
	m.append(out)
	out.end()
	if _, err := nc.Write(out.buf); err != nil {
		return false, err
	}
	var mark [recordMark]byte
	if _, err := io.ReadFull(nc, mark[:]); err != nil {
		return false, err
	}
	n := binary.BigEndian.Uint32(mark[:]) &^ lastFragment
	if n > 1024 {
		return false, fmt.Errorf("an answer of %d bytes", n)
	}
	msg := make([]byte, n)
	if _, err := io.ReadFull(nc, msg); err != nil {
		return false, err
	}
	return parseSetReply(msg, xid)
}

// AppendCall appends the header of a call with no credential.
func AppendCall(out *Reply, xid, program, version, procedure uint32) {
	for _, v := range [...]uint32{xid, msgCall, rpcVersion, program, version, procedure} {
		out.Uint32(v)
	}
	out.Uint64(0) // credential: AUTH_NONE, empty
	out.Uint64(0) // verifier
}

// parseSetReply reads the reply to NULL, SET or UNSET.
func parseSetReply(msg []byte, xid uint32) (bool, error) {
	d := NewDecoder(msg)
	gotXID, kind, stat := d.Uint32(), d.Uint32(), d.Uint32()
	d.Uint32()
	d.Opaque(maxAuth)
	accept := d.Uint32()
	if !d.Ok() || gotXID != xid || kind != msgReply || stat != replyAccepted || accept != uint32(Success) {
		return false, fmt.Errorf("it answered with an RPC error (reply status %d, %d)", stat, accept)
	}
	result := NewDecoder(d.Rest())
	return result.Uint32() == 1, nil
}
