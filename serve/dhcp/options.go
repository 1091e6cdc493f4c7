package dhcp

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"time"

	"rhizome/registry/imagefmt"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Options by number (RFC 2132 unless said otherwise).
const (
	optMask        = 1
	optRouter      = 3
	optDNS         = 6
	optHostName    = 12
	optDomain      = 15
	optRootPath    = 17
	optMTU         = 26
	optBroadcast   = 28
	optVendor      = 43
	optRequested   = 50
	optLease       = 51
	optType        = 53
	optServerID    = 54
	optMessage     = 56
	optMaxSize     = 57
	optRenew       = 58
	optRebind      = 59
	optClass       = 60
	optClientID    = 61
	optTFTPServer  = 66
	optBootFile    = 67
	optRelayInfo   = 82  // RFC 3046
	optGUID        = 97  // RFC 4578
	optRoutes      = 121 // RFC 3442
	optMountOpts   = 130 // FreeBSD, sys/nfs/bootp_subr.c
	optIPXE        = 175 // iPXE's own, encapsulated
	optKenvLists   = 246 // to 249: "name=value;name=value", FreeBSD's loader
	optKenv        = 250 // to 254: "name=value", FreeBSD's loader
	optEnd         = 255
	ipxeNoProxy    = 176 // in option 175
	kenvOptions    = 5
	kenvLists      = 4
	maxOptionBytes = 255
)

// list gathers options in the order of their use.
type list []Option

func (l *list) add(code uint8, data []byte) {
	if len(data) > 0 {
		*l = append(*l, Option{Code: code, Data: data})
	}
}

func (l *list) keep(code uint8, data []byte) {
	*l = append(*l, Option{Code: code, Data: data, weight: needed})
}

// echo copies what a client or a relay must find again in its answer: option 61
// (RFC 6842), 97 (PXE specification, table 2-2) and, last, 82 (RFC 3046).
func (l *list) echo(r *Request) {
	for _, code := range []uint8{optClientID, optGUID, optRelayInfo} {
		if v := r.option(code); len(v) > 0 {
			*l = append(*l, Option{Code: code, Data: v, weight: echoed})
		}
	}
}

// header opens every DHCP reply: clients look for these first. BOOTP has none
// of them (RFC 1534, section 2).
func (l *list) header(r *Request, t dhcpv4.MessageType, id netip.Addr) {
	if r.Bootp {
		return
	}
	l.keep(optType, []byte{byte(t)})
	l.keep(optServerID, bytes4(id))
}

func (l *list) leaseTimes(r *Request, d time.Duration) {
	l.keep(optLease, seconds(d))
	if r.asks(optRenew) {
		l.add(optRenew, seconds(d/2))
	}
	if r.asks(optRebind) {
		l.add(optRebind, seconds(d/8*7))
	}
}

func seconds(d time.Duration) []byte {
	return binary.BigEndian.AppendUint32(nil, uint32(min(d/time.Second, 1<<32-1)))
}

// network adds what every client may want of the cluster's network.
func (l *list) network(r *Request, m Machine, c Config) {
	n := m.Cluster.Network
	l.keep(optMask, mask(n.Subnet))
	needs := []struct {
		code uint8
		data []byte
	}{
		{optRouter, addr(n.Gateway)},
		{optHostName, []byte(m.Node.Name)},
		{optRootPath, []byte(rootPath(m, c))},
		{optMTU, mtu(n.MTU)},
		{optDNS, addrs(n.DNS)},
		{optDomain, []byte(n.Domain)},
		{optBroadcast, addr(lastOf(n.Subnet))},
	}
	for _, o := range needs {
		if r.wants(o.code) {
			l.add(o.code, o.data)
		}
	}
	if r.asks(optRoutes) {
		l.add(optRoutes, routes(n))
	}
}

