package recipes

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// word is a text with its place.
type word struct {
	text string
	pos  Pos
}

// nodeDraft is an element of "nodes" as it is written: its name may stand for
// many nodes, and its profiles are not laid under it.
type nodeDraft struct {
	Node
	name      word
	macs      []macItem
	addresses []word
	profiles  []word
}

// macItem is one element of "mac": a word, or a list of them for one node.
type macItem struct {
	words  []word
	nested bool
}

// profile is a named nodeDraft without identity.
type profile struct {
	nodeDraft
	name word
}

// nodeKeys is the table of an element of "nodes".
func nodeKeys() mapping[nodeDraft] {
	m := profileKeys()
	m.title = "a node"
	m.intro = "A node has the keys of a profile, and those that say who it is. A name such as `n[1-64]` stands for many nodes; `mac` and `address` then give as many."
	m.keys = append([]key[nodeDraft]{
		{name: "name", shape: "host name, or a range", required: true, example: "name: n[1-64]", doc: "RFC 1123, one label. Zeros in front are kept: `n[01-64]`.",
			set: func(d *decoder, n *yaml.Node, into *nodeDraft) {
				if s, ok := d.scalar(n); ok {
					into.name = word{s, d.pos(n)}
				}
			}},
		{name: "mac", shape: "MAC, range or list", required: true, example: "mac: 52:54:00:77:00:[01-40]", doc: "The network cards' addresses. For one node: one, or a list. For a range of nodes: one range (hexadecimal, so 01-40 are 64), a list with an element per node (each a MAC or a list of them), or a list of ranges that each cover all nodes.",
			set: readMACs},
		{name: "address", shape: "IPv4 address, range or list", required: true, example: "address: 10.77.0.[11-74]", doc: "The node's fixed address.",
			set: func(d *decoder, n *yaml.Node, into *nodeDraft) {
				into.addresses = d.words(n, maxNames)
			}},
	}, m.keys...)
	return m
}

// profileKeys is the table of a profile, which is also a node's but for who it is.
func profileKeys() mapping[nodeDraft] {
	return mapping[nodeDraft]{
		title: "a profile",
		intro: "Profiles are laid under a node in the order named, each over those it names itself: a text replaces, a list is appended, a mapping is merged by its keys.",
		pos:   func(n *nodeDraft) *Pos { return &n.Pos },
		keys: []key[nodeDraft]{
			{name: "profile", shape: "name, or a list of names", example: "profile: compute", doc: "The profiles this one inherits.",
				set: func(d *decoder, n *yaml.Node, into *nodeDraft) {
					into.profiles = d.words(n, maxProfiles)
				}},
			{name: "kernel", shape: "name", def: "the only one", example: "kernel: default", doc: "The kernel it boots.",
				set: text(func(n *nodeDraft) *string { return &n.Kernel })},
			{name: "root", shape: "`nfs`, `precache` or `ram`", def: "nfs", example: "root: nfs", doc: "Read-only over NFS; the same with the hot part in memory; or wholly in memory.",
				set: oneOf(func(n *nodeDraft) *string { return &n.Root }, "nfs", "precache", "ram")},
			{name: "etc", shape: "`volatile`, `persistent` or `none`", def: "none", example: "etc: volatile", doc: "Whether /etc can be written: in memory, kept at the server, or not.",
				set: oneOf(func(n *nodeDraft) *string { return &n.Etc }, "volatile", "persistent", "none")},
			{name: "persist", shape: "absolute path, or `none`", def: "none", example: "persist: /persist", doc: "Where the node's own writable export is mounted.",
				set: text(func(n *nodeDraft) *string { return &n.Persist })},
			{name: "shared", shape: "absolute path, or `none`", def: "none", example: "shared: /shared", doc: "Where the cluster's own writable export, one for all its nodes, is mounted.",
				set: text(func(n *nodeDraft) *string { return &n.Shared })},
			{name: "persistQuota", shape: "size", def: "0, which is no limit", example: "persistQuota: 10G", doc: "What each of the node's writable exports (`persist`, and `etc: persistent`) may take on the server's disk; beyond it writes get EDQUOT.",
				set: bytesSize(func(n *nodeDraft) *int64 { return &n.PersistQuota })},
			{name: "persistDevices", shape: "`true` or `false`", def: "false", example: "persistDevices: true", doc: "Whether the node's root may make device nodes in `persist`. On the server they lie in a folder that nobody but root can enter.",
				set: boolean(func(n *nodeDraft) *bool { return &n.PersistDevices })},
			{name: "cmdline", shape: "text, or a list", def: "none", example: "cmdline: [console=ttyS1, quiet]", doc: "Linux: added to the kernel's command line, after that of profiles.",
				set: cmdline},
			{name: "fstab", shape: "list of lines, or a block of text", def: "[]", example: "fstab: [\"10.77.0.1:/home /home nfs rw,nodev 0 0\"]", doc: "Lines for /etc/fstab beside the made ones.",
				set: fstab},
			{name: "rc.conf", shape: "mapping", example: "rc.conf: {sshd_enable: \"YES\"}", doc: "FreeBSD: rc.conf(5) variables.",
				set: pairs(func(n *nodeDraft) *[]KV { return &n.RCConf })},
			{name: "loader.conf", shape: "mapping", example: "loader.conf: {autoboot_delay: \"1\"}", doc: "FreeBSD: loader.conf(5) variables.",
				set: pairs(func(n *nodeDraft) *[]KV { return &n.LoaderConf })},
			{name: "kenv", shape: "mapping", example: "kenv: {nfs.read_size: \"8192\"}", doc: "FreeBSD: kernel environment, sent by DHCP before the loader reads a file.",
				set: pairs(func(n *nodeDraft) *[]KV { return &n.Kenv })},
			{name: "tmpfs", shape: "mapping of mount points to sizes", def: "see \"What every node gets\"", example: "tmpfs: {/tmp: 256M, /srv/scratch: \"\"}", doc: "Memory file systems. An empty size is the system's default; `none` takes a default one away.",
				set: pairs(func(n *nodeDraft) *[]KV { return &n.Tmpfs })},
			{name: "files", shape: "mapping, folder or a list of them", example: "files: {from: nodes/n1/}", doc: "Folders copied into the node's own layer; the keys are those of a files stage.",
				set: list(filesKeys(), func(n *nodeDraft) *[]Files { return &n.Files })},
			{name: "secrets", shape: "list of kinds or mappings", example: "secrets: [ssh-host-keys]", doc: "Files that lie in no layer: serve lays them into the node's view.",
				set: list(secretKeys(), func(n *nodeDraft) *[]Secret { return &n.Secrets })},
		},
	}
}

