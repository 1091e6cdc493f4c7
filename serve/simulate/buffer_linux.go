package simulate

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

// relayBuffer holds an answer for every node at once, in bytes: a full rack
// answers within milliseconds.
const relayBuffer = 16 << 20

// enlarge gives the relay's socket room beyond the system's limit for ordinary
// users, which is some 200 answers.
func enlarge(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, relayBuffer)
	})
	return errors.Join(err, failed)
}
