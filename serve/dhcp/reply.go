package dhcp

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Option is one option of a reply.
type Option struct {
	Code uint8
	Data []byte

	weight weight
}

// weight is what becomes of an option in a reply that grows too long.
type weight uint8

const (
	useful weight = iota // left out first
	echoed               // left out next
	needed               // never left out
)

// Reply is a message to a client, and where it goes.
type Reply struct {
	// Type is dhcpv4.MessageTypeNone for an answer to BOOTP.
	Type dhcpv4.MessageType
	// Your is the client's address, Next the server it boots from (siaddr).
	Your, Next, Client, Relay netip.Addr
	XID                       dhcpv4.TransactionID
	Seconds, Flags            uint16
	MAC                       net.HardwareAddr
	// File is the boot file field; at most 127 bytes of it are sent.
	File    string
	Options []Option
	// Limit is the largest message in bytes that the client takes.
	Limit int
	// Dropped lists the options that had no room.
	Dropped []uint8
	To      Destination
}

// Destination is where a reply is sent.
type Destination struct {
	// Addr is the IP address and UDP port.
	Addr netip.AddrPort
	// MAC is the Ethernet address; nil where the system's own routing and ARP
	// find it.
	MAC net.HardwareAddr
}

const broadcastFlag = 0x8000

// fit drops options from the end until the message is within the limit. Their
// order is that of their use, so the least needed go first; what is echoed goes
// only where a client or relay sent more of it than it takes back.
func (r *Reply) fit() {
	for _, w := range []weight{useful, echoed} {
		r.drop(w)
	}
}

func (r *Reply) drop(w weight) {
	size := headerLen + cookieLen + 1
	for _, o := range r.Options {
		size += o.size()
	}
	for i := len(r.Options) - 1; i >= 0 && size > r.Limit; i-- {
		if o := r.Options[i]; o.weight == w {
			size -= o.size()
			r.Dropped = append(r.Dropped, o.Code)
			r.Options = append(r.Options[:i], r.Options[i+1:]...)
		}
	}
}

// size counts the option's bytes on the wire. More than 255 bytes of data are
// split (RFC 3396).
func (o Option) size() int { return len(o.Data) + 2*max(1, (len(o.Data)+254)/255) }

// Append encodes the reply behind b. Options follow in their order without
// pads between them, and none are laid into sname or file: FreeBSD's loader
// misreads both. Pads stand behind END, up to BOOTP's 300 bytes.
func (r *Reply) Append(b []byte) []byte {
	start := len(b)
	b = append(b, byte(dhcpv4.OpcodeBootReply), 1, byte(len(r.MAC)), 0)
	b = append(b, r.XID[:]...)
	b = binary.BigEndian.AppendUint16(b, r.Seconds)
	b = binary.BigEndian.AppendUint16(b, r.Flags)
	for _, a := range []netip.Addr{r.Client, r.Your, r.Next, r.Relay} {
		b = append(b, bytes4(a)...)
	}
	b = appendField(b, string(r.MAC), 16)
	b = appendField(b, "", snameLen)
	b = appendField(b, r.fileField(), fileLen)
	b = append(b, 0x63, 0x82, 0x53, 0x63)
	for _, o := range r.Options {
		b = o.append(b)
	}
	b = append(b, optEnd)
	for len(b)-start < minMessage {
		b = append(b, 0)
	}
	return b
}

// fileField leaves out a name that does not fit with its NUL: half a name would
// fetch another file. Option 67 has it whole.
func (r *Reply) fileField() string {
	if len(r.File) >= fileLen {
		return ""
	}
	return r.File
}

func (o Option) append(b []byte) []byte {
	data := o.Data
	for {
		n := min(len(data), 255)
		b = append(b, o.Code, byte(n))
		b = append(b, data[:n]...)
		if data = data[n:]; len(data) == 0 {
			return b
		}
	}
}

func appendField(b []byte, s string, size int) []byte {
	b = append(b, s...)
	return append(b, make([]byte, size-len(s))...)
}

func bytes4(a netip.Addr) []byte {
	if !a.Is4() {
		return make([]byte, 4)
	}
	v := a.As4()
	return v[:]
}
