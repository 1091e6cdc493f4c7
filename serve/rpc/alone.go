package rpc

// aloneAfter is how many calls in a row must have come one at a time before the
// next is taken for one too.
const aloneAfter = 8

// alone tells a connection on which calls come one at a time from one with
// several in flight. A call that waits for the disk is served where it was read
// on the former, and by a worker on the latter: handing it over wakes two
// threads, which costs more than all else that is done for a small write. Where
// it was wrong, the calls behind wait for one disk access, and are handed over
// again from then on.
type alone struct {
	// calls came since the connection was last read from, and inRow is how many
	// times in a row that was one.
	calls, inRow int
}

// call notes that a call was taken from what was read.
func (a *alone) call() { a.calls++ }

// read notes that all was taken, and more is read.
func (a *alone) read() {
	switch {
	case a.calls == 1:
		a.inRow++
	case a.calls > 1:
		a.inRow = 0
	}
	a.calls = 0
}

// likely tells whether the call taken last is probably the only one in flight.
func (a *alone) likely() bool { return a.inRow >= aloneAfter && a.calls == 1 }