func secretKeys() mapping[Secret] {
	return mapping[Secret]{
		title: "a secret", short: "kind",
		intro: "`ssh-host-keys` are made once per node; a `cluster-key` is 1024 random bytes, made once per cluster and path, the same on every node; a `file` is put into the store by the operator (see store.md).",
		pos:   func(s *Secret) *Pos { return &s.Pos },
		keys: []key[Secret]{
			{name: "kind", shape: "`ssh-host-keys`, `cluster-key` or `file`", required: true, example: "kind: file", doc: "What it is.",
				set: oneOf(func(s *Secret) *string { return &s.Kind }, "ssh-host-keys", "cluster-key", "file")},
			{name: "path", shape: "absolute path", def: "/etc/ssh for host keys", example: "path: /etc/munge/munge.key", doc: "Where it appears on the node.",
				set: text(func(s *Secret) *string { return &s.Path })},
			{name: "mode", shape: "octal mode", def: "0600", example: "mode: \"0400\"", doc: "Permission bits; those of host keys are OpenSSH's own.",
				set: parsed(func(s *Secret) *uint32 { return &s.Mode }, octal, "write it as \"0400\"")},
			{name: "owner", shape: "`uid:gid`", def: "0:0", example: "owner: \"64030:64030\"", doc: "The owner, as numbers.",
				set: func(d *decoder, n *yaml.Node, into *Secret) {
					var id [2]uint32
					parsed(func(*Secret) *[2]uint32 { return &id }, owner, "write it as \"0:0\"")(d, n, into)
					into.UID, into.GID = id[0], id[1]
				}},
		},
	}
}

// owner reads "uid:gid", both numbers: names would mean what the build host's
// own password file says.
func owner(s string) (id [2]uint32, err error) {
	u, g, ok := strings.Cut(s, ":")
	uid, errU := strconv.ParseUint(u, 10, 32)
	gid, errG := strconv.ParseUint(g, 10, 32)
	if !ok || errU != nil || errG != nil {
		return id, fmt.Errorf("%s is no owner of the form uid:gid", clip(s))
	}
	return [2]uint32{uint32(uid), uint32(gid)}, nil
}

// words reads a list of at most so many texts with their places.
func (d *decoder) words(n *yaml.Node, most int) []word {
	var out []word
	for _, item := range d.items(n) {
		if len(out) == most {
			d.fail(item, fmt.Sprintf("%q has more than %d elements", d.key, most), "")
			break
		}
		if s, ok := d.scalar(item); ok {
			out = append(out, word{s, d.pos(item)})
		}
	}
	return out
}

func readMACs(d *decoder, n *yaml.Node, into *nodeDraft) {
	for _, item := range d.items(n) {
		m := macItem{nested: item.Kind == yaml.SequenceNode}
		m.words = d.words(item, maxNames)
		into.macs = append(into.macs, m)
	}
}

func cmdline(d *decoder, n *yaml.Node, into *nodeDraft) {
	var words []string
	for _, item := range d.items(n) {
		if s, ok := d.scalar(item); ok {
			words = append(words, strings.Fields(s)...)
		}
	}
	into.Cmdline = strings.Join(words, " ")
}

// fstab takes a list of lines, or a block of text whose lines have a place of
// their own too.
func fstab(d *decoder, n *yaml.Node, into *nodeDraft) {
	if n.Kind == yaml.ScalarNode && n.Style&(yaml.LiteralStyle) != 0 {
		for i, l := range strings.Split(n.Value, "\n") {
			if strings.TrimSpace(l) != "" {
				into.Fstab = append(into.Fstab, Line{l, Pos{File: d.file, Line: n.Line + 1 + i, Column: 1}})
			}
		}
		return
	}
	for _, item := range d.items(n) {
		if s, ok := d.scalar(item); ok {
			into.Fstab = append(into.Fstab, Line{s, d.pos(item)})
		}
	}
}
