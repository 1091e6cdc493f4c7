package dhcp

import (
	"cmp"
	"net"
	"net/netip"
	"net/url"
	"path"
	"strconv"
	"time"

	"rhizome/registry/imagefmt"
)

// Mode is what the server gives.
type Mode string

// The modes of serve's --dhcp. In mode "off" no Server is started.
const (
	// ModeServer gives addresses and boot programs.
	ModeServer Mode = "server"
	// ModeProxy gives boot programs alone, beside a DHCP server that gives the
	// addresses (PXE specification 2.1, section 2.2.3, "ProxyDHCP").
	ModeProxy Mode = "proxy"
)

// Defaults of a Config.
const (
	DefaultLease  = time.Hour
	DefaultScript = "/boot.ipxe"
	DefaultFiles  = "/files"

	// minLease keeps a client that asks for seconds from renewing all day.
	minLease = 2 * time.Minute
)

// Config is what the operator chose. Its zero value, but for Interface, is a
// server on port 67 with HTTP on port 80.
type Config struct {
	// Interface is the one interface that is answered on.
	Interface string
	// ServerAddr is this server's address on that interface. Zero: the address
	// that the cluster's network names as the server.
	ServerAddr netip.Addr
	// HTTPPort is the port of serve's HTTP for nodes; 0 means 80.
	HTTPPort uint16
	// HTTPScript is the path of the iPXE script, the same for every node: the
	// HTTP server tells nodes by address. Empty: DefaultScript.
	HTTPScript string
	// HTTPFiles is put before a boot spec's path to make the URL of a file.
	// Empty: DefaultFiles.
	HTTPFiles string
	// Mode is ModeServer if empty.
	Mode Mode
	// Lease is given where the cluster's network names no length.
	Lease time.Duration
}

// Machine is a node that may be answered, with the image it boots next.
type Machine struct {
	Cluster imagefmt.Cluster
	Node    imagefmt.Node
	// Digest is that of the node's manifest.
	Digest string
}

// Nodes finds machines. Its method is called for every packet, by several
// goroutines.
type Nodes interface {
	// ByMAC returns the machine that has a network card with this address.
	ByMAC(mac net.HardwareAddr) (Machine, bool)
}

func (c Config) mode() Mode {
	if c.Mode == "" {
		return ModeServer
	}
	return c.Mode
}

func (c Config) server(m Machine) netip.Addr {
	if c.ServerAddr.IsValid() {
		return c.ServerAddr
	}
	return m.Cluster.Network.Server
}

// url is where HTTP serves a path. A file's extension stays last: OVMF goes by
// it.
func (c Config) url(m Machine, file string) string {
	u := url.URL{Scheme: "http", Host: c.server(m).String(), Path: path.Clean("/" + file)}
	if c.HTTPPort != 0 && c.HTTPPort != 80 {
		u.Host += ":" + strconv.Itoa(int(c.HTTPPort))
	}
	return u.String()
}

func (c Config) script(m Machine) string { return c.url(m, cmp.Or(c.HTTPScript, DefaultScript)) }

func (c Config) file(m Machine, program string) string {
	return c.url(m, cmp.Or(c.HTTPFiles, DefaultFiles)+"/"+program)
}

func (c Config) lease(m Machine, asked time.Duration) time.Duration {
	d := c.Lease
	if d <= 0 {
		d = DefaultLease
	}
	if s := m.Cluster.Network.LeaseSeconds; s > 0 {
		d = time.Duration(s) * time.Second
	}
	if asked >= minLease && asked < d {
		return asked
	}
	return d
}
