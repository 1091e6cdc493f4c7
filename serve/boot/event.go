// Package boot holds the events of a boot as values: what each protocol saw of
// a node, in order. The timeline and its diagnosis are pure functions over
// them. The package opens no socket and no file.
package boot

import (
	"net/netip"
	"time"
)

// Proto is the protocol or part of serve that saw something.
type Proto string

// The parts of serve that make events.
const (
	DHCP    Proto = "dhcp"
	TFTP    Proto = "tftp"
	HTTP    Proto = "http"
	Portmap Proto = "portmap"
	Mount   Proto = "mount"
	NFS     Proto = "nfs"
	NodeRun Proto = "node"
	Serve   Proto = "serve"
)

// Kind says what was seen; its values are "PROTO.WHAT" and listed beside the
// code that makes them.
type Kind string

// The kinds of event.
const (
	DHCPDiscover Kind = "dhcp.discover"
	DHCPOffer    Kind = "dhcp.offer"
	DHCPRequest  Kind = "dhcp.request"
	DHCPAck      Kind = "dhcp.ack"
	DHCPNak      Kind = "dhcp.nak"
	DHCPInform   Kind = "dhcp.inform"
	DHCPDecline  Kind = "dhcp.decline"
	DHCPRelease  Kind = "dhcp.release"
	// DHCPBootp is a BOOTP request without option 53.
	DHCPBootp Kind = "dhcp.bootp"
	// DHCPUnknown is a request from a MAC that no node has; it stays unanswered.
	DHCPUnknown Kind = "dhcp.unknown-mac"
	// DHCPForeign is an answer of another DHCP server on the wire.
	DHCPForeign Kind = "dhcp.other-server"
	// DHCPConflict is an address of ours that another machine uses.
	DHCPConflict Kind = "dhcp.address-in-use"
	DHCPBad      Kind = "dhcp.bad-packet"

	TFTPRead     Kind = "tftp.read"
	TFTPDone     Kind = "tftp.done"
	TFTPNotFound Kind = "tftp.not-found"
	TFTPRefused  Kind = "tftp.refused"
	TFTPAborted  Kind = "tftp.aborted"

	HTTPGet      Kind = "http.get"
	HTTPDone     Kind = "http.done"
	HTTPNotFound Kind = "http.not-found"
	HTTPRefused  Kind = "http.refused"
	HTTPAborted  Kind = "http.aborted"

	MountDone    Kind = "mount.done"
	MountRefused Kind = "mount.refused"
	MountUnmount Kind = "mount.unmount"

	// NFSFirstCall is a node's first NFS call after its mount or its restart.
	NFSFirstCall Kind = "nfs.first-call"
	// NFSInit is the first LOOKUP of the init program: the kernel is up.
	NFSInit    Kind = "nfs.init"
	NFSRefused Kind = "nfs.refused"
	NFSError   Kind = "nfs.error"

	// NodeBoot is a node's early program that asked for its token; NodeStep one
	// step of its way up, named by the event's file; NodeUp that it is up.
	NodeBoot    Kind = "node.boot"
	NodeStep    Kind = "node.step"
	NodeUp      Kind = "node.up"
	NodeSilent  Kind = "node.silent"
	NodeBack    Kind = "node.back"
	NodeRefused Kind = "node.refused"
	// NodeJobBegin and NodeJobEnd enclose what a named job reads.
	NodeJobBegin Kind = "node.job-begin"
	NodeJobEnd   Kind = "node.job-end"
	// NodeLease is a region of a writable export that a node leased, and the
	// others what became of it; NodeConflict changes that were kept aside.
	NodeLease        Kind = "node.lease"
	NodeLeaseRefused Kind = "node.lease-refused"
	NodeLeaseExpired Kind = "node.lease-expired"
	NodeLeaseFreed   Kind = "node.lease-freed"
	NodeStream       Kind = "node.stream"
	NodeCommit       Kind = "node.commit"
	NodeConflict     Kind = "node.conflict"

	// LayerDamaged is a frame that fails its digest; LayerMended one that was
	// fetched again.
	LayerDamaged Kind = "serve.layer-damaged"
	LayerMended  Kind = "serve.layer-mended"
	// ChangesClash is a file of a copy-on-write export that the node and a new
	// image both changed; the node's is kept.
	ChangesClash Kind = "serve.changes-clash"
	// EventsDropped stands for those of a node that were too many to keep.
	EventsDropped Kind = "serve.events-dropped"
	ServeReady    Kind = "serve.ready"
	ServeStopped  Kind = "serve.stopped"
	PinSwitched   Kind = "serve.pin-switched"
	// TagSwitched is a tag in a registry that came to mean another image.
	TagSwitched Kind = "serve.tag-switched"
	// RegistryAway is a registry whose tag is followed and that cannot be asked;
	// RegistryBack is the end of that.
	RegistryAway Kind = "serve.registry-away"
	RegistryBack Kind = "serve.registry-back"
)

// Event is one thing that serve saw of a node.
type Event struct {
	Time time.Time  `json:"time"`
	Kind Kind       `json:"kind"`
	Node string     `json:"node,omitempty"`
	MAC  string     `json:"mac,omitempty"`
	Addr netip.Addr `json:"addr,omitzero"`
	// Digest is the manifest the node boots from.
	Digest string `json:"digest,omitempty"`
	// Client is what asked: "iPXE", "FreeBSD loader", "Linux ipconfig".
	Client string `json:"client,omitempty"`
	File   string `json:"file,omitempty"`
	Bytes  int64  `json:"bytes,omitempty"`
	// Took is how long it lasted, for what has a beginning and an end.
	Took time.Duration `json:"took,omitempty"`
	// Error is a sentence: what went wrong, and why.
	Error string `json:"error,omitempty"`
	// Detail is anything else worth reading.
	Detail string `json:"detail,omitempty"`
}

// Sink takes events. It must be quick and safe for use by many goroutines; a
// nil Sink is silence.
type Sink func(Event)

// Send hands an event on, if anybody listens.
func (s Sink) Send(e Event) {
	if s != nil {
		s(e)
	}
}
