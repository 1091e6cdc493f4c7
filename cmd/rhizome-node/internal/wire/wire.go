// Package wire is an HTTP/1.1 client (RFC 9112) that is just enough for the
// node's talk with serve: one request a connection, bodies of a known length or
// in chunks, no redirects, no TLS. net/http would double the size of
// rhizome-node, which lies in every node's memory.
package wire

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Bounds of what a server can make this client hold or wait for.
const (
	maxLine    = 8 << 10
	maxHeaders = 100
	// Stall is how long the other side may be silent in the middle of a body.
	Stall = 60 * time.Second
)

// Request is what is asked.
type Request struct {
	Method, Path string
	Header       map[string]string
	// Body is nil for none. Length is its length in bytes, or -1 where that is
	// not known: it goes out in chunks then.
	Body   io.Reader
	Length int64
	// Wait is how long the answer's first byte may take; 0 means Stall.
	Wait time.Duration
}

// Response is the answer. Close must follow; Body fails with
// io.ErrUnexpectedEOF where the connection ends before the body.
type Response struct {
	Status int
	// Header has its keys in lower case.
	Header map[string]string
	// Length is that of the body in bytes, -1 where it is not known.
	Length int64
	Body   io.Reader

	conn net.Conn
	stop func() bool
}

// Close ends the connection.
func (r *Response) Close() error {
	r.stop()
	return r.conn.Close()
}

// Dialer opens connections to one server.
type Dialer struct {
	// Addr is HOST:PORT.
	Addr string
	// Reserved asks from a port below 1024, which only root can.
	Reserved bool
	// Window is how many bytes may be on their way here at most, 0 for as many as
	// the system thinks best.
	Window int
	// Timeout bounds the opening; 0 is ten seconds.
	Timeout time.Duration
}

// Do asks, and reads the head of the answer.
func (d Dialer) Do(ctx context.Context, r Request) (*Response, error) {
	conn, err := d.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", d.Addr, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	resp, err := exchange(d.Addr, &deadlines{conn}, r)
	if err != nil {
		stop()
		conn.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("%s http://%s%s: %w", r.Method, d.Addr, r.Path, err)
	}
	resp.conn, resp.stop = conn, stop
	return resp, nil
}

// deadlines moves the connection's deadline with every call: slow is good,
// silent is not.
type deadlines struct{ net.Conn }

func (d *deadlines) Read(p []byte) (int, error) {
	_ = d.SetReadDeadline(time.Now().Add(Stall))
	return d.Conn.Read(p)
}

func (d *deadlines) Write(p []byte) (int, error) {
	_ = d.SetWriteDeadline(time.Now().Add(Stall))
	return d.Conn.Write(p)
}

func exchange(host string, conn net.Conn, r Request) (*Response, error) {
	sent := send(host, conn, r)
	var body *bodyError
	if errors.As(sent, &body) {
		return nil, body.err // the server waits for the rest, and there is none
	}
	// A server may refuse in the middle of a body: its answer says more than
	// the broken pipe.
	if r.Wait > 0 {
		conn = &patient{conn.(*deadlines), r.Wait}
	}
	resp, err := readHead(bufio.NewReaderSize(conn, 64<<10))
	if sent != nil && (err != nil || resp.Status < 400) {
		return nil, sent
	}
	return resp, err
}

// patient waits longer for the first byte.
type patient struct {
	*deadlines
	wait time.Duration
}

func (p *patient) Read(b []byte) (int, error) {
	_ = p.SetReadDeadline(time.Now().Add(max(p.wait, Stall)))
	p.wait = 0
	return p.Conn.Read(b)
}

func send(host string, w io.Writer, r Request) error {
	out := bufio.NewWriterSize(w, 256<<10)
	fmt.Fprintf(out, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: rhizome-node\r\nConnection: close\r\n", r.Method, r.Path, host)
	for k, v := range r.Header {
		fmt.Fprintf(out, "%s: %s\r\n", k, v)
	}
	switch {
	case r.Body == nil:
		if strings.HasPrefix(r.Method, "P") { // POST and PUT have a body, if an empty one
			fmt.Fprint(out, "Content-Length: 0\r\n")
		}
		fmt.Fprint(out, "\r\n")
		return out.Flush()
	case r.Length >= 0:
		fmt.Fprintf(out, "Content-Length: %d\r\n\r\n", r.Length)
		if n, err := io.Copy(out, io.LimitReader(r.Body, r.Length)); err != nil || n != r.Length {
			return cmp.Or(err, shortBody(n, r.Length))
		}
		return out.Flush()
	}
	fmt.Fprint(out, "Transfer-Encoding: chunked\r\n\r\n")
	if err := sendChunks(out, r.Body); err != nil {
		return err
	}
	return out.Flush()
}

func shortBody(n, want int64) error {
	if n == want {
		return nil
	}
	return &bodyError{fmt.Errorf("the body has %d bytes and was said to have %d", n, want)}
}

// bodyError is a body that could not be read to its end.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return e.err.Error() }

// sendChunks is the chunked coding (RFC 9112, 7.1). A body that fails is left
// without its last chunk, so that the server knows.
func sendChunks(out *bufio.Writer, body io.Reader) error {
	buf := make([]byte, 128<<10)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			fmt.Fprintf(out, "%x\r\n", n)
			if _, err := out.Write(buf[:n]); err != nil {
				return err
			}
			if _, err := out.WriteString("\r\n"); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			_, err := out.WriteString("0\r\n\r\n")
			return err
		}
		if err != nil {
			return &bodyError{err}
		}
	}
}

