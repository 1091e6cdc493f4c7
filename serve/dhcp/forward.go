//go:build linux || freebsd

package dhcp

import (
	"errors"
	"os"
	"syscall"
)

// forward turns a kernel's messages into signals; several at once become one.
// ENOBUFS says that messages were lost, which is a signal as well.
func forward(f *os.File, signal chan<- struct{}) {
	buf := make([]byte, 8192)
	for {
		if _, err := f.Read(buf); err != nil && !errors.Is(err, syscall.ENOBUFS) {
			return
		}
		select {
		case signal <- struct{}{}:
		default:
		}
	}
}
