package recipes

import (
	"fmt"
	"net/netip"
	"time"

	"go.yaml.in/yaml/v4"
)

// maxProfiles bounds the work of following who inherits whom.
const maxProfiles = 256

// draft is a recipe as it is written: profiles and ranges are not unrolled.
type draft struct {
	Recipe
	profiles []profile
	nodes    []nodeDraft
}

// recipeKeys is the table of a recipe's top level.
func recipeKeys() mapping[draft] {
	return mapping[draft]{
		title: "a recipe",
		intro: "The top level of the file.",
		pos:   func(r *draft) *Pos { return &r.Pos },
		keys: []key[draft]{
			{name: "version", shape: "1", required: true, example: "version: 1", doc: "The version of this format.",
				set: parsed(func(r *draft) *int { return &r.Version }, formatVersion, "write \"version: 1\"; a later version needs a later rhizome")},
			{name: "name", shape: "name", required: true, example: "name: beowulf", doc: "The cluster image's name in the store: lower case letters, digits and single separators (`.`, `_`, `-`), as an OCI repository's.",
				set: text(func(r *draft) *string { return &r.Name })},
			{name: "os", shape: "`linux` or `freebsd`", required: true, example: "os: linux", doc: "The nodes' operating system.",
				set: oneOf(func(r *draft) *string { return &r.OS }, "linux", "freebsd")},
			{name: "arch", shape: "`amd64` or `arm64`", def: "amd64", example: "arch: amd64", doc: "The nodes' architecture, as OCI names it.",
				set: oneOf(func(r *draft) *string { return &r.Arch }, "amd64", "arm64")},
			{name: "epoch", shape: "moment", required: true, example: "epoch: 2026-11-01T00:00:00Z", doc: "Every file's modification time and the image's date (RFC 3339). It makes the same recipe give the same digest on another day.",
				set: moment(func(r *draft) *time.Time { return &r.Epoch })},
			{name: "parent", shape: "digest", example: "parent: sha256:0123...", doc: "The index digest of an earlier version; changed layers become delta layers on it.",
				set: text(func(r *draft) *string { return &r.Parent })},
			{name: "source", shape: "mapping", required: true, example: "source: {debian: {suite: bookworm}}", doc: "Where the root comes from.",
				set: inner(sourceKeys(), func(r *draft) *Source { return &r.Source })},
			{name: "stages", shape: "list", example: "stages: [{kernel: {}}, {files: overlay/}]", doc: "What is done on top of the source, in this order.",
				set: stages},
			{name: "precache", shape: "mapping", example: "precache: {paths: [/usr/bin, /usr/lib]}", doc: "What a node reads into memory at boot.",
				set: part(precacheKeys(), func(r *draft) **Precache { return &r.Precache })},
			{name: "network", shape: "mapping", required: true, example: "network: {subnet: 10.77.0.0/24, server: 10.77.0.1}", doc: "The inner network that serve answers on.",
				set: inner(networkKeys(), func(r *draft) *Network { return &r.Network })},
			{name: "profiles", shape: "mapping of profiles", example: "profiles: {compute: {root: precache}}", doc: "Named sets of node keys that nodes inherit.",
				set: readProfiles},
			{name: "nodes", shape: "list of nodes", required: true, example: "nodes: [{name: n1, mac: 52:54:00:77:00:01, address: 10.77.0.11}]", doc: "The machines.",
				set: readNodes},
		},
	}
}

func formatVersion(s string) (int, error) {
	if s != "1" {
		return 0, fmt.Errorf("%s is no version of the format that this rhizome reads", clip(s))
	}
	return 1, nil
}

func sourceKeys() mapping[Source] {
	return mapping[Source]{
		title: "source",
		intro: "Exactly one of its keys is given.",
		pos:   func(s *Source) *Pos { return &s.Pos },
		keys: []key[Source]{
			{name: "src", shape: "mapping, or a folder", example: "src: /usr/src", doc: "A FreeBSD source tree.",
				set: part(srcKeys(), func(s *Source) **Src { return &s.Src })},
			{name: "dists", shape: "mapping", example: "dists: {from: https://..., manifest: 0123...}", doc: "FreeBSD release sets.",
				set: part(distsKeys(), func(s *Source) **Dists { return &s.Dists })},
			{name: "oci", shape: "mapping, or a reference", example: "oci: registry.example/freebsd@sha256:0123...", doc: "An image in a registry or the store.",
				set: part(ociKeys(), func(s *Source) **OCI { return &s.OCI })},
			{name: "debian", shape: "mapping, or a suite", example: "debian: {suite: bookworm, packages: [systemd-sysv]}", doc: "A Debian root made by mmdebstrap.",
				set: part(debianKeys(), func(s *Source) **Debian { return &s.Debian })},
		},
	}
}

