package tftp

import (
	"encoding/binary"
	"reflect"
	"strings"
	"testing"
	"time"
)

// Requests as real firmware sends them: the first two stand in captured boots of
// FreeBSD 15.1 nodes, the others were built from the programs' own sources.
var requests = map[string]struct {
	packet string
	want   Request
}{
	"iPXE fetching pxeboot": {
		"\x00\x01pxeboot\x00octet\x00blksize\x001432\x00tsize\x000\x00",
		Request{Name: "pxeboot", Mode: "octet", Options: []Option{{"blksize", "1432"}, {"tsize", "0"}}},
	},
	"UEFI (OVMF with iPXE's driver) fetching loader.efi": {
		"\x00\x01loader.efi\x00octet\x00blksize\x001432\x00tsize\x000\x00",
		Request{Name: "loader.efi", Mode: "octet", Options: []Option{{"blksize", "1432"}, {"tsize", "0"}}},
	},
	"OVMF asking for the size": {
		"\x00\x01/ipxe.efi\x00octet\x00tsize\x000\x00blksize\x001468\x00windowsize\x004\x00",
		Request{Name: "/ipxe.efi", Mode: "octet", Options: []Option{{"tsize", "0"}, {"blksize", "1468"}, {"windowsize", "4"}}},
	},
	"pxelinux, whose folder stands before an absolute path": {
		"\x00\x01/usr/lib/PXELINUX//boot/vmlinuz\x00octet\x00tsize\x000\x00blksize\x001408\x00",
		Request{Name: "/usr/lib/PXELINUX//boot/vmlinuz", Mode: "octet", Options: []Option{{"tsize", "0"}, {"blksize", "1408"}}},
	},
	"FreeBSD's loader": {
		"\x00\x01/boot/lua/loader.lua\x00octet\x00blksize\x001428\x00tsize\x000\x00",
		Request{Name: "/boot/lua/loader.lua", Mode: "octet", Options: []Option{{"blksize", "1428"}, {"tsize", "0"}}},
	},
	"option names in capitals": {
		"\x00\x01x\x00OCTET\x00BlkSize\x001468\x00WINDOWSIZE\x0016\x00",
		Request{Name: "x", Mode: "octet", Options: []Option{{"blksize", "1468"}, {"windowsize", "16"}}},
	},
	"a repeated option counts once": {
		"\x00\x01x\x00octet\x00blksize\x00600\x00blksize\x00700\x00",
		Request{Name: "x", Mode: "octet", Options: []Option{{"blksize", "600"}}},
	},
	"a ROM that pads its request": {
		"\x00\x01x\x00octet\x00blksize\x00600\x00\x00\x00\x00\x00",
		Request{Name: "x", Mode: "octet", Options: []Option{{"blksize", "600"}}},
	},
	"half an option": {
		"\x00\x01x\x00octet\x00blksize\x00600",
		Request{Name: "x", Mode: "octet"},
	},
	"a write": {"\x00\x02x\x00netascii\x00", Request{Write: true, Name: "x", Mode: "netascii"}},
}

func TestRequestsOfRealFirmware(t *testing.T) {
	for name, c := range requests {
		got, err := ParseRequest([]byte(c.packet))
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %+v, %v; want %+v", name, got, err, c.want)
		}
	}
}

func TestWhatIsNoRequest(t *testing.T) {
	for _, p := range []string{"", "\x00", "\x00\x01", "\x00\x01\x00", "\x00\x01x", "\x00\x01x\x00", "\x00\x01x\x00octet", "\x00\x01\x00octet\x00", "\x00\x03x\x00octet\x00", "\x01\x01x\x00octet\x00"} {
		if r, err := ParseRequest([]byte(p)); err == nil {
			t.Errorf("%q was taken as %+v", p, r)
		}
	}
}

