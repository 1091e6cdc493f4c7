package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"rhizome/cmd/rhizome/internal/rig"
)

// points are the moments of a boot at which the machine of bench/boot says what
// it has asked for: userland is there, for one that waits for it the bundle too,
// and after each run of its workload.
func points(k kind) []string {
	if k.name == filledName {
		return []string{"up", "filled", "first", "second"}
	}
	return []string{"up", "first", "second"}
}

// reading is what was counted up to one point.
type reading struct {
	// calls are NFS calls, waited is the time from the queueing of each to its
	// end, summed; both as the machine's kernel counts them.
	calls  int
	waited time.Duration
	// bytes are all that went to the machine over its link, whatever the
	// protocol; after is the time since the power was switched on.
	bytes int64
	after time.Duration
}

// since is what came after an earlier point.
func (r reading) since(o reading) reading {
	return reading{r.calls - o.calls, r.waited - o.waited, r.bytes - o.bytes, r.after - o.after}
}

// trip is one boot with its workload.
type trip struct {
	server, link string
	at           []reading
	cpu          time.Duration
}

// overLinks boots the machine over each link from each server, by turns, and
// reports of each pair the trip whose workload ended neither soon nor late.
func (b *bench) overLinks(ctx context.Context, links []string, servers []kind) error {
	var middle []trip
	for n, link := range links {
		trips := make([][]trip, len(servers))
		for round := range b.rounds {
			for i, k := range servers {
				t, err := b.trip(ctx, (n*b.rounds+round)*100+i, link, k)
				if err != nil {
					return fmt.Errorf("%s over %s: %w", k.name, link, err)
				}
				trips[i] = append(trips[i], t)
			}
		}
		for _, of := range trips {
			middle = append(middle, median(of))
		}
	}
	reportTrips(os.Stdout, middle)
	return nil
}

// end is the time from power-on to the end of the workload's first run.
func (t trip) end() time.Duration { return t.at[len(t.at)-2].after }

func median(trips []trip) trip {
	slices.SortFunc(trips, func(a, b trip) int { return cmp.Compare(a.end(), b.end()) })
	return trips[(len(trips)-1)/2]
}

// trip boots once, from a server that was just started.
func (b *bench) trip(ctx context.Context, n int, link string, k kind) (t trip, err error) {
	unlock, err := lock(ctx, b.lock)
	if err != nil {
		return t, err
	}
	defer unlock()
	s, err := b.start(ctx, n, k)
	if s != nil {
		defer func() { err = errors.Join(err, s.close()) }()
	}
	if err != nil {
		return t, err
	}
	before, err := cpuOf(s.cgroup)
	if err != nil {
		return t, err
	}
	t = trip{server: k.name, link: link}
	if t.at, err = s.follow(ctx, b, link, points(k)); err != nil {
		return t, err
	}
	after, err := cpuOf(s.cgroup)
	t.cpu = after - before
	fmt.Fprintf(os.Stderr, "%-10s %-36s %+v\n", link, k.name, t.at)
	return t, err
}

// follow boots the machine behind a link and takes what it says at each point.
func (s *server) follow(ctx context.Context, b *bench, link string, points []string) ([]reading, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, b.limit, errors.New("the machine did not come to an end in time"))
	defer cancel()
	began := time.Now()
	tap := "tap0"
	r, err := s.net.Boot(ctx, rig.Machine{Name: b.node.Name, MAC: b.node.MACs[0], MemoryMB: b.memory, CPU: b.cpu}, nil)
	if err != nil {
		return nil, err
	}
	defer r.Off()
	if err := s.shape(ctx, tap, link); err != nil {
		return nil, err
	}
	var out []reading
	from := 0
	for _, p := range points {
		said, end, err := r.Console.Wait(ctx, from, `BENCH `+p+` (\d+) (\d+) [\d.]+`)
		if err != nil {
			return nil, fmt.Errorf("%w; the console ends with:\n%s\nand the server's output with:\n%s", err, r.Console.Tail(3000), s.process.Console.Tail(3000))
		}
		from = end
		at := reading{after: time.Since(began)}
		at.calls, _ = strconv.Atoi(said[1])
		ms, _ := strconv.Atoi(said[2])
		at.waited = time.Duration(ms) * time.Millisecond
		if at.bytes, err = s.sent(ctx, tap); err != nil {
			return nil, err
		}
		out = append(out, at)
	}
	return out, nil
}

// shape limits what goes to the machine (tc-tbf(8)): an Ethernet of that speed,
// with half a second of buffer. What it sends itself is requests.
func (s *server) shape(ctx context.Context, tap, rate string) error {
	return s.net.Run(ctx, "tc", "qdisc", "add", "dev", tap, "root", "tbf", "rate", rate, "burst", "256kb", "latency", "500ms")
}

// sent is how many bytes went to the machine.
func (s *server) sent(ctx context.Context, tap string) (int64, error) {
	out, err := s.net.Command(ctx, "cat", "/sys/class/net/"+tap+"/statistics/tx_bytes").Output()
	if err != nil {
		return 0, fmt.Errorf("reading what went over %s: %w", tap, err)
	}
	return strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
}

// reportTrips prints the table of docs/benchmarks.md: each cell of a workload is
// its own, not the sum since power-on.
func reportTrips(w io.Writer, trips []trip) {
	fmt.Fprintln(w, "| link | server | boot: calls, MB, to userland | first run: calls, MB, waited | second run: calls, MB | to the end of the first run | server CPU |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|")
	for _, t := range trips {
		n := len(t.at)
		up, first, second := t.at[0], t.at[n-2].since(t.at[n-3]), t.at[n-1].since(t.at[n-2])
		fmt.Fprintf(w, "| %s | %s | %d, %.1f, %s | %d, %.1f, %s | %d, %.1f | %s | %d ms |\n", t.link, t.server,
			up.calls, mega(up.bytes), seconds(up.after), first.calls, mega(first.bytes), seconds(first.waited),
			second.calls, mega(second.bytes), seconds(t.end()), t.cpu.Milliseconds())
	}
}

func mega(n int64) float64 { return float64(n) / 1e6 }
