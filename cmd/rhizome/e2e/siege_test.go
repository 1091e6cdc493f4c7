package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rhizome/cmd/rhizome/internal/rig"
)

// siegeVar makes this test binary send packets to the server that it names
// instead of running tests; it is started inside a namespace.
const siegeVar = "RHIZOME_E2E_SIEGE"

// The memory that serve may take under siege, in bytes: its frame cache, and
// what all its bounds on clients, connections and packets sum up to.
const (
	siegeCache = 64 << 20
	siegeLimit = siegeCache + 256<<20
)

// siegeLength is how long the siege lasts at least, however quick the boot was.
const siegeLength = time.Minute

// Issue 6: a minute of random and mutated packets at every port, from a stranger and from
// the address of a node, while a machine boots: it boots, serve's memory stays
// under its cap, and its log does not fill the disk.
func TestANodeBootsUnderSiege(t *testing.T) {
	w := alone(t)
	n := lan(t)
	outside := network(t, "10.77.0.66/24")
	inside(t, outside, "ip addr add 10.77.0.14/24 dev "+outside.Bridge) // n4's
	join(t, n, outside)
	s := w.serve(t, n, "--frame-cache", "64M")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	siege, err := outside.Start(context.WithoutCancel(t.Context()), nil, "env", siegeVar+"=10.77.0.1", self)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(siege.Kill)
	awaitIn(t, siege.Console, 0, `sent \d+`)
	began := time.Now()
	w.boot(t, n, 1, nil)
	upTo(t, s, "n1", `dhcp\.ack node=n1 `, `http\.done node=n1 .*/vmlinuz`)
	time.Sleep(siegeLength - time.Since(began))
	sent := sieged(t, siege)
	siege.Kill()
	peak := peakMemory(t, s.PID())
	t.Logf("%s of siege, %s; serve's peak memory %d MiB, its log %d kB", time.Since(began).Round(time.Second), sent, peak>>20, len(s.Console.Text())>>10)
	if peak > siegeLimit {
		t.Errorf("serve took %d MiB, more than %d", peak>>20, siegeLimit>>20)
	}
	if log := len(s.Console.Text()); log > 8<<20 {
		t.Errorf("the siege made serve log %d kB", log>>10)
	}
}

// sieged is what the siege said last.
func sieged(t *testing.T, s *rig.Server) string {
	t.Helper()
	text := s.Console.Text()
	if i := strings.LastIndex(text, "sent "); i >= 0 && strings.Contains(text[i:], "\n") {
		return strings.TrimSpace(text[i:])
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) < 2 {
		t.Fatalf("the siege did not go on: %q", text)
	}
	return lines[len(lines)-2]
}

func peakMemory(t *testing.T, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatalf("serve did not survive: %v", err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	var kB int64
	if _, err := fmt.Sscan(rest, &kB); err != nil {
		t.Fatal(err)
	}
	return kB << 10
}

// besiege sends until it is killed, and says now and then how much it sent.
func besiege(server string) error {
	random := rand.New(rand.NewPCG(1, 2))
	var senders []func([]byte) error
	for _, from := range []string{"10.77.0.66", "10.77.0.14"} {
		for _, port := range []string{"67", "69", "111", "2049"} {
			senders = append(senders, datagrams(from, net.JoinHostPort(server, port)))
		}
		for _, port := range []string{"80", "111", "2049"} {
			senders = append(senders, streams(from, net.JoinHostPort(server, port)))
		}
	}
	seeds, err := siegeSeeds()
	if err != nil {
		return err
	}
	for sent := 0; ; sent++ {
		if sent%1000 == 0 {
			fmt.Printf("sent %d\n", sent)
		}
		// What cannot be sent was refused, which is as well.
		_ = senders[random.IntN(len(senders))](mutated(random, seeds[random.IntN(len(seeds))]))
		if sent%50 == 49 {
			time.Sleep(10 * time.Millisecond) // the emulated machine wants some CPU too
		}
	}
}

// datagrams sends each packet from an address, by a socket that is made anew for
// every port that it gets.
func datagrams(from, to string) func([]byte) error {
	var conn net.Conn
	used := 0
	return func(p []byte) (err error) {
		if used++; conn == nil || used%100 == 0 {
			if conn != nil {
				conn.Close()
			}
			d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}
			if conn, err = d.Dial("udp", to); err != nil {
				conn = nil
				return err
			}
		}
		_, err = conn.Write(p)
		return err
	}
}

