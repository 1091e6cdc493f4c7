package rpc_test

import "golang.org/x/sys/unix"

// tcpEstablished is TCP_ESTABLISHED of tcp(7).
const tcpEstablished = 1

func tcpState(fd int) (uint8, error) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, err
	}
	return info.State, nil
}
