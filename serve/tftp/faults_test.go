package tftp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	client "github.com/pin/tftp/v3"

	"rhizome/serve/boot"
	"rhizome/serve/bootspec"
)

func TestRealClientsGetTheirFileOverABadNetwork(t *testing.T) {
	want := noise(150_000)
	for name, f := range map[string]faults{
		"2% loss":            {loss: 0.02},
		"doubled packets":    {double: 0.2},
		"swapped packets":    {swap: 0.05},
		"all that at once":   {loss: 0.02, double: 0.05, swap: 0.02},
		"every packet twice": {double: 1},
	} {
		for _, who := range []string{"atftp with every option", "curl without options", "tftp-hpa", "busybox"} {
			if f.double == 1 && strings.HasPrefix(who, "atftp") {
				continue // atftp 0.8 ends at the second of two OACKs
			}
			t.Run(name+"/"+who, func(t *testing.T) {
				t.Parallel()
				s := start(t, memory{"/boot/kernel": want})
				at := throughRelay(t, s.addr, f)
				out := filepath.Join(t.TempDir(), "out")
				got, said := fetch(t, fetchers[who]("127.0.0.1", int(at.Port()), "/boot/kernel", out), out)
				if !bytes.Equal(got, want) {
					t.Errorf("got %d bytes of %d: %s", len(got), len(want), said)
				}
			})
		}
	}
}

// The Sorcerer's Apprentice (RFC 1123 section 4.2.3.1): with every packet
// doubled, a sender that answers each acknowledgement sends every block twice, then
// four times. Ours sends each once.
func TestDoubledAcknowledgementsDoNotDoubleTheFile(t *testing.T) {
	for _, window := range []string{"1", "16"} {
		c := dial(t, start(t, memory{"/f": noise(512 * 320)}).addr)
		c.request("/f", "windowsize", window)
		c.ack(0)
		c.ack(0)
		blocks := 0
		for last := false; !last; {
			n, body := c.data()
			blocks++
			last = len(body) < 512
			if w := map[string]uint16{"1": 1, "16": 16}[window]; n%w == 0 || last {
				c.ack(n)
				c.ack(n)
			}
		}
		if blocks > 321*3/2 {
			t.Errorf("window %s: %d blocks came for 321", window, blocks)
		}
	}
}

func TestAFileOfMoreThan65535BlocksGoesRound(t *testing.T) {
	want := noise(512*65536 + 1000)
	s := start(t, memory{"/big": want})
	c := dial(t, s.addr)
	c.request("/big", "windowsize", "32")
	c.ack(0)
	var got bytes.Buffer
	for next := uint16(1); ; {
		n, body := c.data()
		if n != next {
			continue // sent again because this test was slow
		}
		next++
		got.Write(body)
		if n%32 == 0 || len(body) < 512 {
			c.ack(n)
		}
		if len(body) < 512 {
			break
		}
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Error("the file that came is another")
	}
}

func TestOneBlockOfAWindowLostCostsNoTimeout(t *testing.T) {
	s := start(t, memory{"/f": noise(512 * 64)})
	c := dial(t, s.addr)
	c.request("/f", "windowsize", "8", "timeout", "255")
	c.ack(0)
	for range 8 {
		c.data()
	}
	c.ack(3) // as if block 4 was lost
	for want := uint16(4); want < 12; want++ {
		if n, _ := c.data(); n != want {
			t.Fatalf("block %d came for %d", n, want)
		}
	}
	c.ack(11)
	for range 8 {
		c.data()
	}
	c.ack(11) // as if block 12 was lost
	if n, _ := c.data(); n != 12 {
		t.Fatalf("block %d came for 12", n)
	}
}