func srcKeys() mapping[Src] {
	return mapping[Src]{
		title: "source.src", short: "dir",
		intro: "A folder (`dir`), or a git repository (`git`) at a `commit`.",
		pos:   func(s *Src) *Pos { return &s.Pos },
		keys: []key[Src]{
			{name: "dir", shape: "folder", example: "dir: /usr/src", doc: "A source tree on this machine.",
				set: text(func(s *Src) *string { return &s.Dir })},
			{name: "git", shape: "URL", example: "git: https://git.freebsd.org/src.git", doc: "A repository that the pipeline checks out.",
				set: text(func(s *Src) *string { return &s.Git })},
			{name: "commit", shape: "git commit", example: "commit: 0123...", doc: "The full commit id, 40 hexadecimal digits, or a tag or branch that `rhizome lock` resolves to one.",
				set: text(func(s *Src) *string { return &s.Commit })},
			{name: "toolchain", shape: "folder", example: "toolchain: /usr/lib/llvm-19/bin", doc: "Where clang lies, on a host that is not FreeBSD.",
				set: text(func(s *Src) *string { return &s.Toolchain })},
		},
	}
}

func distsKeys() mapping[Dists] {
	return mapping[Dists]{
		title: "source.dists",
		intro: "Release sets are checked against their MANIFEST, and the MANIFEST against the recipe.",
		pos:   func(s *Dists) *Pos { return &s.Pos },
		keys: []key[Dists]{
			{name: "from", shape: "folder or URL", required: true, example: "from: https://download.freebsd.org/releases/amd64/15.1-RELEASE", doc: "Where the sets and their MANIFEST lie.",
				set: text(func(s *Dists) *string { return &s.From })},
			{name: "sets", shape: "list of names", def: "[base, kernel]", example: "sets: [base, kernel]", doc: "The sets to use, without `.txz`.",
				set: texts(func(s *Dists) *[]string { return &s.Sets })},
			{name: "manifest", shape: "sha256", required: true, example: "manifest: 0123...", doc: "The sha256 of the MANIFEST file, 64 hexadecimal digits.",
				set: text(func(s *Dists) *string { return &s.Manifest })},
		},
	}
}

func ociKeys() mapping[OCI] {
	return mapping[OCI]{
		title: "source.oci", short: "ref",
		intro: "The image's layers are reused as they are.",
		pos:   func(s *OCI) *Pos { return &s.Pos },
		keys: []key[OCI]{
			{name: "ref", shape: "reference", required: true, example: "ref: registry.example/freebsd@sha256:0123...", doc: "The image, by digest; or by a tag, which `rhizome lock` pins. Without a host it is one of the store.",
				set: text(func(s *OCI) *string { return &s.Ref })},
		},
	}
}

func debianKeys() mapping[Debian] {
	return mapping[Debian]{
		title: "source.debian", short: "suite",
		intro: "What mmdebstrap is asked for. `rhizome lock` pins the versions.",
		pos:   func(s *Debian) *Pos { return &s.Pos },
		keys: []key[Debian]{
			{name: "suite", shape: "suite", required: true, example: "suite: bookworm", doc: "The Debian release, by its code name.",
				set: text(func(s *Debian) *string { return &s.Suite })},
			{name: "components", shape: "list of names", def: "[main]", example: "components: [main, non-free-firmware]", doc: "The archive's components.",
				set: texts(func(s *Debian) *[]string { return &s.Components })},
			{name: "packages", shape: "list of names", def: "[]", example: "packages: [systemd-sysv, openssh-server]", doc: "Packages beside those of the variant.",
				set: texts(func(s *Debian) *[]string { return &s.Packages })},
			{name: "variant", shape: "mmdebstrap's variant", def: "minbase", example: "variant: minbase", doc: "What is in the root before `packages`.",
				set: oneOf(func(s *Debian) *string { return &s.Variant }, "extract", "custom", "essential", "apt", "required", "minbase", "buildd", "important", "debootstrap", "standard")},
			{name: "mirror", shape: "URL", def: "the system's own apt configuration", example: "mirror: http://mirror.example/debian", doc: "The apt archive.",
				set: text(func(s *Debian) *string { return &s.Mirror })},
			{name: "keyring", shape: "file of the recipe", def: "Debian's own", example: "keyring: keys/site.gpg", doc: "The keys that sign the archive.",
				set: text(func(s *Debian) *string { return &s.Keyring })},
		},
	}
}

