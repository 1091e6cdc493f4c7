//go:build !linux

package tftp

import "net"

// burst sends packets one by one where the kernel has no call for many.
type burst struct{ conn *net.UDPConn }

func newBurst(conn *net.UDPConn, _ int) *burst { return &burst{conn} }

func (b *burst) send(packets []byte, packet int) error {
	return writeEach(b.conn, packets, packet)
}
