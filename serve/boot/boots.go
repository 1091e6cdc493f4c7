package boot

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Boot is what was seen of one boot of a node, from its first request on.
type Boot struct {
	Node string     `json:"node,omitempty"`
	MAC  string     `json:"mac,omitempty"`
	Addr netip.Addr `json:"addr,omitzero"`
	// Digest is the manifest that it boots from.
	Digest string  `json:"digest,omitempty"`
	Events []Event `json:"events"`
}

// Began is when the first thing was seen of it, and Last when the last.
func (b Boot) Began() time.Time { return b.Events[0].Time }

// Last is when the last thing was seen of it.
func (b Boot) Last() time.Time { return b.Events[len(b.Events)-1].Time }

// quietBefore is how long a node whose root is mounted says nothing before a
// request of a loader or initramfs is another boot: FreeBSD's loader asks again
// for every file.
const quietBefore = 2 * time.Minute

// Boots cuts one machine's events, in the order of time, into its boots. What
// came before the first request that was seen makes a boot of its own.
func Boots(events []Event) []Boot {
	var all []Boot
	var t Tracker
	for _, e := range events {
		if t.begins(e) && len(t.boot.Events) > 0 {
			all = append(all, t.boot)
		}
		t.Add(e)
	}
	if len(t.boot.Events) > 0 {
		all = append(all, t.boot)
	}
	return all
}

// maxEvents bounds what is kept of one boot: the beginning and the end of it say
// more than what lies between.
const maxEvents = 1000

// Tracker follows one machine, and keeps its last boot. It is not safe for use
// by many goroutines.
type Tracker struct {
	boot Boot
	p    progress
}

// Add takes the next event in.
func (t *Tracker) Add(e Event) {
	if t.begins(e) {
		*t = Tracker{}
	}
	t.p.note(e)
	t.boot.add(e)
	if n := len(t.boot.Events); n > maxEvents {
		t.boot.Events = slices.Delete(t.boot.Events, n/2, n*3/4)
	}
}

// Boot is the last boot, as far as it has come; it has no events before the
// first was added.
func (t *Tracker) Boot() Boot { return t.boot }

func (t *Tracker) begins(e Event) bool { return len(t.boot.Events) == 0 || t.p.ends(e) }

func (b *Boot) add(e Event) {
	b.Events = append(b.Events, e)
	if e.Node != "" {
		b.Node = e.Node
	}
	if e.MAC != "" && e.Kind != DHCPConflict && e.Kind != DHCPForeign {
		b.MAC = e.MAC
	}
	if e.Addr.IsValid() && e.Kind != DHCPForeign {
		b.Addr = e.Addr
	}
	if e.Digest != "" && !strings.HasPrefix(string(e.Kind), string(Serve)+".") {
		b.Digest = e.Digest
	}
}

// progress is what of a boot decides whether a request is the first of the
// next one.
type progress struct {
	// chained is set once firmware asked: an iPXE after it was fetched by it.
	chained, mounted bool
	last             time.Time
}

func (p *progress) note(e Event) {
	p.chained = p.chained || asks(e) && fromFirmware(e.Client)
	p.mounted = p.mounted || e.Kind == MountDone
	p.last = e.Time
}

func (p *progress) ends(e Event) bool {
	switch {
	case !asks(e):
		return false
	case fromFirmware(e.Client):
		// Firmware says DISCOVER several times until it is answered.
		return p.mounted || e.Time.Sub(p.last) > time.Minute
	case strings.HasPrefix(e.Client, "iPXE"):
		return p.mounted || e.Time.Sub(p.last) > p.chainedWait()
	case fromSystem(e.Client):
		return p.mounted && e.Time.Sub(p.last) > quietBefore
	}
	return false
}

// chainedWait is how long after the last word an iPXE still belongs to the
// firmware that fetched it.
func (p *progress) chainedWait() time.Duration {
	if p.chained {
		return 10 * time.Minute
	}
	return time.Minute
}

func asks(e Event) bool {
	return e.Kind == DHCPDiscover || e.Kind == DHCPBootp || e.Kind == DHCPUnknown
}

// The names of clients are those of serve/dhcp.
func fromFirmware(client string) bool {
	return strings.HasSuffix(client, " PXE") || strings.HasSuffix(client, " HTTP boot")
}

func fromSystem(client string) bool {
	return client == "FreeBSD loader" || client == "FreeBSD kernel" || client == "Linux ipconfig"
}

// fromBootProgram says whether a client asks before a kernel runs.
func fromBootProgram(client string) bool {
	return fromFirmware(client) || strings.HasPrefix(client, "iPXE") || client == "FreeBSD loader"
}