func TestUEFIAsksForTheSizeAndGoesAway(t *testing.T) {
	s := start(t, memory{"/loader.efi": noise(600_000)})
	c := dial(t, s.addr)
	if got := c.request("loader.efi", "tsize", "0", "blksize", "1468"); got != "tsize=600000 blksize=1468 " {
		t.Errorf("was granted %q", got)
	}
	c.write(appendError(nil, 8, "User aborted the transfer"))
	if e := s.await(t, boot.TFTPDone, 1); e.Error != "" || !strings.Contains(e.Detail, "normal") {
		t.Errorf("event: %+v", e)
	}
	if _, ok := s.find(boot.TFTPAborted, 1); ok {
		t.Error("a size probe was reported as an error")
	}
}

func TestFreeBSDsLoaderLeavesOneFileForAnotherFromTheSamePort(t *testing.T) {
	s := start(t, memory{"/a": noise(100_000), "/b": []byte("b")})
	c := dial(t, s.addr)
	c.request("/a", "blksize", "1428", "tsize", "0")
	c.ack(0)
	c.data()
	c.server = s.addr
	c.request("/b", "blksize", "1428", "tsize", "0")
	c.ack(0)
	if n, body := c.data(); n != 1 || string(body) != "b" {
		t.Errorf("block %d of %d bytes came", n, len(body))
	}
	c.ack(1)
	if e := s.await(t, boot.TFTPDone, 2); e.Error != "" {
		t.Errorf("event: %+v", e)
	}
}

func TestARequestRepeatedBeforeItIsAnsweredStartsOneTransfer(t *testing.T) {
	s := start(t, memory{"/a": noise(100_000)})
	c := dial(t, s.addr)
	for range 5 {
		c.write(appendRequest(nil, Request{Name: "/a", Mode: "octet"}))
	}
	s.await(t, boot.TFTPRead, 1)
	until(t, "the repeated requests are dropped", func() bool { return s.Counters.Dropped.Load() >= 4 })
	if n := s.Counters.Active.Load(); n != 1 {
		t.Errorf("%d transfers run", n)
	}
}

func TestAClientThatVanishesIsGivenUpWithASentence(t *testing.T) {
	t.Parallel()
	s := start(t, memory{"/a": noise(100_000)})
	c := dial(t, s.addr)
	c.request("/a", "blksize", "1468", "timeout", "1")
	c.ack(0)
	c.data()
	e := s.await(t, boot.TFTPAborted, 1)
	if !strings.Contains(e.Error, "went away") || e.Node != "n1" {
		t.Errorf("event: %+v", e)
	}
}

func TestAClientThatClosesItsPortIsGivenUpAtOnce(t *testing.T) {
	s := start(t, memory{"/a": noise(100_000)})
	c := dial(t, s.addr)
	c.request("/a", "timeout", "1")
	c.conn.Close()
	if e := s.await(t, boot.TFTPAborted, 1); !strings.Contains(e.Error, "closed its port") {
		t.Errorf("event: %+v", e)
	}
}

func TestASlowClientGetsItsFileAndOthersDoNotWait(t *testing.T) {
	want := noise(512 * 3)
	s := start(t, memory{"/a": want})
	slow := dial(t, s.addr)
	slow.request("/a", "timeout", "1")
	slow.ack(0)
	repeated := 0
	for repeated < 2 { // by its silence it makes the server send the block again
		if n, _ := slow.data(); n != 1 {
			t.Fatalf("block %d came", n)
		}
		repeated++
		quick := dial(t, s.addr)
		quick.request("/a", "blksize", "1400")
	}
	for n := uint16(1); n < 4; n++ {
		slow.ack(n)
		slow.data()
	}
	slow.ack(4)
	if e := s.await(t, boot.TFTPDone, 1); e.Bytes != int64(len(want)) {
		t.Errorf("event: %+v", e)
	}
}

