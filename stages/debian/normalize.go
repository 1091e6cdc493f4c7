package debian

import (
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"time"

	"rhizome/pipeline/tree"
)

// gone are paths that differ between machines or days, or that were only
// needed to build; globs as path.Match knows them. What programs make again by
// themselves, or what nodeconfig and serve lay over the root, is taken out.
var gone = []string{
	// Who built it, and through which mirror.
	"etc/apt/apt.conf.d/99mmdebstrap", "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
	// Copies of yesterday's files that package tools keep.
	"etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/subuid-", "etc/subgid-", "etc/.pwd.lock",
	"var/lib/dpkg/*-old", "var/cache/debconf/*-old", "var/lib/dpkg/lock", "var/lib/dpkg/lock-frontend", "var/lib/dpkg/triggers/Lock",
	// Caches with times, inode numbers or the order of a hash in them.
	"var/cache/ldconfig/aux-cache", "var/cache/apt/*", "var/lib/apt/lists/*", "var/cache/man/*", "var/cache/fontconfig/*",
	// What must be each machine's own.
	"etc/hostname", "var/lib/dbus/machine-id", "etc/ssh/ssh_host_*", "var/lib/systemd/random-seed", "var/lib/systemd/credential.secret",
	"var/lib/urandom/random-seed", "etc/ssl/private/ssl-cert-snakeoil.key", "etc/ssl/certs/ssl-cert-snakeoil.pem", "etc/iscsi/initiatorname.iscsi",
	"etc/nvme/hostid", "etc/nvme/hostnqn",
	// Secrets that packages make when they are installed; a layer that anybody
	// can pull must not carry them.
	"etc/munge/munge.key", "etc/bind/rndc.key",
	// Logs of the installation.
	"var/log/dpkg.log", "var/log/alternatives.log", "var/log/bootstrap.log", "var/log/apt/*", "var/log/journal/*",
	// Mounted over on every node.
	"dev/*", "proc/*", "sys/*", "run/*", "tmp/*", "var/tmp/*",
}

// Normalize takes out of a root, in place, all that is not the packages' own
// and could differ between two builds. Times need no care here: the layer
// writer gives every file the recipe's epoch.
func Normalize(t *tree.Tree, epoch time.Time) error {
	for _, e := range t.Entries() {
		switch {
		case matches(gone, e.Path), danglingSnakeoil(e):
			t.Remove(e.Path)
		case e.Path == "etc/resolv.conf" && e.Kind == tree.File:
			// A link made by a resolver's package stays.
			t.Remove(e.Path)
		case strings.HasPrefix(e.Path, "var/log/") && e.Kind == tree.File:
			e.Body, e.Link = nil, ""
		}
	}
	if e := t.Lookup("etc/machine-id"); e != nil && e.Kind == tree.File {
		// Empty: "an ID will be generated during boot" (machine-id(5)).
		e.Body = nil
	}
	if e := t.Lookup("etc/apt/sources.list"); e != nil {
		e.Body = tree.Text(sourcesList)
	}
	if err := mountPoints(t); err != nil {
		return err
	}
	return shadowDates(t, epoch)
}

// mountPoints adds the folders that an initramfs moves its mounts to before
// init runs: mmdebstrap leaves /dev out, and without it init finds no console.
func mountPoints(t *tree.Tree) error {
	for _, p := range []string{"dev", "proc", "run", "sys"} {
		if t.Lookup(p) != nil {
			continue
		}
		if err := t.Add(tree.Entry{Path: p, Kind: tree.Dir, Mode: 0o755}); err != nil {
			return err
		}
	}
	return nil
}

// sourcesList stands in place of the build's own list: the same root must not
// differ because it came from another mirror.
const sourcesList = "# Packages are chosen in the recipe, and the mirror they came from is not part\n# of the image. Lay a list of your own here with a files stage.\n"

func matches(globs []string, p string) bool {
	for _, g := range globs {
		if ok, _ := path.Match(g, p); ok {
			return true
		}
	}
	return false
}

// danglingSnakeoil tells the hash link beside ssl-cert's self-made key.
func danglingSnakeoil(e *tree.Entry) bool {
	return e.Kind == tree.Symlink && path.Dir(e.Path) == "etc/ssl/certs" && strings.HasPrefix(e.Target, "ssl-cert-snakeoil")
}

// shadowDates sets the day of the last change of each password, field 3 of
// shadow(5), to the recipe's epoch. Most tools take it from
// SOURCE_DATE_EPOCH by themselves; not every maintainer script uses them.
func shadowDates(t *tree.Tree, epoch time.Time) error {
	e := t.Lookup("etc/shadow")
	if e == nil || e.Kind != tree.File {
		return nil
	}
	text, err := readFile(t, "etc/shadow")
	if err != nil {
		return err
	}
	e.Body = tree.Text(withDays(text, epoch.Unix()/86400))
	return nil
}

func withDays(shadow string, days int64) string {
	lines := strings.Split(shadow, "\n")
	for i, line := range lines {
		f := strings.Split(line, ":")
		if len(f) > 2 && f[2] != "" && f[2] != "0" {
			f[2] = strconv.FormatInt(days, 10)
			lines[i] = strings.Join(f, ":")
		}
	}
	return strings.Join(lines, "\n")
}

// maxText bounds what readFile takes into memory, in bytes.
const maxText = 64 << 20

func readFile(t *tree.Tree, p string) (string, error) {
	e := t.Lookup(p)
	if e == nil || e.Kind != tree.File {
		return "", fmt.Errorf("the root has no file %q; was dpkg among its packages?", "/"+p)
	}
	if e.Body == nil {
		return "", nil
	}
	r, err := e.Body.Open()
	if err != nil {
		return "", fmt.Errorf("reading %q of the root: %w", "/"+p, err)
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, maxText))
	if err != nil {
		return "", fmt.Errorf("reading %q of the root: %w", "/"+p, err)
	}
	return string(text), nil
}
