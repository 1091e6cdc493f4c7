package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"rhizome/serve/simulate"
)

// clockTick is the unit of CPU time in /proc: USER_HZ, 100 a second on every
// architecture that Go runs on.
const clockTick = 10 * time.Millisecond

// processUsage reads what a process has used so far (proc(5), /proc/pid/stat
// and /proc/pid/status).
func processUsage(pid int) (simulate.Usage, error) {
	var u simulate.Usage
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, err
	}
	// The name, which may hold anything, ends at the last parenthesis; utime and
	// stime are the 12th and 13th field after it.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 13 {
		return u, fmt.Errorf("/proc/%d/stat is too short", pid)
	}
	for _, f := range fields[11:13] {
		ticks, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return u, err
		}
		u.CPU += time.Duration(ticks) * clockTick
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			_, err := fmt.Sscanf(rest, "%d kB", &u.PeakRSS)
			u.PeakRSS <<= 10
			return u, err
		}
	}
	return u, nil
}
