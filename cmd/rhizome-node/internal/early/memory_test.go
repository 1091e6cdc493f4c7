package early

import (
	"testing"
	"time"
)

func TestRoomLeavesAQuarterToPrograms(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct{ total, free, need, want int64 }{
		{1024 * mib, 900 * mib, 100 * mib, 100 * mib},
		{1024 * mib, 900 * mib, 800 * mib, 644 * mib},
		{1024 * mib, 900 * mib, 0, 644 * mib}, // unknown: what there is
		{128 * mib, 100 * mib, 50 * mib, 36 * mib},
		{128 * mib, 66 * mib, 50 * mib, 0},
		{128 * mib, 66 * mib, 1 * mib, 1 * mib},
		{128 * mib, 20 * mib, 1 * mib, 0},
	} {
		if got := room(c.total, c.free, c.need); got != c.want {
			t.Errorf("of %d MiB, %d free, %d wanted: %d MiB, want %d", c.total/mib, c.free/mib, c.need/mib, got/mib, c.want/mib)
		}
	}
}

// A boot waits for a bundle only where the network gives it within seconds.
func TestTheRateOfTheFirstBytesDecides(t *testing.T) {
	const mb = 1_000_000
	for name, c := range map[string]struct {
		read, size int64
		waited     time.Duration
		failing    time.Duration
		want       bool
	}{
		"nothing has come yet":          {0, 30 * mb, 10 * time.Millisecond, 0, false},
		"nothing comes":                 {0, 30 * mb, 1100 * time.Millisecond, 0, true},
		"1 Gbit/s":                      {mb, 30 * mb, 8 * time.Millisecond, 0, false},
		"100 Mbit/s, 30 MB":             {mb, 30 * mb, 80 * time.Millisecond, 0, false},
		"10 Mbit/s, 30 MB":              {mb, 30 * mb, 800 * time.Millisecond, 0, true},
		"10 Mbit/s, at a glance":        {150_000, 30 * mb, 120 * time.Millisecond, 0, true},
		"a hiccup, at a glance":         {150_000, 30 * mb, 40 * time.Millisecond, 0, false},
		"10 Mbit/s, 3 MB":               {mb, 3 * mb, 800 * time.Millisecond, 0, false},
		"the server stopped in the end": {29 * mb, 30 * mb, 5 * time.Second, 0, true},
		"6 MB, then HTTP refused":       {6 * mb, 20 * mb, 1300 * time.Millisecond, 700 * time.Millisecond, false},
		"a server that is away":         {6 * mb, 20 * mb, 5 * time.Second, 4 * time.Second, true},
		"a small one, come at once":     {1000, 1000, time.Millisecond, 0, false},
	} {
		if got := slow(c.read, c.size, c.waited, c.failing); got != c.want {
			t.Errorf("%s: slow is %v", name, got)
		}
	}
}