// readHead reads a status line and headers, and prepares the body.
func readHead(r *bufio.Reader) (*Response, error) {
	line, err := readLine(r)
	if err != nil {
		return nil, err
	}
	version, rest, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	if !strings.HasPrefix(version, "HTTP/1.") || err != nil || status < 200 || status > 599 {
		return nil, fmt.Errorf("the answer begins with %.60q, and not as HTTP does", line)
	}
	resp := &Response{Status: status, Header: map[string]string{}}
	for {
		line, err := readLine(r)
		if err != nil {
			return nil, err
		}
		if line == "" {
			return resp, resp.frame(r)
		}
		k, v, ok := strings.Cut(line, ":")
		if !ok || len(resp.Header) >= maxHeaders {
			return nil, fmt.Errorf("the answer's header %.60q is none, or one too many", line)
		}
		resp.Header[strings.ToLower(k)] = strings.TrimSpace(v)
	}
}

// frame decides where the body ends (RFC 9112, 6.3).
func (r *Response) frame(in *bufio.Reader) error {
	length, known := r.Header["content-length"]
	switch {
	case r.Status == 204 || r.Status == 304:
		r.Body = strings.NewReader("")
	case strings.EqualFold(r.Header["transfer-encoding"], "chunked"):
		r.Length, r.Body = -1, &chunks{in: in}
	case known:
		n, err := strconv.ParseInt(length, 10, 64)
		if err != nil || n < 0 {
			return fmt.Errorf("the answer's length is %.60q", length)
		}
		r.Length, r.Body = n, &exactly{in, n}
	default:
		r.Length, r.Body = -1, in
	}
	return nil
}

// exactly reads so many bytes and no fewer.
type exactly struct {
	in   io.Reader
	left int64
}

func (e *exactly) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n, err := e.in.Read(p[:min(int64(len(p)), e.left)])
	e.left -= int64(n)
	if errors.Is(err, io.EOF) && e.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// chunks reads a chunked body.
type chunks struct {
	in   *bufio.Reader
	left int64
	end  bool
	// inside is set between the first chunk's head and its end.
	inside bool
}

func (c *chunks) Read(p []byte) (int, error) {
	if c.left == 0 && !c.end {
		if err := c.next(); err != nil {
			return 0, unexpected(err)
		}
	}
	if c.end {
		return 0, io.EOF
	}
	n, err := c.in.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, unexpected(err)
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (c *chunks) next() error {
	if c.inside {
		if line, err := readLine(c.in); err != nil || line != "" {
			return errors.Join(err, errors.New("a chunk does not end where it said"))
		}
	}
	c.inside = true
	line, err := readLine(c.in)
	if err != nil {
		return err
	}
	size, _, _ := strings.Cut(line, ";")
	n, err := strconv.ParseInt(strings.TrimSpace(size), 16, 64)
	if err != nil || n < 0 {
		return fmt.Errorf("a chunk's length is %.30q", line)
	}
	c.left, c.end = n, n == 0
	return nil
}

func readLine(r *bufio.Reader) (string, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > maxLine {
			return "", errors.New("the answer has a line without end")
		}
		if err == nil {
			return strings.TrimRight(string(line), "\r\n"), nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return "", unexpected(err)
		}
	}
}

// dial connects, from a reserved port where that is asked for.
func (d Dialer) dial(ctx context.Context) (net.Conn, error) {
	timeout := d.Timeout
	if timeout <= 0 {
		timeout = 10 * time.Second
	}
	dialer := net.Dialer{Timeout: timeout, Control: d.prepare}
	if !d.Reserved {
		return dialer.DialContext(ctx, "tcp", d.Addr)
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("only root can ask from a reserved port")
	}
	// 1023 downwards, beginning somewhere else in every process: the kernel's
	// NFS client uses some of them too.
	first := os.Getpid()
	for i := range reservedPorts {
		dialer.LocalAddr = &net.TCPAddr{Port: 1023 - (first+i)%reservedPorts}
		conn, err := dialer.DialContext(ctx, "tcp", d.Addr)
		if !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, syscall.EADDRNOTAVAIL) {
			return conn, err
		}
	}
	return nil, errors.New("every reserved port is in use")
}

// reservedPorts is how many ports below 1024 are tried: 600 to 1023, where few
// services are.
const reservedPorts = 424

// prepare sets a socket's options before it connects: a reserved port may be one
// whose last connection has only just ended, and the window is offered with the
// first packet (RFC 7323, 2.2).
func (d Dialer) prepare(_, _ string, c syscall.RawConn) error {
	var set error
	err := c.Control(func(fd uintptr) {
		if d.Reserved {
			set = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
		}
		if d.Window > 0 {
			set = errors.Join(set, syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, d.Window))
		}
	})
	return errors.Join(err, set)
}
