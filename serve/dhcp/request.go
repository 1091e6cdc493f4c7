package dhcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

// Sizes of a message in bytes (RFC 2131, section 2; RFC 951, section 3).
const (
	headerLen  = 236 // op to file
	cookieLen  = 4
	fileLen    = 128
	snameLen   = 64
	minMessage = 300
	// maxRequest is more than any client sends in one Ethernet frame.
	maxRequest = 2048
)

// Request is a client's message with what decisions ask of it.
type Request struct {
	*dhcpv4.DHCPv4
	// Client is who asks.
	Client Client
	// Bootp is set for a message without option 53.
	Bootp bool

	asked    dhcpv4.OptionCodeList
	hasAsked bool
}

// Parse decodes a message that came in from a client or relay. It takes what
// the codec refuses and RFC 951 allows: a vendor area without cookie, and
// options without an END. Errors are sentences for an event.
func Parse(p []byte) (*Request, error) {
	if len(p) < headerLen {
		return nil, fmt.Errorf("reading a DHCP message: %d bytes are fewer than its header's %d", len(p), headerLen)
	}
	if len(p) > maxRequest {
		return nil, fmt.Errorf("reading a DHCP message: %d bytes are more than %d", len(p), maxRequest)
	}
	m, err := decode(p)
	if err != nil {
		return nil, fmt.Errorf("reading a DHCP message: %w", err)
	}
	if err := check(m); err != nil {
		return nil, fmt.Errorf("reading a DHCP message: %w", err)
	}
	return newRequest(m), nil
}

// sender reads the MAC of a message without reading the rest.
func sender(p []byte) (net.HardwareAddr, bool) {
	const hlen, chaddr = 2, 28
	if len(p) < headerLen || p[hlen] != 6 {
		return nil, false
	}
	return net.HardwareAddr(p[chaddr : chaddr+6]), true
}

func newRequest(m *dhcpv4.DHCPv4) *Request {
	r := &Request{DHCPv4: m, Bootp: len(m.Options.Get(dhcpv4.OptionDHCPMessageType)) == 0}
	r.asked, r.hasAsked = m.ParameterRequestList(), m.Options.Has(dhcpv4.OptionParameterRequestList)
	r.Client = classify(m)
	return r
}

// decode mends what old clients send before and after the codec sees it.
func decode(p []byte) (*dhcpv4.DHCPv4, error) {
	m, err := dhcpv4.FromBytes(withCookie(p))
	if errors.Is(err, io.ErrUnexpectedEOF) {
		m, err = dhcpv4.FromBytes(append(slices.Clone(withCookie(p)), optEnd))
	}
	if err != nil {
		return nil, err
	}
	return m, unfold(m, p)
}

// withCookie gives a BOOTP message of RFC 951, whose vendor area is free, the
// empty options of RFC 1497.
func withCookie(p []byte) []byte {
	if len(p) >= headerLen+cookieLen && binary.BigEndian.Uint32(p[headerLen:]) == 0x63825363 {
		return p
	}
	return append(slices.Clone(p[:headerLen]), 0x63, 0x82, 0x53, 0x63, optEnd)
}

// unfold reads options out of the file and sname fields where option 52 says
// that they lie there (RFC 2131, section 4.1).
func unfold(m *dhcpv4.DHCPv4, p []byte) error {
	over := m.Options.Get(dhcpv4.OptionOptionOverload)
	if len(over) != 1 {
		return nil
	}
	const sname, file = 44, 108
	if over[0]&1 != 0 {
		m.BootFileName = ""
		if err := m.Options.FromBytes(p[file : file+fileLen]); err != nil {
			return err
		}
	}
	if over[0]&2 != 0 {
		m.ServerHostName = ""
		return m.Options.FromBytes(p[sname : sname+snameLen])
	}
	return nil
}

func check(m *dhcpv4.DHCPv4) error {
	switch {
	case m.OpCode != dhcpv4.OpcodeBootRequest:
		return fmt.Errorf("op is %d: it is no request", m.OpCode)
	case m.HWType != iana.HWTypeEthernet || len(m.ClientHWAddr) != 6:
		return fmt.Errorf("hardware type %d with %d bytes of address is not Ethernet", m.HWType, len(m.ClientHWAddr))
	case m.HopCount > 16:
		// RFC 1542, section 4.1.1: a message that came so far goes in circles.
		return fmt.Errorf("it passed %d relays", m.HopCount)
	}
	return nil
}

// wants says whether the client has a use for an option: it asked for it, or
// named no list at all (RFC 2131, section 3.5).
func (r *Request) wants(code uint8) bool { return !r.hasAsked || r.asks(code) }

// asks says whether the client named the option in its list.
func (r *Request) asks(code uint8) bool {
	return slices.ContainsFunc(r.asked, func(c dhcpv4.OptionCode) bool { return c.Code() == code })
}

func (r *Request) option(code uint8) []byte { return r.Options[code] }

// addrOption reads an option that holds one address; zero if it does not.
func (r *Request) addrOption(code uint8) netip.Addr {
	a, _ := netip.AddrFromSlice(r.Options[code])
	return a
}

func (r *Request) leaseAsked() time.Duration { return r.IPAddressLeaseTime(0) }

// limit is the largest message, in bytes without IP and UDP headers, that the
// client takes. Option 57 counts the headers (RFC 2132, section 9.10), is at
// least 576, and nobody gets more than fits an Ethernet frame.
func (r *Request) limit() int {
	const headers, least, most = 20 + 8, 576, 1500
	size := least
	if v := r.option(optMaxSize); len(v) == 2 {
		size = max(least, min(most, int(binary.BigEndian.Uint16(v))))
	}
	return size - headers
}

// overridden is the server identifier that a relay wants clients to see
// (RFC 5107): it comes between them for renewals too.
func (r *Request) overridden() netip.Addr {
	info := r.RelayAgentInfo()
	if info == nil || r.giaddr().IsUnspecified() {
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(info.Options[11])
	return a
}

func (r *Request) giaddr() netip.Addr { return addr4(r.GatewayIPAddr) }
func (r *Request) ciaddr() netip.Addr { return addr4(r.ClientIPAddr) }

func addr4(ip net.IP) netip.Addr {
	a, ok := netip.AddrFromSlice(ip.To4())
	if !ok {
		return netip.IPv4Unspecified()
	}
	return a
}
