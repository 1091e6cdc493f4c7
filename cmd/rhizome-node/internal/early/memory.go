package early

import (
	"fmt"
	"time"
)

// Bounds of what the bundle may take.
const (
	// leastBundle in bytes is not worth the trouble below.
	leastBundle = 4 << 20
	// leastRest in bytes is left to programs, and a quarter of all memory.
	leastRest = 64 << 20
)

// room says how many bytes of a bundle fit: all of need, fewer, or 0 for none
// at all. The rest is for programs. An unknown need, 0, gets what there is.
func room(total, free, need int64) int64 {
	most := free - max(leastRest, total/4)
	switch {
	case most < leastBundle && (need == 0 || need > most):
		return 0
	case need == 0 || need > most:
		return most
	}
	return need
}

// Bounds of a foreground fill.
const (
	// probe is how many bytes tell the rate of the link, and glance how many are
	// enough where it is so slow that there is no doubt: what came up to then, the
	// boot waited for.
	probe, glance = 512 << 10, 128 << 10
	// patience is how long the network may take for a fill that the boot waits
	// for. What it saves later is worth about as much.
	patience = 4 * time.Second
)

// slow says whether a fill is to go on in the background: the whole of it would
// have the boot wait for the network longer than patience. It is not the time of
// unpacking that counts; and failing, the part of waited that went by between
// failures and the next byte, says nothing of the link.
func slow(read, size int64, waited, failing time.Duration) bool {
	if waited > patience {
		return true
	}
	waited -= failing
	if read == 0 {
		return waited > patience/4
	}
	all := time.Duration(float64(waited) / float64(read) * float64(size))
	if read < min(probe, size) {
		return waited > patience/4 || read >= glance && all > 4*patience
	}
	return all > patience
}

// slowRest says so of what comes after the first part, which took so long with its
// unpacking: on a slow machine that counts as a slow link does.
func slowRest(read, size int64, took time.Duration) bool {
	return time.Duration(float64(took)/float64(read)*float64(size-read)) > patience
}

// mb is bytes for people.
func mb(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
