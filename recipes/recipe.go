// Package recipes reads the YAML in which a cluster is described: strictly,
// with a line and a column in every finding, and without any side effect.
//
// A recipe goes through three steps. Parse turns YAML into a Recipe and
// reports every unknown key, repeated key and value of the wrong shape. Expand,
// part of parsing, lays profiles under nodes and unrolls node ranges. Validate
// looks at the whole and reports all findings at once.
package recipes

import (
	"io/fs"
	"net/netip"
	"time"
)

// Pos is a place in a recipe file. Line and Column count from 1; a zero Pos
// means that the recipe does not say the thing at all.
type Pos struct {
	File   string
	Line   int
	Column int
}

// Recipe is a whole recipe after expansion: profiles are laid under the nodes
// and ranges are unrolled, so every node stands here by itself.
type Recipe struct {
	// File is the path the recipe was read from, or "NAME.yaml" if it is one
	// of the shipped ones; Dir is the folder its relative paths start at.
	File string
	Dir  string
	// FS is the folder that the recipe's relative paths start at: Dir on the
	// disk, which nothing can be read out of, or the folder of the shipped
	// recipes.
	FS fs.FS

	Version int
	Name    string
	// OS is "linux" or "freebsd", Arch "amd64" or "arm64", as OCI names them.
	OS   string
	Arch string
	// Epoch is every file's modification time and the image's date.
	Epoch time.Time
	// Parent is the index digest of an earlier version, on which changed
	// layers become delta layers; empty for whole layers.
	Parent string

	Source   Source
	Stages   []Stage
	Precache *Precache
	Network  Network
	Nodes    []Node

	Pos Pos
	places
}

// Source says where the base root comes from. Exactly one field is set.
type Source struct {
	Src    *Src
	Dists  *Dists
	OCI    *OCI
	Debian *Debian
	Pos    Pos
	places
}

// Src is a FreeBSD source tree: a directory, or a git repository at a commit.
type Src struct {
	Dir    string
	Git    string
	Commit string
	// Toolchain is the folder of clang, for a host that is not FreeBSD.
	Toolchain string
	Pos       Pos
	places
}

// Dists is a folder or URL of FreeBSD release sets with their MANIFEST.
type Dists struct {
	From string
	Sets []string
	// Manifest is the sha256 of the MANIFEST file itself, which is the root
	// of trust for the sets it lists.
	Manifest string
	Pos      Pos
	places
}

// OCI is a base image in a registry or the store, by digest.
type OCI struct {
	Ref string
	Pos Pos
	places
}

// Debian is a root made by mmdebstrap.
type Debian struct {
	Suite      string
	Components []string
	Packages   []string
	// Variant is mmdebstrap's --variant; "minbase" unless named.
	Variant string
	// Mirror is an apt URI; the system's own apt configuration unless named.
	Mirror  string
	Keyring string
	Pos     Pos
	places
}

// Stage is one element of the recipe's "stages" list. Exactly one of the
// pointers is set, the one that Kind names.
type Stage struct {
	Kind string
	Pos  Pos
	// Nodes limits the stage to nodes whose name the glob or range matches;
	// empty means all nodes.
	Nodes string

	World        *World
	Distribution *Distribution
	Kernel       *Kernel
	Packages     *Packages
	Files        *Files
	Script       *Script
	Media        *Media
	Early        *Early
	places
}

// World is buildworld and installworld.
type World struct {
	// Without and With become WITHOUT_x and WITH_x in src.conf.
	Without, With []string
}

// Distribution is make distribution.
type Distribution struct{}

// Kernel is one kernel with its modules, a layer of its own. Which fields
// count depends on the recipe's OS.
type Kernel struct {
	// Name is what nodes choose it by; Config's name, or "default".
	Name string

	// FreeBSD: an existing configuration, or a new one that includes Include.
	Config                                 string
	Include                                string
	Options, NoOptions, Devices, NoDevices []string

	// Debian: packages that bring the kernel ("linux-image-amd64" unless
	// named) and modules that its initramfs carries besides the shipped list.
	// FreeBSD: Modules are the folders of sys/modules to build; none means all.
	Packages []string
	Modules  []string
	places
}

