package agent

import (
	"time"

	"golang.org/x/sys/unix"
)

// Uptime is the time since the kernel began.
func Uptime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_UPTIME, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
