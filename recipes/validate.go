package recipes

import (
	"fmt"
	"io/fs"
	"net/netip"
	"regexp"
	"strings"
)

// Validate looks at what a recipe means and returns all that is wrong, in the
// order of the places. It reads the files that the recipe names through fsys
// and changes nothing; what Parse has refused already is left alone.
func Validate(r *Recipe, fsys fs.FS) Findings {
	c := &checker{r: r, fsys: fsys, said: map[Finding]bool{}}
	c.identity()
	c.source()
	c.stages()
	c.precache()
	c.network()
	c.nodes()
	return c.found.Sorted()
}

// checker collects findings about one recipe.
type checker struct {
	r     *Recipe
	fsys  fs.FS
	found Findings
	// said holds what was reported: nodes that share a profile share its faults.
	said map[Finding]bool
}

func (c *checker) fail(at Pos, remedy, format string, args ...any) {
	c.add(Error, at, remedy, format, args...)
}

func (c *checker) warn(at Pos, remedy, format string, args ...any) {
	c.add(Warning, at, remedy, format, args...)
}

func (c *checker) add(s Severity, at Pos, remedy, format string, args ...any) {
	f := Finding{Pos: at, Severity: s, Message: fmt.Sprintf(format, args...), Remedy: remedy}
	if len(c.found) < maxFindings && !c.said[f] {
		c.said[f] = true
		c.found = append(c.found, f)
	}
}

