package recipes

import (
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"strings"
)

var (
	shellName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	kenvName  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.%:-]*$`)
)

// maxKenv is the longest "name=value" that one DHCP option can carry: an
// option's length is one byte (RFC 2132, section 2).
const maxKenv = 255

// maxCmdline is COMMAND_LINE_SIZE of Linux on amd64 less what rhizome adds.
const maxCmdline = 1536

// maxCards bounds the MACs of one node.
const maxCards = 16

func (c *checker) nodes() {
	r := c.r
	c.clashes()
	c.kernels()
	seen := map[Pos]bool{}
	for i := range r.Nodes {
		n := &r.Nodes[i]
		c.nodeIdentity(n)
		// The nodes of a range share everything else.
		if !seen[n.Pos] || n.Pos.Line == 0 {
			seen[n.Pos] = true
			c.node(n)
		}
	}
}

// clashes reports names, MACs and addresses that two nodes claim.
func (c *checker) clashes() {
	type claim struct {
		node string
		at   Pos
	}
	names, macs, addrs := map[string]claim{}, map[string]claim{}, map[netip.Addr]claim{}
	for i := range c.r.Nodes {
		n := &c.r.Nodes[i]
		at := n.at("name", n.Pos)
		if first, ok := names[n.Name]; ok {
			c.fail(at, "give one of them another name", "the node %q is described twice; first at %s", n.Name, first.at)
		} else {
			names[n.Name] = claim{n.Name, at}
		}
		for _, m := range n.MACs {
			if first, ok := macs[m]; ok {
				c.fail(n.MACPos, "a card is in one node", "the MAC %s of node %q is node %q's already, at %s", m, n.Name, first.node, first.at)
				continue
			}
			macs[m] = claim{n.Name, n.MACPos}
		}
		if first, ok := addrs[n.Address]; ok {
			c.fail(n.AddressPos, "give each node an address of its own", "the address %s of node %q is node %q's already, at %s", n.Address, n.Name, first.node, first.at)
			continue
		}
		addrs[n.Address] = claim{n.Name, n.AddressPos}
	}
}

// kernels checks that every node has exactly one kernel to boot.
func (c *checker) kernels() {
	given := map[string]func(string) bool{}
	var names []string
	for _, s := range c.r.Stages {
		if s.Kernel == nil {
			continue
		}
		match := func(string) bool { return true }
		if set, err := ParseNodeSet(s.Nodes); s.Nodes != "" && err == nil {
			match = set.Match
		}
		names, given[s.Kernel.Name] = append(names, s.Kernel.Name), match
	}
	remedy := "the kernels are " + strings.Join(names, ", ")
	if len(names) == 0 {
		remedy = "remove it: the nodes boot the kernel that the source brings"
	}
	for i := range c.r.Nodes {
		n := &c.r.Nodes[i]
		at := n.at("kernel", n.Pos)
		match, ok := given[n.Kernel]
		switch {
		case n.Kernel == "" && len(names) == 0:
		case n.Kernel == "":
			c.fail(at, remedy, "the node %q does not say which kernel it boots", n.Name)
		case !ok:
			c.fail(at, remedy, "no stage makes the kernel %s of node %q", clip(n.Kernel), n.Name)
		case !match(n.Name):
			c.fail(at, "widen the stage's \"nodes\"", "the stage of kernel %q leaves the node %q out", n.Kernel, n.Name)
		}
	}
}

func (c *checker) nodeIdentity(n *Node) {
	if !hostLabel.MatchString(n.Name) {
		c.fail(n.at("name", n.Pos), "use lower case letters, digits and \"-\" in the middle, at most 63 (RFC 1123); the domain stands in \"network\"", "%s is no host name", clip(n.Name))
	}
	if len(n.MACs) > maxCards {
		c.fail(n.MACPos, "is the name meant to be a range?", "the node %q has %d MACs", n.Name, len(n.MACs))
	}
	if w := c.r.Network; w.Subnet.IsValid() {
		c.hostIn(n.AddressPos, fmt.Sprintf("node %q: the address", n.Name), n.Address)
		switch n.Address {
		case w.Server:
			c.fail(n.AddressPos, "choose another", "node %q: the address %s is the server's own", n.Name, n.Address)
		case w.Gateway:
			c.fail(n.AddressPos, "choose another", "node %q: the address %s is the gateway's", n.Name, n.Address)
		}
	}
}

// node checks what the nodes of one range share.
func (c *checker) node(n *Node) {
	if n.Root == "precache" && c.r.Precache == nil {
		c.fail(n.at("root", n.Pos), "add precache: {paths: [/usr/bin]} to the recipe", "the root mode is \"precache\", but the recipe says not what to hold")
	}
	c.writable(n)
	c.early(n)
	c.foreignKeys(n)
	if len(n.Cmdline) > maxCmdline || strings.ContainsAny(n.Cmdline, "\x00\n") {
		c.fail(n.at("cmdline", n.Pos), "", "the command line has %d bytes; with what rhizome adds it would not fit", len(n.Cmdline))
	}
	c.mounts(n)
	c.variables(n)
	for i := range n.Files {
		c.files(&n.Files[i])
	}
	for i := range n.Secrets {
		c.secret(&n.Secrets[i])
	}
}

// minQuota is the smallest quota in bytes: what the records of a
// copy-on-write export take before anything is written, with room to spare.
const minQuota = 1 << 20

// writable checks where a node's writable exports are, and that what is said
// of them has one to be about.
func (c *checker) writable(n *Node) {
	if n.Persist != "" && (!absolute(n.Persist) || path.Clean(n.Persist) == "/") {
		c.fail(n.at("persist", n.Pos), "write it as /persist", "%s cannot be where the writable export is mounted", clip(n.Persist))
	}
	if n.Shared != "" && (!absolute(n.Shared) || path.Clean(n.Shared) == "/" || path.Clean(n.Shared) == path.Clean(n.Persist)) {
		c.fail(n.at("shared", n.Pos), "write it as /shared", "%s cannot be where the cluster's writable export is mounted", clip(n.Shared))
	}
	quota, devices := n.at("persistQuota", n.Pos), n.at("persistDevices", n.Pos)
	switch {
	case n.PersistQuota == 0:
	case n.Persist == "" && n.Etc != "persistent":
		c.fail(quota, "add persist: /persist, or write persistQuota: 0", "the quota bounds nothing: the node has no writable export")
	case n.PersistQuota < minQuota:
		c.fail(quota, "write at least 1M; a number alone is bytes", "a quota of %d bytes holds no file", n.PersistQuota)
	}
	if n.PersistDevices && n.Persist == "" {
		c.fail(devices, "add persist: /persist, or write persistDevices: false", "there is nowhere to make device nodes: the node has no persist")
	}
}

// early refuses what only the early script makes true where the node does not
// have it: the key would be silently without effect.
func (c *checker) early(n *Node) {
	if n.Early {
		return
	}
	const remedy = "add \"- early: {}\" to the stages"
	if n.Root == "precache" || n.Root == "ram" {
		c.fail(n.at("root", n.Pos), remedy, "the root mode %q needs the stage \"early\", and the node %q does not have it", n.Root, n.Name)
	}
	if n.Etc != "" {
		c.fail(n.at("etc", n.Pos), remedy, "etc: %s needs the stage \"early\", and the node %q does not have it", n.Etc, n.Name)
	}
	if n.Shared != "" {
		c.fail(n.at("shared", n.Pos), remedy, "shared: %s needs the stage \"early\", and the node %q does not have it", clip(n.Shared), n.Name)
	}
	if n.Persist != "" {
		c.warn(n.at("persist", n.Pos), remedy, "nothing mounts %s: the node %q does not have the stage \"early\"", clip(n.Persist), n.Name)
	}
}

// foreignKeys refuses keys of the other system: they would do nothing.
func (c *checker) foreignKeys(n *Node) {
	foreign := map[string][]string{"linux": {"rc.conf", "loader.conf", "kenv"}, "freebsd": {"cmdline"}}[c.r.OS]
	for _, key := range foreign {
		if at, ok := n.of[key]; ok {
			c.fail(at, "remove it", "%q means nothing where the os is %q", key, c.r.OS)
		}
	}
}

func (c *checker) mounts(n *Node) {
	have := map[string]Pos{}
	for _, kv := range n.Tmpfs {
		at := kv.Pos
		if !absolute(kv.Key) || path.Clean(kv.Key) == "/" || strings.ContainsAny(kv.Key, " \t") {
			c.fail(at, "write it as /scratch", "%s cannot be the mount point of a tmpfs", clip(kv.Key))
			continue
		}
		if _, err := ParseSize(kv.Value); err != nil && kv.Value != "" && kv.Value != "none" {
			c.fail(at, "write 64M, \"\" for the system's default, or none", "the tmpfs %s: %v", kv.Key, err)
		}
		if kv.Value != "none" {
			have[path.Clean(kv.Key)] = at
		}
	}
	if at, ok := have[path.Clean(n.Persist)]; ok && n.Persist != "" {
		c.fail(at, "remove one of the two", "%s is both a tmpfs and the writable export", clip(n.Persist))
	}
	for _, l := range n.Fstab {
		c.fstabLine(l, have)
	}
}

func (c *checker) variables(n *Node) {
	for _, kv := range n.RCConf {
		if !shellName.MatchString(kv.Key) {
			c.fail(kv.Pos, "it is a shell variable: letters, digits and \"_\"", "%s is no rc.conf variable", clip(kv.Key))
		}
		c.oneLine(kv)
	}
	for _, kv := range n.LoaderConf {
		if !kenvName.MatchString(kv.Key) {
			c.fail(kv.Pos, "see loader.conf(5)", "%s is no loader.conf variable", clip(kv.Key))
		}
		if strings.ContainsRune(kv.Value, '"') {
			c.fail(kv.Pos, "loader.conf(5) has no way to quote it", "the value of %s holds a double quote", clip(kv.Key))
		}
		c.oneLine(kv)
	}
	for _, kv := range n.Kenv {
		switch {
		case !kenvName.MatchString(kv.Key):
			c.fail(kv.Pos, "see kenv(1)", "%s is no kernel environment variable", clip(kv.Key))
		case len(kv.Key)+1+len(kv.Value) > maxKenv:
			c.fail(kv.Pos, "put it into \"loader.conf\"", "%s does not fit into a DHCP option of %d bytes", clip(kv.Key), maxKenv)
		}
		c.oneLine(kv)
	}
}

func (c *checker) oneLine(kv KV) {
	if strings.ContainsAny(kv.Value, "\n\r\x00") {
		c.fail(kv.Pos, "write it in one line", "the value of %s is more than one line", clip(kv.Key))
	}
}

func (c *checker) secret(s *Secret) {
	switch {
	case s.Kind != "ssh-host-keys" && s.Path == "":
		c.fail(s.Pos, "add path: /etc/munge/munge.key", "the secret %s has no path", s.Kind)
	case s.Path != "" && (!absolute(s.Path) || s.Path == "/"):
		c.fail(s.at("path", s.Pos), "write it as /etc/munge/munge.key", "the secret's path %s is not absolute and plain", clip(s.Path))
	}
}
