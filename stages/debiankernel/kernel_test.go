package debiankernel_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rhizome/pipeline/tree"
	"rhizome/stages/debian"
	"rhizome/stages/debian/aptlock"
	"rhizome/stages/debian/bootstrap"
	"rhizome/stages/debiankernel"
)

func TestTakeWantsExactlyOneKernel(t *testing.T) {
	for name, c := range map[string]struct {
		files []string
		says  string
	}{
		"none":         {nil, "bring 0 kernels"},
		"two":          {[]string{"boot/vmlinuz-6.1", "boot/vmlinuz-6.12"}, "bring 2 kernels (6.1, 6.12)"},
		"no initramfs": {[]string{"boot/vmlinuz-6.1"}, `no initramfs "/boot/initrd.img-6.1"`},
	} {
		_, err := debiankernel.Take(rootOf(t, c.files...))
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want %q", name, err, c.says)
		}
	}
}

func TestTheLayerHoldsTheKernelAndNothingElse(t *testing.T) {
	k, err := debiankernel.Take(rootOf(t, "boot/vmlinuz-6.1", "boot/initrd.img-6.1", "boot/config-6.1", "boot/grub/grub.cfg",
		"usr/lib/modules/6.1/modules.dep", "usr/lib/modules/6.12/modules.dep", "usr/bin/sh"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range k.Tree.Entries() {
		if !e.Implied {
			got = append(got, e.Path)
		}
	}
	want := "boot/config-6.1 boot/initrd.img boot/initrd.img-6.1 boot/vmlinuz boot/vmlinuz-6.1 usr/lib/modules/6.1/modules.dep"
	if strings.Join(got, " ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, " "), want)
	}
}

func TestAModulesNameNeverReachesTheShell(t *testing.T) {
	_, err := debiankernel.Build(t.Context(), debian.Env{}, debiankernel.Spec{Modules: []string{"dummy; reboot"}})
	if err == nil || !strings.Contains(err.Error(), `"dummy; reboot" is not the name of a kernel module`) {
		t.Errorf("got %v", err)
	}
}

func rootOf(t *testing.T, files ...string) *tree.Tree {
	t.Helper()
	root := tree.New()
	for _, p := range files {
		if err := root.Add(tree.Entry{Path: p, Kind: tree.File, Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// A real kernel, the smallest that Debian has, and what a node needs of its
// initramfs to come as far as its root.
func TestTheInitramfsHasWhatAnNFSRootNeeds(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: builds a Debian root with a kernel")
	}
	env := environment(t)
	req := debiankernel.Request("bookworm", []string{"main"}, "amd64", []string{"linux-image-cloud-amd64"})
	set, err := env.Apt.Resolve(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	k, err := debiankernel.Build(t.Context(), env, debiankernel.Spec{Request: req, Set: set, Epoch: time.Unix(1793491200, 0), Modules: []string{"overlay"}})
	if err != nil {
		log, _ := os.ReadFile(env.LogFile)
		t.Fatalf("%v\n%s", err, log)
	}
	list := contents(t, k.Tree.Lookup(k.Initrd))
	for _, want := range []string{"usr/bin/nfsmount", "usr/bin/ipconfig", "usr/bin/busybox", "scripts/nfs", "usr/lib/modules/" + k.Version + "/kernel/",
		"/virtio_net.ko", "/ena.ko", "/nfs.ko", "/nfsv3.ko", "/overlay.ko", "udevd", "80-drivers.rules"} {
		if !strings.Contains(list, want) {
			t.Errorf("the initramfs has no %s", want)
		}
	}
	if size := k.Tree.Lookup(k.Initrd).Size(); size > 20<<20 {
		t.Errorf("the initramfs has %d bytes, which each node fetches at each boot", size)
	}
	if e := k.Tree.Lookup("usr/lib/modules/" + k.Version + "/modules.dep"); e == nil || e.Size() == 0 {
		t.Error("the layer has no modules.dep")
	}
}

// contents lists an initramfs with the tool that Debian's users list it with,
// or with cpio where that is not there.
func contents(t *testing.T, e *tree.Entry) string {
	t.Helper()
	r, err := e.Body.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	name := filepath.Join(t.TempDir(), "initrd.img")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(f, r); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("sh", "-c", fmt.Sprintf("zstd -dc <%q | bsdtar -tf -", name)).CombinedOutput()
	if err != nil {
		t.Fatalf("listing the initramfs: %v: %s", err, out)
	}
	return string(out)
}

func environment(t *testing.T) debian.Env {
	t.Helper()
	if _, err := bootstrap.Versions(t.Context()); err != nil {
		t.Skipf("skipped: %v", err)
	}
	if _, err := bootstrap.Enter(t.Context()); err != nil {
		t.Skipf("skipped: %v", err)
	}
	sys, err := aptlock.ReadSystem(t.Context())
	if err != nil {
		t.Skipf("skipped: %v", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = t.TempDir()
	}
	work := t.TempDir()
	return debian.Env{Work: work, LogFile: filepath.Join(work, "log"), Apt: &aptlock.Apt{Cache: filepath.Join(cache, "rhizome"), System: sys}}
}
