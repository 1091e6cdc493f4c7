// Package imagefmt is the part of an image's config that building writes and
// serving reads: who a node is, how it boots, what network it lives in. It is
// the only thing, beside the layer format, that both sides share.
//
// A cluster image is an OCI index with one image manifest per node. The
// index's descriptors carry AnnotationNode alone; the rest stands in each
// config blob as labels (image-spec, config.md, "Labels") whose names begin
// with Prefix and whose values are JSON.
package imagefmt

import (
	"encoding/json"
	"fmt"
	"net/netip"
)

// Prefix begins every label and annotation that rhizome writes.
const Prefix = "io.rhizome."

// Annotations of descriptors and manifests.
const (
	// AnnotationNode names the node on a manifest's descriptor in the index.
	AnnotationNode = Prefix + "node"
	// AnnotationRole says what a layer is: "base", "kernel", "files", "node"...
	AnnotationRole = Prefix + "layer.role"
	// RoleBundle is the role of the layer that nodes hold in memory.
	RoleBundle = "precache"
	// AnnotationStage names the step of the recipe that made a layer, and
	// AnnotationSource the place in the recipe ("web.yaml:12").
	AnnotationStage  = Prefix + "layer.stage"
	AnnotationSource = Prefix + "layer.source"
	// AnnotationDelta says that a layer holds what changed on the layers of
	// the same step below it: "1" for the first such layer, and so on.
	AnnotationDelta = Prefix + "layer.delta"
	// AnnotationMoved says that bodies of a layer's files lie in a precache
	// bundle above it; its value is the bundle's DiffID.
	AnnotationMoved = Prefix + "layer.moved"
	// AnnotationFirstSize and AnnotationFirstDigest are of a bundle that has a part
	// which a boot waits for: so many bytes of the blob from its start, whole frames
	// with whole entries of the tar, and their sha256, so that the part can be
	// trusted before the rest is there.
	AnnotationFirstSize   = Prefix + "layer.first.size"
	AnnotationFirstDigest = Prefix + "layer.first.digest"
)

// Labels of the config blob.
const (
	// LabelVersion holds the version of this format; "1" now.
	LabelVersion = Prefix + "version"
	// LabelCluster holds a Cluster, LabelNode a Node.
	LabelCluster = Prefix + "cluster"
	LabelNode    = Prefix + "node"
)

// Version is the version of the labels this package writes and reads.
const Version = "1"

// Cluster is what all nodes of an image share.
type Cluster struct {
	Name    string  `json:"name"`
	Network Network `json:"network"`
}

// Network is the inner network that serve answers on.
type Network struct {
	Subnet  netip.Prefix `json:"subnet"`
	Server  netip.Addr   `json:"server"`
	Gateway netip.Addr   `json:"gateway,omitzero"`
	DNS     []netip.Addr `json:"dns,omitempty"`
	Domain  string       `json:"domain,omitempty"`
	// MTU in bytes; 0 is unset.
	MTU int `json:"mtu,omitempty"`
	// LeaseSeconds is the lease's length; 0 means serve's default.
	LeaseSeconds int `json:"leaseSeconds,omitempty"`
}

// Node is one machine: its identity and its way to boot.
type Node struct {
	Name string `json:"name"`
	// MACs are lower-case with colons.
	MACs    []string   `json:"macs"`
	Address netip.Addr `json:"address"`
	// Boot is the boot spec.
	Boot Boot `json:"boot"`
	// Root is the root mode: "nfs", "precache" or "ram".
	Root string `json:"root"`
	// Persist is where the node's writable export is mounted; empty for none.
	Persist string `json:"persist,omitempty"`
	// PersistQuota is how many bytes each of the node's writable exports may
	// take; 0 is as many as there are.
	PersistQuota int64 `json:"persistQuota,omitempty"`
	// PersistDevices lets the node's root make device nodes in Persist.
	PersistDevices bool `json:"persistDevices,omitempty"`
	// Shared is where the cluster's own writable export, one for all nodes, is
	// mounted; empty for nowhere.
	Shared string `json:"shared,omitempty"`
	// CopyOnWrite lists absolute paths that are copy-on-write exports.
	CopyOnWrite []string `json:"copyOnWrite,omitempty"`
	// Secrets are laid over the node's view by serve.
	Secrets []Secret `json:"secrets,omitempty"`
	// Bundle is the DiffID of the layer that is the precache bundle.
	Bundle string `json:"bundle,omitempty"`
	// BundleFolders are absolute paths that the node lays the bundle over: on
	// FreeBSD whole folders, hottest first; on Linux the topmost folders that
	// hold any of it.
	BundleFolders []string `json:"bundleFolders,omitempty"`
	// BundlePrivate says that some of the bundle is not readable by everybody:
	// it is given to reserved ports alone, like any other layer.
	BundlePrivate bool `json:"bundlePrivate,omitempty"`
}

// Boot is a boot spec: absolute paths in the node's merged root, and the
// parameters that go with them. Only files named here are ever given out over
// TFTP or HTTP.
type Boot struct {
	// Kernel and Initrd are what iPXE, pxelinux and UEFI HTTP fetch (Linux).
	Kernel string `json:"kernel,omitempty"`
	Initrd string `json:"initrd,omitempty"`
	// Cmdline is the kernel's command line. "{server}", "{address}", "{name}"
	// and "{digest}" are replaced by serve.
	Cmdline string `json:"cmdline,omitempty"`
	// BIOS, UEFI and UEFIArm64 are first-stage boot programs by firmware:
	// pxeboot or undionly.kpxe, loader.efi or ipxe.efi.
	BIOS      string `json:"bios,omitempty"`
	UEFI      string `json:"uefi,omitempty"`
	UEFIArm64 string `json:"uefiArm64,omitempty"`
	// Files are further paths that may be fetched: pxelinux's modules.
	Files []string `json:"files,omitempty"`
	// Kenv are "name=value" pairs for FreeBSD's loader (DHCP options 250-254).
	Kenv []string `json:"kenv,omitempty"`
	// OS is "linux" or "freebsd".
	OS string `json:"os"`
}

// Secret is a file that serve lays over the node's view.
type Secret struct {
	Kind string `json:"kind"`
	Path string `json:"path"`
	Mode uint32 `json:"mode,omitempty"`
	UID  uint32 `json:"uid,omitempty"`
	GID  uint32 `json:"gid,omitempty"`
}

// Labels turns the two parts into config labels. The same values always give
// the same bytes.
func Labels(c Cluster, n Node) (map[string]string, error) {
	cluster, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("writing the cluster %q into an image config: %w", c.Name, err)
	}
	node, err := json.Marshal(n)
	if err != nil {
		return nil, fmt.Errorf("writing the node %q into an image config: %w", n.Name, err)
	}
	return map[string]string{LabelVersion: Version, LabelCluster: string(cluster), LabelNode: string(node)}, nil
}

// Parse reads what Labels wrote. It refuses a version it does not know.
func Parse(labels map[string]string) (Cluster, Node, error) {
	var c Cluster
	var n Node
	if v := labels[LabelVersion]; v != Version {
		return c, n, fmt.Errorf("the image config's label %s is %q; this version of rhizome reads %q: was the image built by rhizome?", LabelVersion, v, Version)
	}
	if err := json.Unmarshal([]byte(labels[LabelCluster]), &c); err != nil {
		return c, n, fmt.Errorf("reading the image config's label %s: %w", LabelCluster, err)
	}
	if err := json.Unmarshal([]byte(labels[LabelNode]), &n); err != nil {
		return c, n, fmt.Errorf("reading the image config's label %s: %w", LabelNode, err)
	}
	return c, n, nil
}
