package tftp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/pin/tftp/v3/netascii"

	"rhizome/serve/boot"
	"rhizome/serve/bootspec"
)

// maxText bounds a file that is asked for in netascii, in bytes: it is converted
// in memory, since its size is not known before.
const maxText = 4 << 20

// refusal is an ERROR packet to be and the event that goes with it.
type refusal struct {
	code uint16
	kind boot.Kind
	err  error
}

// answer serves one request from beginning to end.
func (l *listener) answer(e *entry, from netip.AddrPort, r Request) {
	m, known := l.Machines(from.Addr())
	if !known {
		l.stranger(from, r)
		return
	}
	defer m.Done()
	seen := boot.Event{
		Kind: boot.TFTPRead, Node: m.Node.Name, Addr: from.Addr(), Digest: m.Digest,
		MAC: strings.Join(m.Node.MACs[:min(1, len(m.Node.MACs))], ""), File: r.Name, Detail: describe(r),
	}
	l.event(seen)
	f, no := open(m, r)
	if no != nil {
		l.refuse(from, seen, no)
		return
	}
	l.transfer(e, from, seen, f, negotiate(r.Options, f.Size, l.bounds))
}

// describe puts mode and options into one line: "octet blksize=1428 tsize=0".
func describe(r Request) string {
	words := []string{r.Mode}
	for _, o := range r.Options {
		words = append(words, fmt.Sprintf("%.16s=%.16s", o.Name, o.Value))
	}
	return strings.Join(words, " ")
}

// open finds the file, or the reason why not.
func open(m bootspec.Machine, r Request) (bootspec.File, *refusal) {
	switch {
	case r.Write:
		return bootspec.File{}, &refusal{codeAccess, boot.TFTPRefused, errors.New("this server takes no files: it is read only")}
	case r.Mode != "octet" && r.Mode != "netascii":
		return bootspec.File{}, &refusal{codeIllegal, boot.TFTPRefused, fmt.Errorf("mode %.16q is not served: use octet", r.Mode)}
	}
	f, err := bootspec.Open(m, r.Name)
	var missing *bootspec.NotFound
	switch {
	case errors.As(err, &missing):
		return f, &refusal{codeNotFound, boot.TFTPNotFound, err}
	case err != nil:
		return f, &refusal{codeUndefined, boot.TFTPAborted, err}
	case r.Mode == "netascii":
		return asText(f)
	}
	return f, nil
}

// asText converts line ends (RFC 764), which tftp(1) asks for unless it is told
// "binary".
func asText(f bootspec.File) (bootspec.File, *refusal) {
	if f.Size > maxText {
		return f, &refusal{codeIllegal, boot.TFTPRefused, fmt.Errorf("%q is too large for mode netascii: use octet (\"binary\" in tftp)", f.Name)}
	}
	text, err := io.ReadAll(netascii.ToReader(io.NewSectionReader(f, 0, f.Size)))
	if err != nil {
		return f, &refusal{codeUndefined, boot.TFTPAborted, fmt.Errorf("reading %q: %w", f.Name, err)}
	}
	f.ReaderAt, f.Size = bytes.NewReader(text), int64(len(text))
	return f, nil
}

// stranger answers an address that no node has: an error for whoever sits in front
// of it, and an event, but not as many as it likes.
func (l *listener) stranger(from netip.AddrPort, r Request) {
	l.Counters.Refused.Add(1)
	if !l.quiet.Open(time.Now()) {
		return
	}
	l.tell(from, codeAccess, "no node of this cluster has your address")
	l.event(boot.Event{Kind: boot.TFTPRefused, Addr: from.Addr(), File: r.Name, Detail: describe(r), Error: fmt.Sprintf("no node has the address %v", from.Addr())})
}

func (l *listener) refuse(from netip.AddrPort, seen boot.Event, no *refusal) {
	l.tell(from, no.code, no.err.Error())
	seen.Kind, seen.Error = no.kind, no.err.Error()
	l.count(seen.Kind)
	l.event(seen)
}

func (s *Server) count(kind boot.Kind) {
	switch kind {
	case boot.TFTPDone:
		s.Counters.Done.Add(1)
	case boot.TFTPNotFound:
		s.Counters.NotFound.Add(1)
	case boot.TFTPRefused:
		s.Counters.Refused.Add(1)
	case boot.TFTPAborted:
		s.Counters.Aborted.Add(1)
	}
}

// tell sends an ERROR from a port of its own, as RFC 1350 section 4 has answers
// come.
func (l *listener) tell(to netip.AddrPort, code uint16, sentence string) {
	conn, err := l.dial(to)
	if err != nil {
		l.logError("answering a TFTP request", err)
		return
	}
	defer conn.Close()
	_, _ = conn.Write(appendError(nil, code, sentence))
}

// dial opens the server's side of a transfer: a port of its own (RFC 1350
// section 4, "TID") on the address that was asked.
func (l *listener) dial(to netip.AddrPort) (*net.UDPConn, error) {
	local := net.UDPAddrFromAddrPort(netip.AddrPortFrom(l.local, 0))
	return net.DialUDP("udp", local, net.UDPAddrFromAddrPort(to))
}

// transfer sends the file and reports how that ended.
func (l *listener) transfer(e *entry, from netip.AddrPort, seen boot.Event, f bootspec.File, t terms) {
	conn, err := l.dial(from)
	if err != nil {
		seen.Kind, seen.Error = boot.TFTPAborted, fmt.Sprintf("opening a socket for the transfer: %v", err)
		l.count(seen.Kind)
		l.event(seen)
		return
	}
	defer conn.Close()
	began := time.Now()
	x := newTransfer(conn, f, t, func() { e.heard.Store(true) })
	bytes, err := x.run(e.ctx)
	if errors.Is(err, context.Canceled) {
		err = errStopping
	}
	l.Counters.Bytes.Add(bytes)
	l.Counters.Repeats.Add(int64(x.repeats))
	seen.Bytes, seen.Took = bytes, time.Since(began)
	seen.Detail = fmt.Sprintf("blksize=%d windowsize=%d repeats=%d size=%d", t.block, t.window, x.repeats, f.Size)
	seen.Kind, seen.Error, seen.Detail = ended(err, seen, f)
	if code, sentence, ok := parting(err); ok {
		_, _ = conn.Write(appendError(nil, code, sentence))
	}
	l.count(seen.Kind)
	l.event(seen)
}

// ended gives the end of a transfer its event: what a healthy boot does is done,
// with a word about it.
func ended(err error, seen boot.Event, f bootspec.File) (boot.Kind, string, string) {
	var said *clientError
	switch {
	case err == nil:
		return boot.TFTPDone, "", seen.Detail
	case errors.As(err, &said) && said.normal(seen.Bytes):
		return boot.TFTPDone, "", seen.Detail + "; " + err.Error() + " (normal for firmware that wants to know a size, or goes back in a file)"
	case errors.Is(err, errSuperseded):
		return boot.TFTPDone, "", seen.Detail + "; " + err.Error() + " (normal: FreeBSD's loader closes files so)"
	}
	return boot.TFTPAborted, fmt.Sprintf("sending %q, %d of %d bytes: %v", f.Name, seen.Bytes, f.Size, err), seen.Detail
}

// parting is what the client is told when the server ends a transfer.
func parting(err error) (uint16, string, bool) {
	var broken *fileError
	switch {
	case errors.As(err, &broken):
		return codeUndefined, broken.Error(), true
	case errors.Is(err, errStopping):
		return codeUndefined, errStopping.Error(), true
	}
	return 0, "", false
}