func TestStrangersGetNothingAndCannotFloodTheLog(t *testing.T) {
	s := start(t, memory{"/a": noise(10)})
	conn, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 9, 9, 9)}, net.UDPAddrFromAddrPort(s.addr))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 200 {
		_, _ = conn.Write(appendRequest(nil, Request{Name: "/a", Mode: "octet"}))
	}
	e := s.await(t, boot.TFTPRefused, 1)
	if !strings.Contains(e.Error, "127.9.9.9") {
		t.Errorf("event: %+v", e)
	}
	until(t, "all requests are refused", func() bool { return s.Counters.Refused.Load()+s.Counters.Dropped.Load() >= 200 })
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.events) > 3*bootspec.StrangersPerSecond {
		t.Errorf("%d events", len(s.events))
	}
}

func TestOneClientCannotTakeAllTransfers(t *testing.T) {
	s := start(t, memory{"/a": noise(10_000)}, func(s *Server) { s.PerClient = 3 })
	for range 8 {
		c := dial(t, s.addr)
		c.write(appendRequest(nil, Request{Name: "/a", Mode: "octet"}))
	}
	until(t, "all requests came", func() bool { return s.Counters.Requests.Load()+s.Counters.Dropped.Load() >= 8 })
	if n := s.Counters.Active.Load(); n != 3 {
		t.Errorf("%d transfers run", n)
	}
}

func TestADamagedFileEndsTheTransferWithItsReason(t *testing.T) {
	s := start(t, memory{"/a": nil}, func(s *Server) {
		known := s.Machines
		s.Machines = func(a netip.Addr) (bootspec.Machine, bool) {
			m, ok := known(a)
			m.Tree = brokenTree{}
			return m, ok
		}
	})
	c := dial(t, s.addr)
	c.write(appendRequest(nil, Request{Name: "/a", Mode: "octet"}))
	if r, err := parseReply(c.read()); err != nil || r.op != opERROR || !strings.Contains(r.message, "bit rot") {
		t.Errorf("the client was told %+v, %v", r, err)
	}
	s.await(t, boot.TFTPAborted, 1)
}

type brokenTree struct{}

func (brokenTree) Open(string) (bootspec.File, error) {
	return bootspec.File{ReaderAt: brokenTree{}, Size: 1000}, nil
}

func (brokenTree) ReadAt([]byte, int64) (int, error) { return 0, errors.New("bit rot") }

func TestAPanicInOneTransferEndsThatTransferAlone(t *testing.T) {
	s := start(t, memory{"/a": noise(10)}, func(s *Server) {
		known := s.Machines
		s.Machines = func(a netip.Addr) (bootspec.Machine, bool) {
			if a == mustAddr("127.6.6.6") {
				panic("a bug")
			}
			return known(a)
		}
	})
	conn, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 6, 6, 6)}, net.UDPAddrFromAddrPort(s.addr))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = conn.Write(appendRequest(nil, Request{Name: "/a", Mode: "octet"}))
	s.await(t, boot.TFTPAborted, 1)
	c := dial(t, s.addr)
	c.write(appendRequest(nil, Request{Name: "/a", Mode: "octet"}))
	if n, _ := c.data(); n != 1 {
		t.Errorf("block %d came", n)
	}
}

func TestJunkAtThePortStopsNothing(t *testing.T) {
	s := start(t, memory{"/a": noise(10)})
	junk := dial(t, s.addr)
	for _, b := range [][]byte{{}, {0}, {0, 1}, bytes.Repeat([]byte{0, 1}, 700), bytes.Repeat([]byte{0xff}, 1400), noise(1400)} {
		junk.write(b)
	}
	c := dial(t, s.addr)
	c.write(appendRequest(nil, Request{Name: "/a", Mode: "octet"}))
	if _, body := c.data(); len(body) != 10 {
		t.Errorf("%d bytes came", len(body))
	}
}

func TestTwoHundredClientsAtOnce(t *testing.T) {
	want := noise(200_000)
	s := start(t, memory{"/boot/kernel": want}, func(s *Server) { s.PerClient = 1000 })
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			if err := getWithPin(s.addr, 512+i*5, want); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	all.Wait()
	if n := s.Counters.Done.Load() + s.Counters.Active.Load(); n < 200 {
		t.Errorf("%d done", n)
	}
}

