package boot

import (
	"fmt"
	"strings"
	"time"
)

// State is what a list of nodes says of each, in one word.
type State string

// The states.
const (
	StateUnseen  State = "unseen"
	StateBooting State = "booting"
	StateStuck   State = "stuck"
	StateUp      State = "up"
	StateSilent  State = "silent"
)

// patience is how long a boot may show nothing new before it counts as stuck: a
// kernel unpacks, waits for disks and switches, and says nothing.
const patience = 5 * time.Minute

// Diagnosis says how far a boot has come, and what did not happen.
type Diagnosis struct {
	State State `json:"state"`
	Stage Stage `json:"stage"`
	// Missing is the first thing that did not happen; empty when all did.
	Missing string `json:"missing,omitempty"`
	// Why is the cause, as far as it was seen, and Do the remedy.
	Why string `json:"why,omitempty"`
	Do  string `json:"do,omitempty"`
}

// Diagnose reads a boot's events as they stand at now. It guesses nothing that
// was not seen: where there is no sign of a cause, Why says what there is.
func Diagnose(b Boot, now time.Time) Diagnosis {
	if len(b.Events) == 0 {
		return Diagnosis{State: StateUnseen, Missing: "a request from the machine",
			Why: "nothing was seen of it", Do: "look whether it is on, has its cable in this network, and boots from the network by the card that the recipe names"}
	}
	s, at := b.Reached()
	d := Diagnosis{Stage: s}
	signs := b.Events[at:]
	switch {
	case s >= Init && !b.earlyStopped(s), s == Called && !b.whole():
		d.State = StateUp
		if lost(b.Events) {
			d.State, d.Missing = StateSilent, "its heartbeat"
			d.Why, d.Do = "the node was up, and has fallen silent", "look whether it has power and its network; its console says more"
		}
		return d
	default:
		d.Missing = missing[s]
		d.Why, d.Do = explain(s, signs, b)
	}
	d.State = StateBooting
	if refused(s, signs) || now.Sub(b.Last()) > patience {
		d.State = StateStuck
	}
	return d
}

// missing is what comes after each stage.
var missing = [...]string{
	Unseen: "a request for an address", Asked: "an address", Addressed: "the fetch of a boot program", Loaded: "the fetch of a kernel, or the mount of the root",
	Kernel: "a word of the kernel", System: "the mount of the root", Mounted: "the first read of the root", Called: "the look for init", Init: "the node's word that it is up",
}

// whole says whether the boot's beginning was seen. Calls of a node that began
// before serve did show that it runs.
func (b Boot) whole() bool {
	for _, e := range b.Events {
		if asks(e) || e.Kind == DHCPRequest || e.Kind == MountDone {
			return true
		}
	}
	return false
}

// earlyStopped: where a program of ours runs on the node, up is what that says.
func (b Boot) earlyStopped(s Stage) bool {
	if s == Up {
		return false
	}
	for _, e := range b.Events {
		if e.Kind == NodeBoot || e.Kind == NodeStep {
			return true
		}
	}
	return false
}

func lost(events []Event) bool {
	silent := false
	for _, e := range events {
		silent = e.Kind == NodeSilent || silent && e.Kind != NodeBack && e.Kind != NodeUp
	}
	return silent
}

// trouble are the kinds that say by themselves why a boot went no further, and
// what to do; the event's own sentence comes first.
var trouble = map[Kind]string{
	DHCPForeign:  "stop the other DHCP server, or serve with --dhcp proxy",
	DHCPConflict: "give the other machine another address",
	DHCPUnknown:  "add the card to a node of the recipe, build and pin; or leave it: it is no machine of this cluster",
	TFTPNotFound: "name the file in the node's boot spec, or fix the name that the boot program asks for",
	HTTPNotFound: "name the file in the node's boot spec, or fix the name that the boot program asks for",
	TFTPRefused:  "see the reason; serve answers only the addresses of the image, and only with what their boot spec names",
	HTTPRefused:  "see the reason; serve answers only the addresses of the image, and only with what their boot spec names",
	TFTPAborted:  "look at the network between the two: cable, duplex, MTU; firmware that cannot take large blocks wants a smaller --mtu on the path",
	HTTPAborted:  "look at the network between the two: cable, duplex, MTU",
	MountRefused: "mount /nodes/NAME of the node that has this address; `rhizome serve CLUSTER --dry-run` prints what it is told",
	NFSRefused:   "see the reason; a call that claims root must come from a port below 1024",
	NFSError:     "see the reason; `rhizome verify REF` checks the image",
	LayerDamaged: "pull the image again: `rhizome verify REF` says what is damaged",
	DHCPNak:      "nothing: it asks anew; if it does for ever, it remembers an address of another network",
}