func precacheKeys() mapping[Precache] {
	return mapping[Precache]{
		title: "precache",
		intro: "The bodies of the named files move into a layer of their own, which a node reads in one go: see precache.md.",
		pos:   func(p *Precache) *Pos { return &p.Pos },
		keys: []key[Precache]{
			{name: "paths", shape: "list of absolute paths", example: "paths: [/usr/bin, /usr/lib]", doc: "Files, folders and globs to hold in memory, hottest first; FreeBSD: whole folders.",
				set: texts(func(p *Precache) *[]string { return &p.Paths })},
			{name: "learned", shape: "file of the recipe", example: "learned: hot.txt", doc: "A list of paths, a line each, hottest first, as `rhizome precache learn` writes it; it comes before `paths`.",
				set: text(func(p *Precache) *string { return &p.Learned })},
			{name: "limit", shape: "size", def: "no limit", example: "limit: 256M", doc: "The most that the bundle may take of a node's memory.",
				set: bytesSize(func(p *Precache) *int64 { return &p.Limit })},
			{name: "first", shape: "size", def: "none", example: "first: 24M", doc: "Linux: how much of it, the hottest, every boot reads anyway and so waits for on slow links too; `rhizome precache learn` says it.",
				set: bytesSize(func(p *Precache) *int64 { return &p.First })},
		},
	}
}

func networkKeys() mapping[Network] {
	return mapping[Network]{
		title: "network",
		intro: "IPv4, since network boot ROMs speak it.",
		pos:   func(w *Network) *Pos { return &w.Pos },
		keys: []key[Network]{
			{name: "subnet", shape: "subnet", required: true, example: "subnet: 10.77.0.0/24", doc: "The network's address and bits, from /8 to /30.",
				set: subnet(func(w *Network) *netip.Prefix { return &w.Subnet })},
			{name: "server", shape: "address", required: true, example: "server: 10.77.0.1", doc: "The address of the machine that serves. Outside the subnet it takes a gateway, and a DHCP relay there.",
				set: address(func(w *Network) *netip.Addr { return &w.Server })},
			{name: "gateway", shape: "address", def: "none", example: "gateway: 10.77.0.254", doc: "The nodes' default route.",
				set: address(func(w *Network) *netip.Addr { return &w.Gateway })},
			{name: "dns", shape: "list of addresses", def: "none", example: "dns: [10.77.0.1]", doc: "The nodes' name servers.",
				set: each(func(w *Network) *[]netip.Addr { return &w.DNS }, parseAddr)},
			{name: "domain", shape: "domain", def: "none", example: "domain: cluster.example.org", doc: "The nodes' domain.",
				set: text(func(w *Network) *string { return &w.Domain })},
			{name: "mtu", shape: "bytes, 576 to 9216", def: "the node's own", example: "mtu: 9000", doc: "The network's MTU.",
				set: integer(func(w *Network) *int { return &w.MTU }, 576, 9216)},
			{name: "lease", shape: "duration", def: "1h", example: "lease: 12h", doc: "How long an address is given for.",
				set: duration(func(w *Network) *time.Duration { return &w.Lease })},
		},
	}
}

func readNodes(d *decoder, n *yaml.Node, into *draft) {
	if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		d.fail(n, "the recipe has no nodes", "describe at least one: name, mac and address")
		return
	}
	list(nodeKeys(), func(r *draft) *[]nodeDraft { return &r.nodes })(d, n, into)
}

func readProfiles(d *decoder, n *yaml.Node, into *draft) {
	if n.Kind != yaml.MappingNode {
		d.fail(n, fmt.Sprintf("\"profiles\" is a mapping of profiles by their names, not %s", shapeOf(n)), "write profiles: {compute: {root: nfs}}")
		return
	}
	if len(n.Content)/2 > maxProfiles {
		d.fail(n, fmt.Sprintf("the recipe has more than %d profiles", maxProfiles), "")
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, body := n.Content[i], n.Content[i+1]
		s, ok := d.scalar(name)
		if line, twice := seen[s]; ok && twice {
			d.fail(name, fmt.Sprintf("the profile %s is repeated; line %d has it already", clip(s), line), "give one of them another name")
			continue
		}
		seen[s] = name.Line
		p := profile{name: word{s, d.pos(name)}}
		profileKeys().decode(d, body, &p.nodeDraft)
		into.profiles = append(into.profiles, p)
	}
}
