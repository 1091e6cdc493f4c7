package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rhizome/cmd/rhizome/internal/rig"
)

// tiny is a recipe whose image is built in a moment, out of release sets that
// are made here: enough for whatever does not boot.
func tiny(t *testing.T) (recipe string) {
	t.Helper()
	dir := t.TempDir()
	script, err := os.ReadFile("testdata/script/freebsd_dists.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range strings.Split(string(script), "\n-- ")[1:] {
		name, body, _ := strings.Cut(part, " --\n")
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(body+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	pack := exec.Command("sh", "pack.sh")
	pack.Dir = dir
	if out, err := pack.CombinedOutput(); err != nil {
		t.Fatalf("packing the sets: %v\n%s", err, out)
	}
	return filepath.Join(dir, "cluster.yaml")
}

// rhizome runs the program in this process.
func rhizome(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(t.Context(), args, streams{in: strings.NewReader(""), out: &o, err: &e, env: os.LookupEnv})
	return code, o.String(), e.String()
}

// listing is a store's files with their sums, but for the locks.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(p)
		if len(data) > 0 {
			fmt.Fprintf(&b, "%s %x\n", strings.TrimPrefix(p, dir), sha256.Sum256(data))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// A port that another process has is named with that process; serve ends with
// the code for a conflict, and the store is as it was.
func TestServeNamesWhoHasThePort(t *testing.T) {
	if err := rig.Usable(); err != nil {
		t.Skipf("skipped: %v", err)
	}
	store := filepath.Join(t.TempDir(), "store")
	if code, _, errs := rhizome(t, "--store", store, "build", tiny(t), "--tag", "bsd"); code != 0 {
		t.Fatalf("build: %s", errs)
	}
	binary := filepath.Join(t.TempDir(), "rhizome")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	before := listing(t, store)
	for _, c := range []struct {
		port   string
		holder []string
	}{
		{"67", []string{"dnsmasq", "--no-daemon", "--port=0", "--conf-file=/dev/null", "--dhcp-range=10.77.0.50,10.77.0.60", "--interface=br0"}},
		{"69", []string{"dnsmasq", "--no-daemon", "--port=0", "--conf-file=/dev/null", "--enable-tftp", "--tftp-root=/nonexistent", "--tftp-no-fail", "--interface=br0"}},
		{"111", []string{"busybox", "nc", "-l", "-p", "111"}},
	} {
		t.Run(c.port, func(t *testing.T) { refusedPort(t, binary, store, c.port, c.holder) })
	}
	if after := listing(t, store); after != before {
		t.Errorf("the store changed:\nbefore\n%s\nafter\n%s", before, after)
	}
}

func refusedPort(t *testing.T, binary, store, port string, holder []string) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	n, err := rig.NewNet(ctx, fmt.Sprintf("rz-port-%s-%d", port, os.Getpid()), "10.77.0.1/24")
	if err != nil {
		t.Skipf("skipped: no network namespace: %v", err)
	}
	defer n.Close()
	h, err := n.Start(ctx, nil, holder...)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Kill()
	awaitPort(t, n, port)
	out, err := n.Command(ctx, binary, "--store", store, "serve", "bsd", "--interface", "br0").CombinedOutput()
	name := holder[0]
	if code := exitOf(err); code != exitConflict {
		t.Errorf("exit code %d, want %d", code, exitConflict)
	}
	for _, want := range []string{"port " + port, "taken by " + name + " (pid ", "stop it"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the message does not say %q:\n%s", want, out)
		}
	}
}

func exitOf(err error) int {
	if e, ok := err.(*exec.ExitError); ok { //nolint:errorlint // exec's own
		return e.ExitCode()
	}
	return 0
}

// awaitPort waits until somebody in the namespace has the port.
func awaitPort(t *testing.T, n *rig.Net, port string) {
	t.Helper()
	for range 200 {
		out, err := n.Command(t.Context(), "ss", "-Hlntu", "sport", "=", port).Output()
		if err == nil && len(out) > 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("nobody took port %s", port)
}

// A full disk in the middle of a build is one sentence with a remedy; what was
// built before is whole, and the build goes on when there is room.
func TestFullDiskLosesNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("skipped: not root: a small file system cannot be mounted")
	}
	small := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", small).CombinedOutput(); err != nil {
		t.Skipf("skipped: no tmpfs can be mounted: %v %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", small).CombinedOutput(); err != nil {
			t.Errorf("umount: %v %s", err, out)
		}
	})
	recipe, store := tiny(t), filepath.Join(small, "store")
	code, _, errs := rhizome(t, "--store", store, "build", recipe)
	if code != exitFailed || !strings.Contains(strings.ToLower(errs), "no space left on device") || !strings.Contains(errs, "hint: free some space") {
		t.Errorf("exit code %d, want %d and a sentence with a remedy:\n%s", code, exitFailed, errs)
	}
	if code, out, errs := rhizome(t, "--store", store, "images", "--json"); code != 0 || strings.TrimSpace(out) != "[]" {
		t.Errorf("after the failure, images gives code %d, %s %s", code, out, errs)
	}
	if out, err := exec.Command("mount", "-o", "remount,size=64m", small).CombinedOutput(); err != nil {
		t.Fatalf("remount: %v %s", err, out)
	}
	if code, _, errs := rhizome(t, "--store", store, "build", recipe); code != 0 {
		t.Errorf("with room again, the build still fails: %s", errs)
	}
}

// An interface that is not there is code 3, one without the server's address
// says how to give it.
func TestServeSaysWhatIsWrongWithTheInterface(t *testing.T) {
	store := filepath.Join(t.TempDir(), "store")
	if code, _, errs := rhizome(t, "--store", store, "build", tiny(t), "--tag", "bsd"); code != 0 {
		t.Fatalf("build: %s", errs)
	}
	code, _, errs := rhizome(t, "--store", store, "serve", "bsd", "--interface", "nothere0")
	if code != exitNotFound || !strings.Contains(errs, `there is no interface "nothere0" here`) {
		t.Errorf("code %d: %s", code, errs)
	}
	code, _, errs = rhizome(t, "--store", store, "serve", "bsd", "--interface", "lo")
	if code != exitFailed || !strings.Contains(errs, "ip addr add 10.77.0.1/24 dev lo") {
		t.Errorf("code %d: %s", code, errs)
	}
}
