package debian

import (
	"testing"
	"time"

	"rhizome/pipeline/tree"
	"rhizome/recipes"
)

func rootOf(t *testing.T, files map[string]string) *tree.Tree {
	t.Helper()
	root := tree.New()
	for p, text := range files {
		if err := root.Add(tree.Entry{Path: p, Kind: tree.File, Mode: 0o640, GID: 42, Body: tree.Text(text)}); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestNormalizeTakesOutWhatDiffersBetweenBuilds(t *testing.T) {
	root := rootOf(t, map[string]string{
		"etc/hostname": "builder", "etc/resolv.conf": "nameserver 192.0.2.1", "etc/machine-id": "0123456789abcdef",
		"etc/apt/sources.list": "deb copy:///home/me/work x main", "etc/ssh/ssh_host_rsa_key": "secret", "etc/ssh/sshd_config": "kept",
		"etc/shadow": "root:*:20000:0:99999:7:::\nnever::0:0:::::\n", "var/log/lastlog": "\x00\x01", "var/log/apt/term.log": "today",
		"var/lib/dpkg/status-old": "x", "var/lib/dpkg/status": "kept", "dev/console": "", "tmp/a/b": "", "var/cache/apt/archives/x.deb": "x",
	})
	if err := Normalize(root, time.Unix(86400*1000, 0)); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"etc/hostname", "etc/resolv.conf", "etc/ssh/ssh_host_rsa_key", "var/log/apt/term.log",
		"var/lib/dpkg/status-old", "dev/console", "tmp/a", "var/cache/apt/archives"} {
		if root.Lookup(p) != nil {
			t.Errorf("%s is still there", p)
		}
	}
	for p, want := range map[string]string{
		"etc/machine-id": "", "etc/apt/sources.list": sourcesList, "etc/ssh/sshd_config": "kept", "var/log/lastlog": "",
		"var/lib/dpkg/status": "kept", "etc/shadow": "root:*:1000:0:99999:7:::\nnever::0:0:::::\n",
	} {
		if got, err := readFile(root, p); err != nil || got != want {
			t.Errorf("%s holds %q (%v), want %q", p, got, err, want)
		}
	}
	if e := root.Lookup("var/log/lastlog"); e.GID != 42 || e.Mode != 0o640 {
		t.Errorf("the emptied log lost its owner or mode: %+v", e)
	}
}

func TestAResolversLinkStays(t *testing.T) {
	root := tree.New()
	if err := root.Add(tree.Entry{Path: "etc/resolv.conf", Kind: tree.Symlink, Target: "../run/systemd/resolve/stub-resolv.conf"}); err != nil {
		t.Fatal(err)
	}
	if err := Normalize(root, time.Unix(0, 0)); err != nil || root.Lookup("etc/resolv.conf") == nil {
		t.Errorf("the link is gone, or %v", err)
	}
}

func TestARootMustHoldTheLockedSetAndNothingElse(t *testing.T) {
	status := "Package: a\nStatus: install ok installed\nVersion: 1\n\nPackage: b\nVersion: 2\n"
	lock := func(p ...recipes.LockedPackage) recipes.PackageSet { return recipes.PackageSet{Packages: p} }
	a, b := recipes.LockedPackage{Name: "a", Version: "1"}, recipes.LockedPackage{Name: "b", Version: "2"}
	for name, c := range map[string]struct {
		set recipes.PackageSet
		ok  bool
	}{
		"the set":        {lock(a, b), true},
		"one too many":   {lock(a), false},
		"one missing":    {lock(a, b, recipes.LockedPackage{Name: "c", Version: "3"}), false},
		"another one":    {lock(a, recipes.LockedPackage{Name: "b", Version: "3"}), false},
		"nothing locked": {lock(), false},
	} {
		root := rootOf(t, map[string]string{"var/lib/dpkg/status": status})
		if err := CheckInstalled(root, c.set); (err == nil) != c.ok {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if err := CheckInstalled(tree.New(), lock(a)); err == nil {
		t.Error("a root without dpkg passed")
	}
}
