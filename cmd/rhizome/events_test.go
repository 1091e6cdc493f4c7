package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"rhizome/serve/boot"
)

// A node that asks for ever does not fill the disk, and takes nothing from what
// is told of the others.
func TestOneNodeCannotFillTheLog(t *testing.T) {
	var out bytes.Buffer
	l := &eventLog{out: &out, dir: t.TempDir(), told: map[string]*minute{}, mount: func(boot.Event) {}, tell: func(err error) { t.Error(err) }}
	defer l.close()
	start := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for range 10 * maxNodeEvents {
		l.take(boot.Event{Time: start, Kind: boot.TFTPNotFound, Node: "n1"})
	}
	l.take(boot.Event{Time: start, Kind: boot.NFSInit, Node: "n2"})
	l.take(boot.Event{Time: start.Add(time.Minute), Kind: boot.DHCPAck, Node: "n1"})
	text := out.String()
	if n := strings.Count(text, "tftp.not-found"); n != maxNodeEvents {
		t.Errorf("%d events were written", n)
	}
	for _, want := range []string{"serve.events-dropped node=n1", "nfs.init node=n2", "dhcp.ack node=n1"} {
		if strings.Count(text, want) != 1 {
			t.Errorf("%q is told %d times", want, strings.Count(text, want))
		}
	}
	kept := 0
	if err := readEventFile(l.dir+"/2026-11-23.jsonl", func(boot.Event) { kept++ }); err != nil || kept != maxNodeEvents+3 {
		t.Errorf("%d events are kept, %v", kept, err)
	}
}