func getWithPin(at netip.AddrPort, block int, want []byte) error {
	c, err := client.NewClient(at.String())
	if err != nil {
		return err
	}
	c.SetBlockSize(block)
	c.SetTimeout(2 * time.Second)
	c.SetRetries(20)
	from, err := c.Receive("/boot/kernel", "octet")
	if err != nil {
		return err
	}
	var got bytes.Buffer
	if _, err := from.WriteTo(&got); err != nil {
		return err
	}
	if !bytes.Equal(got.Bytes(), want) {
		return fmt.Errorf("got %d bytes of %d, or others", got.Len(), len(want))
	}
	return nil
}

func TestStoppingTellsTheClients(t *testing.T) {
	r := &running{tree: memory{"/a": noise(100_000)}, more: make(chan struct{}, 1)}
	r.Server = &Server{Events: r.note, Machines: func(netip.Addr) (bootspec.Machine, bool) {
		m := bootspec.Machine{Tree: r.tree}
		m.Node.Boot.Files = []string{"/a"}
		return m, true
	}}
	conn := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Serve(ctx, conn) }()
	c := dial(t, conn.LocalAddr().(*net.UDPAddr).AddrPort())
	c.request("/a", "blksize", "1400")
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
	if got, err := parseReply(c.read()); err != nil || got.op != opERROR || !strings.Contains(got.message, "stopping") {
		t.Errorf("the client was told %+v, %v", got, err)
	}
}

func TestASocketBoundToAllAddressesIsRefused(t *testing.T) {
	conn, err := net.ListenUDP("udp", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := (&Server{}).Serve(t.Context(), conn); err == nil {
		t.Error("it was served")
	}
}

func TestASocketThatIsClosedEndsServing(t *testing.T) {
	conn := listen(t)
	ended := make(chan error, 1)
	go func() { ended <- (&Server{}).Serve(context.Background(), conn) }()
	conn.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("ended with %v", err)
	}
}

// puppet is a client that does as the test says, packet by packet.
type puppet struct {
	t      *testing.T
	conn   *net.UDPConn
	server netip.AddrPort
}

func dial(t *testing.T, server netip.AddrPort) *puppet {
	t.Helper()
	return &puppet{t: t, conn: listen(t), server: server}
}

func (p *puppet) write(b []byte) {
	p.t.Helper()
	if _, err := p.conn.WriteToUDPAddrPort(b, p.server); err != nil {
		p.t.Fatal(err)
	}
}

// read takes the next packet, and its sender for the server's port.
func (p *puppet) read() []byte {
	p.t.Helper()
	b := make([]byte, 65536)
	_ = p.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	n, from, err := p.conn.ReadFromUDPAddrPort(b)
	if err != nil {
		p.t.Fatal(err)
	}
	p.server = from
	return b[:n]
}

// request asks for a file with options and returns what the OACK grants.
func (p *puppet) request(name string, namesAndValues ...string) string {
	p.t.Helper()
	r := Request{Name: name, Mode: "octet"}
	for i := 0; i < len(namesAndValues); i += 2 {
		r.Options = append(r.Options, Option{namesAndValues[i], namesAndValues[i+1]})
	}
	p.write(appendRequest(nil, r))
	for {
		b := p.read()
		if b[1] == opOACK {
			granted := ""
			for _, o := range parseOptions(b[2:]) {
				granted += o.Name + "=" + o.Value + " "
			}
			return granted
		}
	}
}

func (p *puppet) ack(n uint16) {
	p.t.Helper()
	p.write([]byte{0, opACK, byte(n >> 8), byte(n)})
}

func (p *puppet) data() (uint16, []byte) {
	p.t.Helper()
	for {
		if b := p.read(); b[1] == opDATA {
			return uint16(b[2])<<8 | uint16(b[3]), b[header:]
		} else if b[1] == opERROR {
			p.t.Fatalf("the server said %q", b)
		}
	}
}
