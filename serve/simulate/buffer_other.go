//go:build !linux

package simulate

import "net"

// enlarge asks for as much as the system allows.
func enlarge(c *net.UDPConn) error { return c.SetReadBuffer(256 << 10) }