// boot adds the name of the boot program. Firmware reads it from the options or
// from the fixed fields, and asks for it or not: it gets both always.
func (l *list) boot(r *Request, file string, m Machine, c Config) {
	if file == "" {
		return
	}
	end := ""
	if r.Client.Kind == PXE {
		// Some ROMs take the options for C strings.
		end = "\x00"
	}
	l.add(optBootFile, []byte(file+end))
	if r.Client.Kind != HTTPBoot {
		l.add(optTFTPServer, []byte(c.server(m).String()+end))
	}
}

// special adds what one kind of client alone understands.
func (l *list) special(r *Request, m Machine, c Config) {
	switch r.Client.Kind {
	case HTTPBoot:
		// UEFI 2.10, section 24.7.3: without the class it is no HTTP offer.
		l.keep(optClass, []byte("HTTPClient"))
	case IPXE:
		// iPXE waits seconds for proxy offers unless told that there are none.
		l.add(optIPXE, []byte{ipxeNoProxy, 1, 1})
	case FreeBSDLoader:
		l.kenv(kenv(m, c))
	case FreeBSDKernel:
		l.add(optMountOpts, []byte(mountOptions(m, c)))
	}
}

// kenv gives FreeBSD's loader its environment: one variable to an option while
// that reaches, else the rest in lists. A value with ";" must have an option of
// its own, since that parts a list.
func (l *list) kenv(vars []string) {
	var single, listed []string
	for _, kv := range vars {
		if strings.Contains(kv, ";") {
			single = append(single, kv)
		} else {
			listed = append(listed, kv)
		}
	}
	for len(single) < kenvOptions && len(listed) > 0 {
		single, listed = append(single, listed[0]), listed[1:]
	}
	for i, kv := range single {
		if i < kenvOptions && len(kv) <= maxOptionBytes {
			l.add(optKenv+uint8(i), []byte(kv))
		}
	}
	for i, s := range pack(listed) {
		if i < kenvLists {
			l.add(optKenvLists+uint8(i), []byte(s))
		}
	}
}

// pack joins variables with ";" into strings that fit one option each.
func pack(vars []string) []string {
	var out []string
	for _, kv := range vars {
		last := len(out) - 1
		switch {
		case len(kv) > maxOptionBytes:
		case last >= 0 && len(out[last])+1+len(kv) <= maxOptionBytes:
			out[last] += ";" + kv
		default:
			out = append(out, kv)
		}
	}
	return out
}

// routes is the classless default route. A client that asks for option 121
// ignores option 3 (RFC 3442), so it must be told the gateway here; one outside
// the subnet is first made reachable on the link.
func routes(n imagefmt.Network) []byte {
	if !n.Gateway.Is4() {
		return nil
	}
	var b []byte
	if !n.Subnet.Contains(n.Gateway) {
		b = append(append(append(b, 32), bytes4(n.Gateway)...), 0, 0, 0, 0)
	}
	return append(append(b, 0), bytes4(n.Gateway)...)
}

func addr(a netip.Addr) []byte {
	if !a.Is4() {
		return nil
	}
	return bytes4(a)
}

func addrs(list []netip.Addr) []byte {
	var b []byte
	for _, a := range list {
		b = append(b, addr(a)...)
	}
	return b
}

func mtu(n int) []byte {
	if n < 68 || n > 65535 { // RFC 2132, section 5.1
		return nil
	}
	return binary.BigEndian.AppendUint16(nil, uint16(n))
}

func mask(p netip.Prefix) []byte {
	return binary.BigEndian.AppendUint32(nil, ^uint32(0)<<(32-max(0, p.Bits())))
}

// lastOf is a subnet's broadcast address; the zero Addr where it has none.
func lastOf(p netip.Prefix) netip.Addr {
	if !p.Addr().Is4() || p.Bits() > 30 {
		return netip.Addr{}
	}
	v := binary.BigEndian.Uint32(bytes4(p.Masked().Addr())) | (1<<(32-p.Bits()) - 1)
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, v)))
}