// streams opens a connection for each packet, and leaves some of them open.
func streams(from, to string) func([]byte) error {
	var open []net.Conn
	return func(p []byte) error {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: time.Second}
		conn, err := d.Dial("tcp", to)
		if err != nil {
			return err
		}
		if open = append(open, conn); len(open) > 50 {
			open[0].Close()
			open = open[1:]
		}
		_, err = conn.Write(p)
		return err
	}
}

// siegeSeeds are packets that are right: those of real DHCP clients, requests for
// files, RPC calls with and without a record mark, and a request of HTTP.
func siegeSeeds() ([][]byte, error) {
	names, err := filepath.Glob("../../../serve/dhcp/testdata/packets/*.hex")
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, errors.New("no captured packets in serve/dhcp/testdata")
	}
	var seeds [][]byte
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		var digits string
		for line := range strings.Lines(string(text)) {
			if !strings.HasPrefix(line, "#") {
				digits += strings.TrimSpace(line)
			}
		}
		p, err := hex.DecodeString(digits)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		// In the name of n4: what is told of one card has its bound, and the story
		// of n1 must not be lost behind it.
		seeds = append(seeds, bytes.ReplaceAll(p, []byte{0x52, 0x54, 0, 0x77, 0, 1}, []byte{0x52, 0x54, 0, 0x77, 0, 4}))
	}
	for _, file := range []string{"boot/vmlinuz", "../../etc/shadow", "pxelinux.cfg/default"} {
		seeds = append(seeds, []byte("\x00\x01"+file+"\x00octet\x00blksize\x001468\x00windowsize\x0016\x00tsize\x000\x00"),
			[]byte("GET /files/"+file+" HTTP/1.1\r\nHost: 10.77.0.1\r\nRange: bytes=0-99\r\n\r\n"))
	}
	for _, call := range []struct{ program, version, procedure uint32 }{
		{100000, 2, 3}, {100000, 2, 4}, {100005, 3, 1}, {100005, 3, 5}, {100003, 3, 1}, {100003, 3, 3}, {100003, 3, 6}, {100003, 3, 17}, {100227, 3, 1},
	} {
		p := rpcCall(call.program, call.version, call.procedure)
		seeds = append(seeds, p, binary.BigEndian.AppendUint32(nil, 1<<31|uint32(len(p))))
		seeds[len(seeds)-1] = append(seeds[len(seeds)-1], p...)
	}
	return seeds, nil
}

// rpcCall is a call (RFC 5531, section 9) as root, with a path and a handle as
// its arguments.
func rpcCall(program, version, procedure uint32) []byte {
	var p []byte
	for _, word := range []uint32{7, 0, 2, program, version, procedure, 1, 24, 0, 0, 0, 0, 0, 0, 0, 0} {
		p = binary.BigEndian.AppendUint32(p, word)
	}
	p = append(binary.BigEndian.AppendUint32(p, 9), "/nodes/n4\x00\x00\x00"...)
	return append(binary.BigEndian.AppendUint32(p, 32), make([]byte, 40)...)
}

// mutated changes, cuts, doubles or replaces a packet.
func mutated(random *rand.Rand, seed []byte) []byte {
	p := append([]byte(nil), seed...)
	for range random.IntN(6) {
		p[random.IntN(len(p))] = byte(random.Uint32())
	}
	switch random.IntN(8) {
	case 0:
		p = p[:random.IntN(len(p)+1)]
	case 1:
		p = append(p, p...)
	case 2:
		for i := range p {
			p[i] = byte(random.Uint32())
		}
	case 3:
		// A length, maybe: all ones, or one too many.
		at := random.IntN(len(p))
		copy(p[at:], []byte{0x7f, 0xff, 0xff, 0xff})
	}
	return p[:min(len(p), 1400)]
}