// refused says whether something went wrong that will not mend itself.
func refused(s Stage, signs []Event) bool {
	e, ok := lastTrouble(s, signs)
	return ok && e.Kind != DHCPNak && e.Kind != DHCPForeign && e.Kind != TFTPAborted && e.Kind != HTTPAborted
}

// lastTrouble passes over what was mended: pxelinux asks for eight files before
// the one that there is. Another DHCP server that the node said nothing of is no
// cause once the node has an address.
func lastTrouble(s Stage, signs []Event) (found Event, ok bool) {
	for _, e := range signs {
		if e.Kind == DHCPForeign && e.Node == "" && s > Asked {
			continue
		}
		if _, bad := trouble[e.Kind]; bad {
			found, ok = e, true
		}
		if e.Kind == TFTPDone || e.Kind == HTTPDone {
			ok = ok && found.Kind != TFTPNotFound && found.Kind != HTTPNotFound && found.Kind != TFTPAborted && found.Kind != HTTPAborted
		}
	}
	return found, ok
}

// explain finds the cause of a boot that stays at a stage: trouble that was seen
// since, or what the silence can mean.
func explain(s Stage, signs []Event, b Boot) (why, do string) {
	if e, ok := lastTrouble(s, signs); ok {
		return troubleText(e), trouble[e.Kind]
	}
	at := signs[0]
	switch s {
	case Asked:
		return "it asks, and takes no answer", "look whether answers reach it: a relay, VLAN, port security or a switch port that spanning tree still blocks; `rhizome serve CLUSTER --dry-run` prints what it is answered"
	case Addressed:
		return addressed(at)
	case Loaded:
		return fmt.Sprintf("%s was sent, and nothing followed", at.File), "its console says more; a machine with Secure Boot refuses unsigned programs, and a script or configuration may name another server"
	case Kernel:
		return fmt.Sprintf("%s was sent, and nothing was heard since", at.File), "its console says more (console= in the recipe's cmdline); the kernel may not run on this machine, or its initramfs lacks the network card's driver"
	case System:
		return "its kernel runs and has an address, but asks for no mount", "look at root= and nfsroot= of its command line, and whether a firewall closes ports 111 and 2049 of this server"
	case Mounted:
		return "the root is mounted, and no call followed", "look whether a firewall closes TCP port 2049 of this server; the client must speak NFSv3"
	case Called:
		return "the root is read, and no init is looked for", "its console says more; the root's init= may name another program"
	case Init:
		return early(b), "its console says more"
	}
	return "nothing was seen of it that begins a boot", "it may have begun before serve did: switch it off and on"
}

func troubleText(e Event) string {
	text := e.Error
	if text == "" {
		text = Describe(e)
	}
	if e.File != "" && !strings.Contains(text, e.File) {
		text = e.File + ": " + text
	}
	return text
}

func addressed(at Event) (why, do string) {
	if at.File == "" && fromBootProgram(at.Client) {
		return fmt.Sprintf("the node's boot spec names no program for its firmware (%s)", at.Client), "name one in the recipe (media: or boot:), build and pin"
	}
	if at.File == "" {
		return "its system has an address, but serve loaded nothing onto it and sees no mount", "look at root= and nfsroot= of its command line"
	}
	return fmt.Sprintf("it was told to fetch %s, and has not asked for it", at.File), "look whether a firewall closes UDP port 69 or TCP port 80 of this server"
}

// early is the last word of the program on the node.
func early(b Boot) string {
	for i := len(b.Events) - 1; i >= 0; i-- {
		if e := b.Events[i]; e.Kind == NodeStep {
			return "its early program's last word: " + strings.TrimSpace(Describe(e))
		}
	}
	return "its early program began, and has said nothing since"
}
