package simulate

import (
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
	"time"
)

// Report sums up the boots of one simulation.
type Report struct {
	Nodes  int `json:"nodes"`
	Up     int `json:"up"`
	Failed int `json:"failed"`
	// Errors are the different ones, with how often each came.
	Errors map[string]int `json:"errors,omitempty"`
	Total  Row            `json:"total"`
	By     []Row          `json:"by"`
	Server *Usage         `json:"server,omitempty"`
}

// Row is one protocol, over all nodes that came up.
type Row struct {
	Protocol string        `json:"protocol"`
	P50      time.Duration `json:"p50"`
	P99      time.Duration `json:"p99"`
	Max      time.Duration `json:"max"`
	Calls    int64         `json:"calls"`
	Again    int64         `json:"again"`
	Bytes    int64         `json:"bytes"`
}

// Usage is what the server's process used meanwhile.
type Usage struct {
	CPU time.Duration `json:"cpu"`
	// PeakRSS is in bytes, since the process began; page cache mapped in counts.
	PeakRSS int64 `json:"peakRss"`
}

// Summarize makes a report of boots.
func Summarize(boots []Boot) Report {
	r := Report{Nodes: len(boots), Errors: map[string]int{}}
	var up []Boot
	for _, b := range boots {
		if b.Error != "" {
			r.Failed++
			r.Errors[b.Error]++
			continue
		}
		up = append(up, b)
	}
	r.Up = len(up)
	r.Total = Row{Protocol: "whole boot"}
	var whole []time.Duration
	for _, b := range up {
		whole = append(whole, b.Took)
	}
	for _, p := range protocols {
		row := summarize(p, up)
		r.Total.Calls, r.Total.Again, r.Total.Bytes = r.Total.Calls+row.Calls, r.Total.Again+row.Again, r.Total.Bytes+row.Bytes
		r.By = append(r.By, row)
	}
	r.Total.P50, r.Total.P99, r.Total.Max = percentile(whole, 50), percentile(whole, 99), percentile(whole, 100)
	return r
}

func summarize(protocol string, up []Boot) Row {
	row := Row{Protocol: protocol}
	var took []time.Duration
	for _, b := range up {
		c := b.By[protocol]
		took = append(took, c.Took)
		row.Calls, row.Again, row.Bytes = row.Calls+c.Calls, row.Again+c.Again, row.Bytes+c.Bytes
	}
	row.P50, row.P99, row.Max = percentile(took, 50), percentile(took, 99), percentile(took, 100)
	return row
}

// percentile is the smallest value that p in a hundred do not exceed ("nearest
// rank"); 0 of nothing.
func percentile(all []time.Duration, p float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[max(rank, 1)-1]
}

// WriteText writes the report for people.
func (r Report) WriteText(w io.Writer) error {
	fmt.Fprintf(w, "%d of %d simulated nodes came up\n", r.Up, r.Nodes)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PROTOCOL\tP50\tP99\tMAX\tCALLS\tSENT AGAIN\tBYTES")
	for _, row := range append(slices.Clone(r.By), r.Total) {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%d\t%d\n", row.Protocol, short(row.P50), short(row.P99), short(row.Max), row.Calls, row.Again, row.Bytes)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if u := r.Server; u != nil {
		fmt.Fprintf(w, "server: %s CPU, %s a node; peak %.1f MiB resident\n", short(u.CPU), short(u.CPU/time.Duration(max(r.Nodes, 1))), float64(u.PeakRSS)/(1<<20))
	}
	for text, n := range r.Errors {
		fmt.Fprintf(w, "%d failed: %s\n", n, text)
	}
	return nil
}

func short(d time.Duration) time.Duration {
	switch {
	case d > 10*time.Second:
		return d.Round(100 * time.Millisecond)
	case d > 10*time.Millisecond:
		return d.Round(time.Millisecond)
	}
	return d.Round(time.Microsecond)
}
