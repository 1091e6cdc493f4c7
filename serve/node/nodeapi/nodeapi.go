// Package nodeapi is what a node and serve say to each other over HTTP, as
// values: the paths, the bodies (JSON, one object each) and the bounds. It is
// all that rhizome-node shares with the server, so it imports next to nothing.
//
// The API answers on the inner address, port 80. A node is known by its source
// address. What changes state needs "Authorization: Bearer TOKEN", and the token
// of a boot is given only to a source port below 1024, so to root.
package nodeapi

import (
	"strings"
	"time"
)

// Prefix begins every path.
const Prefix = "/node/v1/"

// The paths. A lease has its own below Leases: "ID", "ID/tree", "ID/commit".
const (
	PathBoot      = Prefix + "boot"
	PathPlan      = Prefix + "plan"
	PathReport    = Prefix + "report"
	PathUp        = Prefix + "up"
	PathHeartbeat = Prefix + "heartbeat"
	PathJob       = Prefix + "job"
	PathLeases    = Prefix + "leases"
)

// MaxBody is the longest JSON body in bytes; MaxText the longest text in one.
const (
	MaxBody = 64 << 10
	MaxText = 400
)

// DefaultHeartbeat is how often a node tells that it lives, unless the server
// says otherwise.
const DefaultHeartbeat = 30 * time.Second

// Boot is the answer to POST boot: who the node is, and the token of this boot.
// A new boot ends the token and the leases of the former one.
type Boot struct {
	Token string `json:"token"`
	// Boot is a name for this boot, secret to nobody.
	Boot    string `json:"boot"`
	Node    string `json:"node"`
	Cluster string `json:"cluster"`
	// Digest is the manifest that the node runs from.
	Digest string `json:"digest"`
}

// Plan is the answer to GET plan: what the early program does.
type Plan struct {
	Node    string `json:"node"`
	Cluster string `json:"cluster"`
	Digest  string `json:"digest"`
	// OS is "linux" or "freebsd", Root "nfs", "precache" or "ram".
	OS   string `json:"os"`
	Root string `json:"root"`
	// Export is the root's, as SERVER:PATH.
	Export string `json:"export"`
	// Blobs is the export that has what is read into memory as files, where HTTP
	// does not give it: BlobFile names them.
	Blobs string `json:"blobs,omitempty"`
	// Bundle is what is read into memory, where Root is "precache".
	Bundle *Layer `json:"bundle,omitempty"`
	// Layers are the whole root, lowest first, where Root is "ram".
	Layers      []Layer `json:"layers,omitempty"`
	Persist     *Mount  `json:"persist,omitempty"`
	Shared      *Mount  `json:"shared,omitempty"`
	CopyOnWrite []Mount `json:"copyOnWrite,omitempty"`
}

// Layer is a blob that the node fetches over HTTP.
type Layer struct {
	URL string `json:"url"`
	// Digest is the blob's own, DiffID that of the tar in it.
	Digest string `json:"digest"`
	DiffID string `json:"diffId"`
	// Size is the blob's length in bytes; Uncompressed that of the tar, 0
	// where it is not known.
	Size         int64 `json:"size"`
	Uncompressed int64 `json:"uncompressed,omitempty"`
	// Index is where in the blob its tree index lies, with its digest.
	Index *Span `json:"index,omitempty"`
	// First is the front of a bundle that a boot waits for in any case: whole by
	// itself, with a digest of its own.
	First *Span `json:"first,omitempty"`
	// Of a bundle: Folders are where it is laid over the root, hottest first,
	// and Private says that not everybody may read all of it.
	Folders []string `json:"folders,omitempty"`
	Private bool     `json:"private,omitempty"`
}

// BlobFile is the name in Plan.Blobs of the blob with a digest.
func BlobFile(digest string) string { return strings.Replace(digest, ":", "-", 1) }

// Span is a part of a blob: offset and size in bytes, and a digest.
type Span struct {
	Offset int64  `json:"offset"`
	Size   int64  `json:"size"`
	Digest string `json:"digest"`
}

