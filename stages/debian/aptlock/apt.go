package aptlock

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"rhizome/stages/debian/tool"
)

// DefaultKeyring is Debian's own, from the package debian-archive-keyring.
const DefaultKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// Apt resolves and fetches packages with the machine's apt, in private roots
// under Cache. It is safe for several processes on one Cache.
type Apt struct {
	// Cache is a folder that outlives builds: indexes under "apt", packages
	// by their sum under "debs".
	Cache string
	// System is this machine's apt set-up.
	System System
	// Mirror is an archive's URI; empty takes Debian's archives out of
	// System.
	Mirror string
	// Keyring is the path of the keys the archive is signed with; empty for
	// DefaultKeyring.
	Keyring string
	// Line takes each line of the programs' output; nil is silence.
	Line func(string)
	// Seen remembers which indexes are fresh, so that the steps of one run ask
	// for each but once; nil asks each time.
	Seen *Seen
}

// Seen is a set of private roots whose indexes were looked at in this run. It
// is safe for several goroutines.
type Seen struct {
	mu    sync.Mutex
	roots map[string]bool
}

func (s *Seen) has(dir string) bool {
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.roots[dir]
}

func (s *Seen) add(dir string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.roots == nil {
		s.roots = map[string]bool{}
	}
	s.roots[dir] = true
}

func (a *Apt) keyring() string {
	if a.Keyring == "" {
		return DefaultKeyring
	}
	return a.Keyring
}

// CheckKeyring says where a keyring is missing and how to get it.
func CheckKeyring(name string) error {
	if _, err := os.Stat(name); err != nil {
		return fmt.Errorf("the keyring %q cannot be read: %w; install debian-archive-keyring, or name another with \"keyring:\"", name, err)
	}
	return nil
}

// sources are the archives that a request is answered from.
func (a *Apt) sources(r Request) ([]Source, error) {
	if err := CheckKeyring(a.keyring()); err != nil {
		return nil, err
	}
	if strings.ContainsAny(a.keyring(), " ]\n") {
		return nil, fmt.Errorf("the keyring's path %q holds a blank or a bracket, which apt's lists cannot carry; move it", a.keyring())
	}
	if a.Mirror != "" {
		return a.named(r)
	}
	all, err := a.System.Sources()
	if err != nil {
		return nil, err
	}
	picked := ForSuite(all, r.Suite, r.Arch, r.Components, a.keyring())
	if len(picked) == 0 {
		return nil, fmt.Errorf("this machine's apt knows no Debian archive of %q (%s) for %s; name one with \"mirror:\"",
			r.Suite, strings.Join(r.Components, ", "), r.Arch)
	}
	return picked, nil
}

func (a *Apt) named(r Request) ([]Source, error) {
	u, err := url.Parse(a.Mirror)
	if err != nil || u.Scheme == "" || strings.ContainsAny(a.Mirror, " []\n") {
		return nil, fmt.Errorf("the mirror %q is not an apt URI such as \"http://HOST/debian\" or \"file:///srv/mirror\"", a.Mirror)
	}
	return []Source{{URI: strings.TrimSuffix(a.Mirror, "/"), Suite: r.Suite, Components: r.Components, SignedBy: a.keyring()}}, nil
}

// root is a private apt root: its own lists, status, caches and settings.
type root struct {
	dir     string
	sources []Source
	apt     *Apt
}

// open makes the private root for a request's archives, or finds it.
func (a *Apt) open(r Request) (*root, error) {
	sources, err := a.sources(r)
	if err != nil {
		return nil, err
	}
	list := ""
	for _, s := range sources {
		list += s.line(r.Arch) + "\n"
	}
	id := sha256.Sum256([]byte(list))
	dir, err := filepath.Abs(filepath.Join(a.Cache, "apt", hex.EncodeToString(id[:8])))
	if err != nil {
		return nil, fmt.Errorf("finding the package cache: %w", err)
	}
	ro := &root{dir: dir, sources: sources, apt: a}
	return ro, ro.write(list, r.Arch)
}

