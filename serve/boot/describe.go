package boot

import (
	"cmp"
	"fmt"
	"strings"
	"time"
)

// sentences are what each kind of event means, for people. %s is the file, or
// whatever else the event is about.
var sentences = map[Kind]string{
	DHCPDiscover: "asks who gives addresses", DHCPOffer: "is offered %s", DHCPRequest: "asks for its address", DHCPAck: "gets %s",
	DHCPNak: "is refused the address it asked for", DHCPInform: "asks for parameters", DHCPDecline: "declines its address", DHCPRelease: "gives its address back",
	DHCPBootp: "gets %s by BOOTP", DHCPUnknown: "asks for an address, but belongs to no node", DHCPForeign: "another DHCP server answers", DHCPConflict: "its address is in use", DHCPBad: "sent a packet that is no request",
	TFTPRead: "asks for %s over TFTP", TFTPDone: "fetched %s over TFTP", TFTPNotFound: "asked for %s over TFTP, which is not there", TFTPRefused: "was refused %s over TFTP", TFTPAborted: "broke off fetching %s over TFTP",
	HTTPGet: "asks for %s over HTTP", HTTPDone: "fetched %s over HTTP", HTTPNotFound: "asked for %s over HTTP, which is not there", HTTPRefused: "was refused %s over HTTP", HTTPAborted: "broke off fetching %s over HTTP",
	MountDone: "mounted %s", MountRefused: "was refused the mount of %s", MountUnmount: "unmounted %s",
	NFSFirstCall: "reads its root", NFSInit: "starts init", NFSRefused: "was refused an NFS call", NFSError: "got an NFS error",
	NodeBoot: "its early program runs", NodeStep: "early: %s", NodeUp: "is up", NodeSilent: "has fallen silent", NodeBack: "is back", NodeRefused: "was refused by the node API",
	NodeJobBegin: "begins the job %s", NodeJobEnd: "ended the job %s",
	LayerDamaged: "a layer is damaged at %s", LayerMended: "a damaged layer was mended at %s", ChangesClash: "the node and its new image both changed %s",
	EventsDropped: "made too many events to keep", ServeReady: "serve answers", ServeStopped: "serve stopped", PinSwitched: "the pins were switched", TagSwitched: "the tag means another image",
	RegistryAway: "the registry does not answer", RegistryBack: "the registry answers again",
}

// Describe says an event in a few words, without its time and node.
func Describe(e Event) string {
	text, ok := sentences[e.Kind]
	if !ok {
		text = string(e.Kind)
	}
	about := e.File
	switch e.Kind {
	case DHCPOffer, DHCPAck, DHCPBootp:
		about = "no address"
		if e.Addr.IsValid() {
			about = e.Addr.String()
		}
	}
	if strings.Contains(text, "%s") {
		text = fmt.Sprintf(text, cmp.Or(about, "nothing"))
	}
	switch e.Kind {
	case DHCPDiscover, DHCPBootp, DHCPUnknown:
		if e.Client != "" {
			text += " (" + e.Client + ")"
		}
	case DHCPOffer, DHCPAck:
		if e.File != "" {
			text += ", to boot " + e.File
		}
	}
	return text + amount(e)
}

// amount is how much and how long, where that was counted.
func amount(e Event) string {
	switch {
	case e.Bytes > 0 && e.Took > 0:
		return fmt.Sprintf(" (%.1f MB in %s)", float64(e.Bytes)/1e6, e.Took.Round(time.Millisecond))
	case e.Bytes > 0:
		return fmt.Sprintf(" (%.1f MB)", float64(e.Bytes)/1e6)
	}
	return ""
}

// Line is one line of a timeline.
type Line struct {
	// After is the time since the boot began.
	After time.Duration `json:"after"`
	Text  string        `json:"text"`
	// Error is the event's own sentence, if something went wrong.
	Error string `json:"error,omitempty"`
	// Times is how often it happened in a row.
	Times int `json:"times,omitempty"`
}

// Timeline is a boot told in order: what only announces what follows is left
// out, and repetitions are one line.
func Timeline(b Boot) []Line {
	var lines []Line
	for i, e := range b.Events {
		if announced(b.Events[i:]) {
			continue
		}
		l := Line{After: e.Time.Sub(b.Began()), Text: Describe(e), Error: e.Error, Times: 1}
		if n := len(lines); n > 0 && lines[n-1].Text == l.Text && lines[n-1].Error == l.Error {
			lines[n-1].Times++
			continue
		}
		lines = append(lines, l)
	}
	return lines
}

// answerWithin is how many events further an answer is looked for.
const answerWithin = 64

// announced says whether the first of these events is a request whose answer
// follows.
func announced(events []Event) bool {
	answers := map[Kind][]Kind{
		DHCPOffer: {DHCPAck, DHCPRequest}, DHCPRequest: {DHCPAck, DHCPNak},
		TFTPRead: {TFTPDone, TFTPNotFound, TFTPRefused, TFTPAborted}, HTTPGet: {HTTPDone, HTTPNotFound, HTTPRefused, HTTPAborted},
	}[events[0].Kind]
	for _, e := range events[1:min(len(events), answerWithin)] {
		for _, k := range answers {
			if e.Kind == k && (e.File == events[0].File || e.Client == events[0].Client && e.MAC == events[0].MAC && events[0].Kind != TFTPRead && events[0].Kind != HTTPGet) {
				return true
			}
		}
	}
	return false
}