// Packages are added to the root with the system's own package manager.
type Packages struct {
	Names []string
	// Repository is the package repository's URL or folder, for pkg.
	Repository string
	places
}

// Files copies a folder of the recipe over the root.
type Files struct {
	From string
	// Template expands files that end in ".tmpl".
	Template bool
	// Owners maps a path glob to "uid:gid"; 0:0 unless named.
	Owners map[string]string
	// Modes maps a path glob to octal permission bits.
	Modes map[string]string
	Pos   Pos
	places
}

// Script is a command that runs over the tree in a sandbox without network.
type Script struct {
	Run string
	// Inputs are files or folders of the recipe the command may read; they
	// are part of the stage's key.
	Inputs []string
	places
}

// Media adds boot programs to the root under /boot/rhizome: iPXE for BIOS and
// UEFI firmware, pxelinux.
type Media struct {
	IPXE     bool
	PXELinux bool
}

// Early puts the early script and rhizome-node into the root: what lays memory
// file systems, mounts writable exports and fills memory before the system's own
// init starts.
type Early struct{}

// Precache names what a node reads into memory at boot.
type Precache struct {
	Paths []string
	// Learned is a file of paths, hottest first, as "precache learn" writes.
	Learned string
	// Limit caps the bundle in bytes; 0 means no cap.
	Limit int64
	// First is how many bytes of it, from its front, a boot waits for on a link of
	// any speed; 0 means none in particular.
	First int64
	Pos   Pos
	places
}

// Network is the inner network that serve answers on.
type Network struct {
	Subnet  netip.Prefix
	Server  netip.Addr
	Gateway netip.Addr
	DNS     []netip.Addr
	Domain  string
	// MTU in bytes; 0 leaves it to the nodes.
	MTU int
	// Lease is how long an address is given for; 0 means the default.
	Lease time.Duration
	Pos   Pos
	places
}

// Node is one diskless machine.
type Node struct {
	Name string
	// MACs are lower-case, colon-separated; any of them is this node.
	MACs    []string
	Address netip.Addr
	Kernel  string
	// Root is "nfs", "precache" or "ram".
	Root string
	// Etc is "", "volatile" or "persistent".
	Etc string
	// Persist gives the node a writable export at this path; empty for none.
	Persist string
	// PersistQuota is how many bytes each of the node's writable exports may
	// take on the server's disk; 0 is no limit.
	PersistQuota int64
	// PersistDevices lets the node's root make device nodes in Persist.
	PersistDevices bool
	// Shared is where the cluster's own writable export, one for all its
	// nodes, is mounted; empty for nowhere.
	Shared string
	// Early says that the node's root gets the early stage. No key of a node
	// sets it: the recipe's stages do.
	Early bool
	// Cmdline is added to the kernel's command line (Linux).
	Cmdline string
	// Fstab are lines the user wrote; checked, and added to the made ones.
	Fstab []Line
	// RCConf are rc.conf variables, LoaderConf loader.conf variables and Kenv
	// kernel environment sent by DHCP (FreeBSD).
	RCConf, LoaderConf, Kenv []KV
	// Tmpfs maps a mount point to its size ("64M"; "" for the default).
	Tmpfs   []KV
	Files   []Files
	Secrets []Secret
	Pos     Pos
	// MACPos and AddressPos are where the recipe names them.
	MACPos, AddressPos Pos
	places
}

// Line is one line of text with the place it was written at.
type Line struct {
	Text string
	Pos  Pos
}

// KV is a named value with the place it was written at. Order is kept.
type KV struct {
	Key, Value string
	Pos        Pos
}

// Secret is a file that lies outside every layer: serve makes it, or the
// operator puts it into the store, and it is laid into one node's view.
type Secret struct {
	// Kind is "ssh-host-keys" (made once per node), "cluster-key" (made once per
	// cluster) or "file" (given).
	Kind string
	// Path is where it appears in the node's root ("/etc/ssh" for host keys).
	Path string
	// Mode are the permission bits; UID and GID the owner.
	Mode uint32
	UID  uint32
	GID  uint32
	Pos  Pos
	places
}