// write lays out the root; what is there already stays the same.
func (ro *root) write(list, arch string) error {
	for _, d := range []string{"lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(ro.dir, d), 0o755); err != nil {
			return fmt.Errorf("making the package cache: %w", err)
		}
	}
	for name, text := range map[string]string{
		"sources.list": list, "status": "", "apt.conf": ro.conf(arch),
	} {
		if err := replace(filepath.Join(ro.dir, name), text); err != nil {
			return fmt.Errorf("writing the package cache: %w", err)
		}
	}
	return nil
}

func replace(name, text string) error {
	if old, err := os.ReadFile(name); err == nil && string(old) == text {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.WriteString(text)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// conf is the root's apt.conf. apt reads the file in APT_CONFIG first and then
// those in Dir::Etc::parts, which would override it: hence the empty parts.
func (ro *root) conf(arch string) string {
	lines := append([]string{
		`Dir::Etc::parts "/dev/null";`, `Dir::Etc::main "/dev/null";`,
		fmt.Sprintf(`Dir::State %q;`, ro.dir), `Dir::State::lists "lists/";`,
		fmt.Sprintf(`Dir::State::status %q;`, ro.dir+"/status"),
		fmt.Sprintf(`Dir::Cache %q;`, ro.dir), fmt.Sprintf(`Dir::Log %q;`, ro.dir),
		fmt.Sprintf(`Dir::Etc::sourcelist %q;`, ro.dir+"/sources.list"),
		`Dir::Etc::sourceparts "/dev/null";`, `Dir::Etc::preferences "/dev/null";`, `Dir::Etc::preferencesparts "/dev/null";`,
		`Dir::Etc::trusted "/dev/null";`, `Dir::Etc::trustedparts "/dev/null";`,
		fmt.Sprintf(`APT::Architecture %q;`, arch), fmt.Sprintf(`APT::Architectures { %q; };`, arch),
		`APT::Install-Recommends "false";`, `APT::Install-Suggests "false";`,
		// The cache may lie in a folder that apt's own user cannot enter.
		`APT::Sandbox::User "root";`,
		`APT::Update::Error-Mode "any";`, `Acquire::Languages "none";`, `Acquire::ForceHash "SHA256";`,
		`Acquire::IndexTargets::deb::Translations::DefaultEnabled "false";`,
		`Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";`,
	}, ro.apt.System.Acquire...)
	return strings.Join(lines, "\n") + "\n"
}

// environ is what apt's programs run with: English messages, our settings,
// and the proxies that the caller's environment names.
func (ro *root) environ() []string {
	env := []string{"LC_ALL=C.UTF-8", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "APT_CONFIG=" + ro.dir + "/apt.conf",
		"DEBIAN_FRONTEND=noninteractive", "TMPDIR=" + ro.dir}
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasSuffix(strings.ToLower(name), "_proxy") {
			env = append(env, kv)
		}
	}
	return env
}

// run runs one of apt's programs in the root.
func (ro *root) run(ctx context.Context, doing string, out *strings.Builder, args ...string) error {
	bin, err := tool.Find(args[0], "apt")
	if err != nil {
		return err
	}
	c := tool.Command{
		Doing: doing, Args: append([]string{bin}, args[1:]...), Dir: ro.dir, Env: ro.environ(),
		Line: ro.apt.Line, Explain: explain,
	}
	if out == nil {
		return c.Run(ctx)
	}
	c.Stdout = out
	err = c.Run(ctx)
	var e *tool.Error
	if errors.As(err, &e) {
		// apt says on its standard output which packages do not fit.
		e.Tail = append(lastLines(out.String()), e.Tail...)
		e.Cause = explain(e.Tail)
	}
	return err
}

func lastLines(out string) []string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return lines[max(0, len(lines)-tool.KeptLines):]
}
