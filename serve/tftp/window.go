package tftp

// window is the state of a sender (RFC 1350 with RFC 7440): which blocks are
// acknowledged, which are on their way, and what an acknowledgement means. A
// window of one block is plain RFC 1350. It knows no packet and no clock.
//
// Blocks are counted from 1 without end; on the wire their lowest 16 bits
// stand, so a number after 65535 is 0, as every client that takes files over
// 32 MiB expects.
type window struct {
	// size is how many blocks may be on their way, last the number of the last
	// block, which is always shorter than the others.
	size, last int64
	// base is the highest block acknowledged, sent the highest sent.
	base, sent int64
	// quick allows one repetition of the window without waiting for the clock,
	// when base is acknowledged a second time.
	quick bool
	// repeated is set from a repetition until base moves on.
	repeated bool
}

func newWindow(bytes int64, t terms) window {
	return window{size: int64(t.window), last: bytes/int64(t.block) + 1, quick: true}
}

// verdict is what to do after an acknowledgement.
type verdict int

const (
	ignore verdict = iota
	send           // the window that next returns
	repeat         // the same, once more
	done
)

// acknowledge takes a block number off the wire.
//
// An acknowledgement that moves base is answered by the next window. One that
// repeats base can mean that the window's first block was lost (RFC 7440
// section 4), or that the network doubled a packet. Answering each would double
// the traffic for good, the Sorcerer's Apprentice (RFC 1123 section 4.2.3.1):
// so a window is repeated at most once for a number, never with a window of 1,
// never after an acknowledgement inside a window, whose late blocks make the client
// repeat itself, and never twice running, since a repeated window makes
// repeated acknowledgements. What is left the clock mends.
func (w *window) acknowledge(n uint16) verdict {
	ahead := int64(n - uint16(w.base))
	switch {
	case ahead > w.sent-w.base:
		return ignore
	case ahead == 0:
		return w.again()
	}
	w.base += ahead
	w.quick = w.base == w.sent && !w.repeated
	w.repeated = false
	if w.base == w.last {
		return done
	}
	return send
}

func (w *window) again() verdict {
	if !w.quick || w.size == 1 || w.sent == w.base {
		return ignore
	}
	w.lost()
	return repeat
}

// lost notes that the window goes out once more.
func (w *window) lost() { w.quick, w.repeated = false, true }

// next gives the blocks that belong on their way now, both ends included, and
// notes them as sent.
func (w *window) next() (first, last int64) {
	first, last = w.base+1, min(w.base+w.size, w.last)
	w.sent = last
	return first, last
}
