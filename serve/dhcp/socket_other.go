//go:build !linux && !freebsd

package dhcp

import (
	"context"
	"errors"
	"net"
)

var errSystem = errors.New("rhizome serves DHCP on Linux and FreeBSD alone")

func listenUDP(context.Context, *net.Interface, uint16) (datagrams, error) { return nil, errSystem }
func openFrames(*net.Interface, tap) (frames, error)                       { return nil, errSystem }
func watchNetwork() (<-chan struct{}, func(), error)                       { return nil, nil, errSystem }
