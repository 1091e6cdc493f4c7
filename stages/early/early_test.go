package early

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// built makes a Go program for a platform.
func built(t *testing.T, file, goos, arch string) {
	t.Helper()
	src := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(src, []byte("package main\n\nfunc main() {}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-o", file, src)
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+arch, "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func TestTheProgramForThePlatformIsFound(t *testing.T) {
	here, there := t.TempDir(), t.TempDir()
	built(t, filepath.Join(here, "rhizome-node"), "linux", "amd64")
	built(t, filepath.Join(there, "rhizome-node-freebsd-amd64"), "freebsd", "amd64")
	// A name is no proof.
	built(t, filepath.Join(there, "rhizome-node-linux-arm64"), "linux", "amd64")
	for platform, want := range map[string]string{
		"linux/amd64":   filepath.Join(here, "rhizome-node"),
		"freebsd/amd64": filepath.Join(there, "rhizome-node-freebsd-amd64"),
		"linux/arm64":   "",
	} {
		goos, arch, _ := strings.Cut(platform, "/")
		got, err := Find([]string{here, there}, goos, arch)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", platform, got, err)
		}
		if err != nil && (!strings.Contains(err.Error(), "make build") || !strings.Contains(err.Error(), "rhizome-node-linux-arm64")) {
			t.Errorf("no remedy in %v", err)
		}
	}
	if err := os.WriteFile(filepath.Join(here, "rhizome-node-linux-riscv64"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Find([]string{here}, "linux", "riscv64"); err == nil || !strings.Contains(err.Error(), "finding out what") {
		t.Errorf("a shell script was taken: %v", err)
	}
}

func TestTheLayerHoldsScriptProgramAndUnit(t *testing.T) {
	program := filepath.Join(t.TempDir(), "rhizome-node")
	if err := os.WriteFile(program, []byte("program"), 0o644); err != nil {
		t.Fatal(err)
	}
	for goos, want := range map[string]string{
		"linux": "-rwxr-xr-x usr/sbin/rhizome-early, -rwxr-xr-x usr/sbin/rhizome-node, -rw-r--r-- usr/lib/systemd/system/rhizome-node.service, " +
			"Lrwxrwxrwx usr/lib/systemd/system/multi-user.target.wants/rhizome-node.service, drwxr-xr-x usr/lib/rhizome/root",
		"freebsd": "-rwxr-xr-x sbin/rhizome-early, -rwxr-xr-x sbin/rhizome-node, -rwxr-xr-x etc/rc.d/rhizome_node, drwxr-xr-x usr/lib/rhizome/root",
	} {
		tr, err := Build(Spec{OS: goos, Program: program})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, e := range tr.Entries() {
			if e.Implied {
				continue
			}
			n++
			if !strings.Contains(want, e.Path) {
				t.Errorf("%s: there is also %s", goos, e.Path)
			}
		}
		for _, w := range strings.Split(want, ", ") {
			mode, path, _ := strings.Cut(w, " ")
			if e := tr.Lookup(path); e == nil || !strings.EqualFold(e.Perm().String(), mode) && !strings.HasPrefix(mode, "L") {
				t.Errorf("%s: no %s, or not as %s: %+v", goos, path, mode, e)
			}
		}
		if n != strings.Count(want, ",")+1 {
			t.Errorf("%s has %d entries", goos, n)
		}
	}
}

// Whatever goes into the layer is in its key.
func TestTheKeyFollowsProgramAndScripts(t *testing.T) {
	program := filepath.Join(t.TempDir(), "rhizome-node")
	if err := os.WriteFile(program, []byte("one"), 0o644); err != nil {
		t.Fatal(err)
	}
	a, err := Inputs(Spec{OS: "linux", Program: program})
	if err != nil || a["program"] == "" || a["/usr/sbin/rhizome-early"] == "" || len(a) != 3 {
		t.Fatal(a, err)
	}
	if err := os.WriteFile(program, []byte("two"), 0o644); err != nil {
		t.Fatal(err)
	}
	b, err := Inputs(Spec{OS: "linux", Program: program})
	if err != nil || a["program"] == b["program"] {
		t.Errorf("another program gives the same key (%v)", err)
	}
}