func TestNegotiation(t *testing.T) {
	link := boundsFor(1500, 0, mustAddr("10.77.0.1"))
	for name, c := range map[string]struct {
		asked   string
		granted string
		block   int
		window  int
		timeout time.Duration
	}{
		"nothing asked, nothing said":             {"", "", 512, 1, 0},
		"FreeBSD's loader":                        {"blksize=1428 tsize=0", "blksize=1428 tsize=10000", 1428, 1, 0},
		"no more than the link holds":             {"blksize=65464", "blksize=1468", 1468, 1, 0},
		"beyond RFC 2348":                         {"blksize=65535", "blksize=1468", 1468, 1, 0},
		"tiny blocks are allowed":                 {"blksize=8", "blksize=8", 8, 1, 0},
		"too tiny is passed over":                 {"blksize=7 tsize=0", "tsize=10000", 512, 1, 0},
		"not a number":                            {"blksize=big windowsize=-1 timeout=x", "", 512, 1, 0},
		"unknown options are passed over":         {"multicast= rollover=0 tsize=0", "tsize=10000", 512, 1, 0},
		"a window":                                {"blksize=1468 windowsize=16", "blksize=1468 windowsize=16", 1468, 16, 0},
		"a window in the other order":             {"windowsize=16 blksize=1468", "windowsize=16 blksize=1468", 1468, 16, 0},
		"a window beyond ours":                    {"windowsize=65535", "windowsize=64", 512, 64, 0},
		"a window of none":                        {"windowsize=0", "", 512, 1, 0},
		"timeout":                                 {"timeout=3", "timeout=3", 512, 1, 3 * time.Second},
		"timeout out of range":                    {"timeout=256 timeout=0", "", 512, 1, 0},
		"tsize keeps its place, whatever is sent": {"tsize=77 blksize=600", "tsize=10000 blksize=600", 600, 1, 0},
	} {
		got := negotiate(options(c.asked), 10000, link)
		if got.block != c.block || got.window != c.window || got.timeout != c.timeout || !reflect.DeepEqual(got.granted, options(c.granted)) {
			t.Errorf("%s: got %+v, want %+v", name, got, c)
		}
	}
}

func options(s string) []Option {
	var list []Option
	for _, f := range strings.Fields(s) {
		name, value, _ := strings.Cut(f, "=")
		list = append(list, Option{name, value})
	}
	return list
}

func TestAWindowHoldsNoMoreMemoryThanItsBound(t *testing.T) {
	got := negotiate(options("blksize=65464 windowsize=64"), 1<<30, boundsFor(65536, 0, mustAddr("127.0.0.1")))
	if got.block*got.window > windowMemory || got.window < 2 {
		t.Errorf("%d blocks of %d bytes", got.window, got.block)
	}
}

func TestTheConfiguredMTUBoundsBlocks(t *testing.T) {
	if b := boundsFor(9000, 1400, mustAddr("10.77.0.1")); b.block != 1400-32 {
		t.Errorf("got %d", b.block)
	}
	if b := boundsFor(9000, 0, mustAddr("fd00::1")); b.block != 9000-52 {
		t.Errorf("got %d", b.block)
	}
}

// The law: what parses, written back and parsed again, is the same.
func FuzzRequestsParseToThemselves(f *testing.F) {
	for _, c := range requests {
		f.Add([]byte(c.packet))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		r, err := ParseRequest(p)
		if err != nil {
			return
		}
		again, err := ParseRequest(appendRequest(nil, r))
		if err != nil || !reflect.DeepEqual(r, again) {
			t.Fatalf("%q: %+v became %+v, %v", p, r, again, err)
		}
		n := negotiate(r.Options, 1<<20, boundsFor(1500, 0, mustAddr("10.0.0.1")))
		if n.block < minBlock || n.block > 1468 || n.window < 1 || n.window > maxWindow || len(n.granted) > len(r.Options) {
			t.Fatalf("%q was granted %+v", p, n)
		}
	})
}

func appendRequest(b []byte, r Request) []byte {
	op := uint16(opRRQ)
	if r.Write {
		op = opWRQ
	}
	b = binary.BigEndian.AppendUint16(b, op)
	b = append(append(b, r.Name...), 0)
	b = append(append(b, r.Mode...), 0)
	for _, o := range r.Options {
		b = append(append(b, o.Name...), 0)
		b = append(append(b, o.Value...), 0)
	}
	return b
}

// The law: an error that is written is the error that is read, up to its length.
func FuzzReplies(f *testing.F) {
	f.Add([]byte("\x00\x04\x00\x01"))
	f.Add([]byte("\x00\x05\x00\x08User aborted the transfer\x00"))
	f.Add([]byte("\x00\x05\x00\x00No error: read aborted\x00"))
	f.Fuzz(func(t *testing.T, p []byte) {
		r, err := parseReply(p)
		if err != nil || r.op != opERROR {
			return
		}
		again, err := parseReply(appendError(nil, r.code, r.message))
		if err != nil || again != r {
			t.Fatalf("%+v became %+v, %v", r, again, err)
		}
	})
}