var (
	// OCI distribution-spec, "Pulling manifests": a component of <name>.
	repositoryName = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*$`)
	// RFC 1123, section 2.1, one label; lower case, since names are compared.
	hostLabel  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	sha256Text = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	sha256Hex  = regexp.MustCompile(`^[0-9a-f]{64}$`)
	gitCommit  = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z._/-]*$`)
	suiteName  = regexp.MustCompile(`^[a-z][a-z0-9./-]*$`)
	debPackage = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+(:[a-z0-9-]+)?([=/][A-Za-z0-9.+:~-]+)?$`)
	kernelName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	imageRef   = regexp.MustCompile(`^[^@\s]+(@sha256:[0-9a-f]{64})?$`)
)

func (c *checker) identity() {
	r := c.r
	at := r.at("name", r.Pos)
	if r.Name != "" && (!repositoryName.MatchString(r.Name) || len(r.Name) > 128) {
		c.fail(at, "use lower case letters and digits, with single \".\", \"_\" or \"-\" between them", "the name %s is no repository name", clip(r.Name))
	}
	if r.Parent != "" && !sha256Text.MatchString(r.Parent) {
		c.fail(r.at("parent", r.Pos), "write sha256: and 64 hexadecimal digits, as build and inspect print it", "the parent %s is no digest", clip(r.Parent))
	}
}

func (c *checker) source() {
	s := c.r.Source
	if s.Pos.Line == 0 {
		return
	}
	kinds := map[string]string{}
	var given []string
	for _, k := range []struct {
		name, os string
		set      bool
	}{{"src", "freebsd", s.Src != nil}, {"dists", "freebsd", s.Dists != nil}, {"oci", "", s.OCI != nil}, {"debian", "linux", s.Debian != nil}} {
		if k.set {
			given, kinds[k.name] = append(given, k.name), k.os
		}
	}
	if len(given) != 1 {
		c.fail(s.Pos, "give exactly one of src, dists, oci and debian", "the source has %d of its kinds", len(given))
		return
	}
	if os := kinds[given[0]]; os != "" && c.r.OS != "" && os != c.r.OS {
		c.fail(s.at(given[0], s.Pos), fmt.Sprintf("write \"os: %s\", or another source", os), "the source %q makes %s roots, but the recipe's os is %q", given[0], os, c.r.OS)
	}
	c.src(s.Src)
	c.dists(s.Dists)
	c.oci(s.OCI)
	c.debian(s.Debian)
}

func (c *checker) src(s *Src) {
	switch {
	case s == nil:
	case (s.Dir == "") == (s.Git == ""):
		c.fail(s.Pos, "give one of them", "source.src has both or neither of \"dir\" and \"git\"")
	case s.Git != "" && s.Commit == "":
		c.fail(s.Pos, "add the commit, or a tag that lock resolves", "source.src names a git repository without a commit")
	case s.Git == "" && s.Commit != "":
		c.fail(s.at("commit", s.Pos), "remove it; a folder is taken as it is", "source.src has a commit, but no git repository")
	case s.Git != "" && !gitCommit.MatchString(s.Commit):
		c.fail(s.at("commit", s.Pos), "write 40 hexadecimal digits, or a tag", "%s is no git commit", clip(s.Commit))
	}
}

func (c *checker) dists(s *Dists) {
	if s == nil {
		return
	}
	if s.Manifest != "" && !sha256Hex.MatchString(s.Manifest) {
		c.fail(s.at("manifest", s.Pos), "write what sha256sum MANIFEST prints: 64 hexadecimal digits", "%s is no sha256", clip(s.Manifest))
	}
	for i, set := range s.Sets {
		if !kernelName.MatchString(set) {
			c.fail(s.at(fmt.Sprintf("sets.%d", i), s.Pos), "write names such as base and kernel", "%s is no release set", clip(set))
		}
	}
	c.twice(s.Sets, "release set", func(i int) Pos { return s.at(fmt.Sprintf("sets.%d", i), s.Pos) })
}

func (c *checker) oci(s *OCI) {
	if s == nil || s.Ref == "" {
		return
	}
	at := s.at("ref", s.Pos)
	switch {
	case !imageRef.MatchString(s.Ref):
		c.fail(at, "write HOST/NAME@sha256:... or HOST/NAME:TAG", "%s is no reference of an image", clip(s.Ref))
	case !strings.Contains(s.Ref, "@") && !c.locked(s.Ref):
		c.warn(at, "run \"rhizome lock\", or write NAME@sha256:...", "the image %s is named by a tag, which may mean another image on another day", clip(s.Ref))
	}
}

// locked says whether the lock file beside the recipe knows an image. One that
// cannot be read is the build's to report.
func (c *checker) locked(ref string) bool {
	lock, err := ReadLock(c.r.LockFile())
	return err == nil && lock.Images[ref] != ""
}

func (c *checker) debian(s *Debian) {
	if s == nil {
		return
	}
	if s.Suite != "" && !suiteName.MatchString(s.Suite) {
		c.fail(s.at("suite", s.Pos), "write a code name such as bookworm", "%s is no Debian suite", clip(s.Suite))
	}
	for i, p := range s.Packages {
		if !debPackage.MatchString(p) {
			c.fail(s.at(fmt.Sprintf("packages.%d", i), s.Pos), "package names are lower case, as apt takes them", "%s is no Debian package", clip(p))
		}
	}
	c.twice(s.Packages, "package", func(i int) Pos { return s.at(fmt.Sprintf("packages.%d", i), s.Pos) })
	if s.Mirror != "" && !strings.Contains(s.Mirror, ":/") {
		c.fail(s.at("mirror", s.Pos), "write http://mirror.example/debian", "the mirror %s is no URL", clip(s.Mirror))
	}
	if s.Keyring != "" {
		c.file(s.at("keyring", s.Pos), s.Keyring, "keyring")
	}
}

// twice reports an element that is in a list already, naming the first place.
func (c *checker) twice(list []string, what string, at func(int) Pos) {
	first := map[string]int{}
	for i, v := range list {
		if j, ok := first[v]; ok {
			c.fail(at(i), "remove one of the two", "the %s %s is listed twice; line %d has it already", what, clip(v), at(j).Line)
			continue
		}
		first[v] = i
	}
}

func (c *checker) precache() {
	p := c.r.Precache
	if p == nil {
		return
	}
	for i, path := range p.Paths {
		if !absolute(path) {
			c.fail(p.at(fmt.Sprintf("paths.%d", i), p.Pos), "write it as /usr/bin", "the precache path %s is not absolute and plain", clip(path))
		}
	}
	if p.Learned != "" {
		c.file(p.at("learned", p.Pos), p.Learned, "learned list")
	}
	if len(p.Paths) == 0 && p.Learned == "" {
		c.fail(p.Pos, "give \"paths\", \"learned\" or both", "the precache names nothing to hold")
	}
	if p.First > 0 && c.r.OS == "freebsd" {
		c.fail(p.at("first", p.Pos), "leave it out", "a FreeBSD node mounts its bundle as a whole: there is no \"first\" part of it")
	}
}

func (c *checker) network() {
	w := c.r.Network
	if !w.Subnet.IsValid() {
		return
	}
	if w.Server.IsValid() && !w.throughGateway() {
		c.hostIn(w.at("server", w.Pos), "the server", w.Server)
	}
	if w.Gateway.IsValid() {
		c.hostIn(w.at("gateway", w.Pos), "the gateway", w.Gateway)
	}
	for _, label := range strings.Split(w.Domain, ".") {
		if w.Domain != "" && (!hostLabel.MatchString(label) || len(w.Domain) > 253) {
			c.fail(w.at("domain", w.Pos), "write it as cluster.example.org (RFC 1123)", "%s is no domain", clip(w.Domain))
			break
		}
	}
	if w.Lease > 0 && (w.Lease.Seconds() < 60 || w.Lease.Hours() > 24*365) {
		c.fail(w.at("lease", w.Pos), "write something from 60s to 8760h", "a lease of %s is too short or too long", w.Lease)
	}
}

// throughGateway says whether nodes reach the server over a router, with a
// relay there for their DHCP.
func (w *Network) throughGateway() bool {
	return !w.Subnet.Contains(w.Server) && w.Subnet.Contains(w.Gateway) && w.Gateway != w.Subnet.Addr() && w.Gateway != Broadcast(w.Subnet)
}

// hostIn checks that an address is one that a machine in the subnet can have.
func (c *checker) hostIn(at Pos, what string, a netip.Addr) {
	net := c.r.Network.Subnet
	lo, hi := net.Addr().Next(), Broadcast(net).Prev()
	remedy := fmt.Sprintf("choose one from %s to %s", lo, hi)
	switch {
	case !net.Contains(a):
		c.fail(at, remedy+", or widen the subnet", "%s %s is outside the subnet %s", what, a, net)
	case a == net.Addr():
		c.fail(at, remedy, "%s %s is the address of the subnet %s itself", what, a, net)
	case a == Broadcast(net):
		c.fail(at, remedy, "%s %s is the broadcast address of the subnet %s", what, a, net)
	}
}

// Broadcast is the last address of an IPv4 subnet.
func Broadcast(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(b)
}

// Netmask is an IPv4 subnet's mask in dotted form.
func Netmask(p netip.Prefix) netip.Addr {
	var b [4]byte
	for i := 0; i < p.Bits(); i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(b)
}