// Mount is a writable export and where it belongs. Export is SERVER:PATH.
type Mount struct {
	Path   string `json:"path"`
	Export string `json:"export"`
}

// The states of a step.
const (
	Begin   = "begin"
	OK      = "ok"
	Failed  = "failed"
	Skipped = "skipped"
)

// Report is the body of POST report: one step of the node's way up, or of a
// command on it.
type Report struct {
	Step    string `json:"step"`
	State   string `json:"state"`
	Message string `json:"message,omitempty"`
	// Uptime is in seconds since power-on.
	Uptime float64 `json:"uptime,omitempty"`
	Bytes  int64   `json:"bytes,omitempty"`
}

// Up is the body of POST up and POST heartbeat.
type Up struct {
	Digest string  `json:"digest,omitempty"`
	Kernel string  `json:"kernel,omitempty"`
	Root   string  `json:"root,omitempty"`
	Uptime float64 `json:"uptime,omitempty"`
	// All in bytes: what the bundle and memory file systems take, all memory
	// and what of it is free for programs.
	BundleBytes int64 `json:"bundleBytes,omitempty"`
	TmpfsBytes  int64 `json:"tmpfsBytes,omitempty"`
	MemTotal    int64 `json:"memTotal,omitempty"`
	MemFree     int64 `json:"memFree,omitempty"`
}

// Beat is the answer to up and heartbeat: how many seconds to the next.
type Beat struct {
	Interval int `json:"interval"`
}

// Job is the body of POST job: the window of time that a name stands for, to
// learn what is read in it. State is Begin or "end".
type Job struct {
	Name  string `json:"name"`
	State string `json:"state"`
	// Exit is the command's exit code, with "end".
	Exit int `json:"exit"`
}

// End is the state of a job that ended.
const End = "end"

// Modes of a lease.
const (
	Write = "write"
	Read  = "read"
)

// LeaseRequest is the body of POST leases. Paths are absolute, as the node
// sees them: below its persist, shared or copy-on-write mounts.
type LeaseRequest struct {
	Paths []string `json:"paths"`
	Mode  string   `json:"mode"`
	// TTL is in seconds; a renewal begins it again.
	TTL int `json:"ttl"`
}

// Bounds of leases.
const (
	MaxPaths   = 64
	MaxTTL     = 24 * time.Hour
	MinTTL     = 5 * time.Second
	DefaultTTL = 2 * time.Minute
)

// Lease is a region that is leased: the answer to POST, PUT and GET of a lease.
type Lease struct {
	ID      string    `json:"id"`
	Node    string    `json:"node"`
	Paths   []string  `json:"paths"`
	Mode    string    `json:"mode"`
	Expires time.Time `json:"expires"`
	// Expired is set for one whose time is over and that nobody else took.
	Expired bool `json:"expired,omitempty"`
	// Version is a digest of the region's state.
	Version string `json:"version,omitempty"`
	// Bytes and Files are what the region holds: the bodies of its files, and
	// how many entries.
	Bytes int64 `json:"bytes"`
	Files int64 `json:"files"`
}

// Leases is the answer to GET leases.
type Leases struct {
	Leases []Lease `json:"leases"`
}

// Conflict is the answer with status 409: who has the region until when, or,
// for a commit, where the changes were kept aside.
type Conflict struct {
	Error   string    `json:"error"`
	Holder  string    `json:"holder,omitempty"`
	Expires time.Time `json:"expires,omitzero"`
	Kept    string    `json:"kept,omitempty"`
}

// Problem is the answer with any other status that is an error.
type Problem struct {
	Error string `json:"error"`
}

// Committed is the answer to a commit that was done.
type Committed struct {
	Version string `json:"version"`
}

// Keys of PAX records in a tar of changes. An entry with PAXRemoved is named
// like a whiteout (image-spec, layer.md, "Whiteouts") and takes the path away;
// one with PAXMeta has no body and leaves the file's bytes as they are.
const (
	PAXRemoved = "RHIZOME.removed"
	PAXMeta    = "RHIZOME.meta"
)
