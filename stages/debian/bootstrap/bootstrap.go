// Package bootstrap makes a Debian root with mmdebstrap out of a locked set of
// packages, inside namespaces of its own: as root or, through a user
// namespace, as anybody. What runs in there sees no network, no host name and
// no process of the machine, and dies with the build.
package bootstrap

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"rhizome/stages/debian/tool"
)

// Env is what a build may use of the machine.
type Env struct {
	// Work is a folder of the build's own, an absolute path.
	Work string
	// LogFile keeps the programs' whole output.
	LogFile string
	// Line takes each line of output; nil is silence.
	Line func(string)
}

// Spec is a root to be made.
type Spec struct {
	Suite string
	Arch  string
	// Custom installs nothing but Packages, without the suite's essential
	// packages first (mmdebstrap(1), variant "custom").
	Custom bool
	// Packages are all of the root's packages by name, none left to apt.
	Packages []string
	// MergedUsr makes /bin, /lib and /sbin links into /usr before anything is
	// unpacked; Packages must hold usr-is-merged then.
	MergedUsr bool
	// Archive is the sources.list line that has exactly these packages.
	Archive string
	// Epoch becomes SOURCE_DATE_EPOCH.
	Epoch time.Time
	// Setup are shell commands to run before packages are unpacked, Customize
	// after; "$1" is the root (mmdebstrap(1), "HOOKS").
	Setup, Customize []string
	// Extra are settings added to the environment of maintainer scripts.
	Extra []string
}

// Root makes the root and returns a tar of it in env.Work. When it fails or is
// stopped, nothing but the log stays.
func Root(ctx context.Context, env Env, s Spec) (tar string, err error) {
	tmp := filepath.Join(env.Work, "root")
	tar = filepath.Join(env.Work, "root.tar")
	enter, err := Enter(ctx)
	if err != nil {
		return "", err
	}
	clean := func() error { return enter.RemoveAll(tmp) }
	if err := clean(); err != nil {
		return "", err
	}
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return "", fmt.Errorf("making the build's folder: %w", err)
	}
	defer func() {
		if cerr := clean(); err == nil {
			err = cerr
		}
		if err != nil {
			_ = os.Remove(tar)
		}
	}()
	args, err := s.args(tar)
	if err != nil {
		return "", err
	}
	c := tool.Command{
		Doing: fmt.Sprintf("installing %d package(s) of %q with mmdebstrap", len(s.Packages), s.Suite),
		Args:  enter.Command(args...), Dir: env.Work, Env: s.environ(tmp),
		LogFile: env.LogFile, Line: env.Line, Explain: explain(env.Work),
	}
	return tar, c.Run(ctx)
}

// args is mmdebstrap's command line (mmdebstrap(1)). Inside the namespaces the
// caller is root, so the mode is always "root"; device nodes are left out,
// since a kernel's devtmpfs brings them and nobody but root could unpack them.
func (s Spec) args(tar string) ([]string, error) {
	bin, err := tool.Find("mmdebstrap", "mmdebstrap")
	if err != nil {
		return nil, err
	}
	args := []string{bin, "--mode=root", "--format=tar", "--skip=output/dev", "--architectures=" + s.Arch,
		"--variant=" + s.variant(), "--include=" + strings.Join(s.Packages, ","),
		"--aptopt=APT::Sandbox::User \"root\"", "--dpkgopt=force-unsafe-io",
		// mmdebstrap copies the machine's own into the root.
		`--setup-hook=rm -f "$1/etc/resolv.conf" "$1/etc/hostname"`,
	}
	if s.MergedUsr {
		args = append(args, "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr")
	}
	for _, h := range s.Setup {
		args = append(args, "--setup-hook="+h)
	}
	for _, h := range s.Customize {
		args = append(args, "--customize-hook="+h)
	}
	return append(args, s.Suite, tar, s.Archive), nil
}

func (s Spec) variant() string {
	if s.Custom {
		return "custom"
	}
	return "essential"
}

// environ is the whole environment of the build. A maintainer script that
// looks around finds the same everywhere.
func (s Spec) environ(tmp string) []string {
	return append([]string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "USER=root", "LOGNAME=root",
		"SHELL=/bin/sh", "LC_ALL=C.UTF-8", "TZ=UTC", "TERM=dumb", "TMPDIR=" + tmp,
		"DEBIAN_FRONTEND=noninteractive", "DEBCONF_NONINTERACTIVE_SEEN=true",
		"SOURCE_DATE_EPOCH=" + strconv.FormatInt(s.Epoch.Unix(), 10),
	}, s.Extra...)
}

// Versions are those of the programs that a root's bytes may depend on.
func Versions(ctx context.Context) (map[string]string, error) {
	v := map[string]string{}
	for name, pkg := range map[string]string{"mmdebstrap": "mmdebstrap", "apt-get": "apt"} {
		bin, err := tool.Find(name, pkg)
		if err != nil {
			return nil, err
		}
		var out strings.Builder
		c := tool.Command{Doing: "asking for the version of " + name, Args: []string{bin, "--version"}, Stdout: &out}
		if err := c.Run(ctx); err != nil {
			return nil, err
		}
		v[pkg] = firstVersion(out.String())
	}
	return v, nil
}

// firstVersion is the second word of the first line: "apt 2.6.1 (amd64)".
func firstVersion(out string) string {
	f := strings.Fields(out)
	if len(f) < 2 {
		return strings.TrimSpace(out)
	}
	return f[1]
}
