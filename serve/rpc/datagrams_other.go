//go:build !linux

package rpc

import "net"

// directly leaves the socket to golang.org/x/net: FreeBSD has no call for many
// datagrams but the one of its C library.
func directly(_ net.PacketConn, p packetConn) packetConn { return p }
