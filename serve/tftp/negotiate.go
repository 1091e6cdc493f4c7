package tftp

import (
	"strconv"
	"time"
)

// Sizes in bytes (RFC 1350, RFC 2348 and this server's own bounds).
const (
	plainBlock   = 512
	minBlock     = 8
	maxBlock     = 65464
	maxNumber    = 65535
	maxWindow    = 64
	windowMemory = 1 << 20
)

// bounds is what the server can grant.
type bounds struct {
	// block is the largest block that fits the link in one packet, in bytes.
	block int
	// window is the most blocks in flight; windowBytes bounds their sum, which
	// is what one transfer holds in memory.
	window, windowBytes int
}

// terms are what a transfer is run by.
type terms struct {
	block, window int
	// timeout is the client's wish (RFC 2349); 0 leaves it to the server.
	timeout time.Duration
	// granted are the options of the OACK; none means that there is no OACK.
	granted []Option
}

// negotiate grants what was asked for and nothing else: FreeBSD's loader gives
// up at an option that it did not name. A value outside its RFC's range is
// passed over in silence, as RFC 2347 has it, but for a blksize beyond RFC 2348's
// 65464, which some clients send and mean "as much as you can".
func negotiate(asked []Option, size int64, b bounds) terms {
	t := terms{block: plainBlock, window: 1}
	if n, ok := number(asked, "blksize", minBlock, maxNumber); ok {
		t.block = min(n, b.block, maxBlock)
	}
	if n, ok := number(asked, "windowsize", 1, maxNumber); ok {
		t.window = max(1, min(n, b.window, b.windowBytes/t.block))
	}
	if n, ok := number(asked, "timeout", 1, 255); ok {
		t.timeout = time.Duration(n) * time.Second
	}
	for _, o := range asked {
		if value, ok := grant(asked, o.Name, size, t); ok {
			t.granted = append(t.granted, Option{o.Name, value})
		}
	}
	return t
}

// grant is the value of one option in the OACK.
func grant(asked []Option, name string, size int64, t terms) (string, bool) {
	switch name {
	case "blksize":
		_, ok := number(asked, name, minBlock, maxNumber)
		return strconv.Itoa(t.block), ok
	case "windowsize":
		_, ok := number(asked, name, 1, maxNumber)
		return strconv.Itoa(t.window), ok
	case "timeout":
		// The server must answer the very value or nothing (RFC 2349).
		return strconv.Itoa(int(t.timeout / time.Second)), t.timeout > 0
	case "tsize":
		return strconv.FormatInt(size, 10), true
	}
	return "", false
}

func number(options []Option, name string, low, high int) (int, bool) {
	value, ok := find(options, name)
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(value)
	return n, err == nil && n >= low && n <= high
}
