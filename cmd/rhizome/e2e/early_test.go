package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"rhizome/cmd/rhizome/internal/rig"
	"rhizome/registry/imagefmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// This file follows the node's own life, docs/node.md: n1 reads everything over
// NFS and forgets its /etc, n5 holds the hot part in memory and has its /etc kept
// at the server, n6 lies in memory as a whole.

// mem gives a machine more memory.
func mem(mb int) func(*rig.Machine) {
	return func(m *rig.Machine) { m.MemoryMB = mb }
}

// reported waits until serve has heard of a step of a node, at or after a byte of
// what it printed, and returns the rest of that line.
func reported(t *testing.T, s *rig.Server, from int, node, step, state string) string {
	t.Helper()
	g, _ := awaitIn(t, s.Console, from, fmt.Sprintf(`node\.step node=%s [^\n]*file="?%s"? [^\n]*detail="%s at ([^\n]*)`, node, regexp.QuoteMeta(step), state))
	return g[1]
}

// mounts are the types of what is mounted, by place; the uppermost counts.
func mounts(t *testing.T, r *rig.Running) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, l := range strings.Split(shell(t, r, `cat /proc/self/mounts`), "\n") {
		if f := strings.Fields(l); len(f) >= 4 {
			all[f[1]] = f[2] + " " + strings.SplitN(f[3], ",", 2)[0]
		}
	}
	return all
}

func wantMounts(t *testing.T, r *rig.Running, node string, want map[string]string) {
	t.Helper()
	have := mounts(t, r)
	for on, kind := range want {
		if have[on] != kind {
			t.Errorf("%s: on %s lies %q, want %q", node, on, have[on], kind)
		}
	}
}

// rootCalls are the calls that the node's kernel has sent for its root (nfs(5),
// /proc/self/mountstats); those for /etc and /persist are exports of their own.
func rootCalls(t *testing.T, r *rig.Running) int {
	t.Helper()
	const sum = `awk '/ mounted on /{on=/ mounted on \/ with /} on && $1~/^[A-Z]+:$/ && NF>=9{n+=$2} END{print n+0}' /proc/self/mountstats`
	n, err := strconv.Atoi(shell(t, r, sum))
	if err != nil || n == 0 {
		t.Fatalf("%d calls, %v", n, err)
	}
	return n
}

// What each recipe key makes of a node, and what of it outlives a reboot: /etc
// and /persist at the server do, /etc and /var in memory do not. A damaged bundle
// is told of and left out.
func TestNodesLiveAsTheRecipeSays(t *testing.T) {
	w := need(t)
	n := lan(t)
	s := w.serve(t, n)
	one, five := w.boot(t, n, 1, nil), w.boot(t, n, 5, mem(640))
	login(t, one, "n1")
	login(t, five, "n5")
	reported(t, s, 0, "n5", "precache", "ok")
	wantMounts(t, one, "n1", map[string]string{"/": "nfs ro", "/tmp": "tmpfs rw", "/var": "tmpfs rw", "/etc": "overlay rw", "/persist": "nfs rw", "/usr": ""})
	wantMounts(t, five, "n5", map[string]string{"/": "nfs ro", "/tmp": "tmpfs rw", "/var": "tmpfs rw", "/etc": "nfs rw", "/persist": "nfs rw", "/usr": "overlay ro"})
	for node, r := range map[string]*rig.Running{"n1": one, "n5": five} {
		reported(t, s, 0, node, "tmpfs /var", "ok")
		reported(t, s, 0, node, "persist /persist", "ok")
		g, _ := awaitIn(t, s.Console, 0, `node\.up node=`+node+` [^\n]*`)
		if !strings.Contains(g[0], manifestOf(t, w, node)) {
			t.Errorf("%s is up, but not with its digest: %s", node, g[0])
		}
		if got := shell(t, r, `stat -c %a:%u /run/rhizome/token`); got != "400:0" {
			t.Errorf("%s: the token's mode and owner are %s", node, got)
		}
		if got := shell(t, r, `findmnt -n -r -o SIZE /tmp; dpkg-query -W -f '${Status}\n' dbus`); got != "64M\ninstall ok installed" {
			t.Errorf("%s:\n%s", node, got)
		}
		shell(t, r, `touch /var/forgotten && echo `+node+` > /etc/marker && echo `+node+` > /persist/marker && sync`)
	}
	plain, held := rootCalls(t, one), rootCalls(t, five)
	t.Logf("NFS calls for the root to here: %d over NFS, %d with the hot part in memory", plain, held)
	// On a machine so busy that its own network counts as slow, the bundle comes
	// after the boot.
	if late := strings.Contains(s.Console.Text(), `detail="skipped`); held >= plain && !late {
		t.Errorf("with the hot part in memory a boot took %d NFS calls, without it %d", held, plain)
	}
	before := workOnSkel(t, w, five)
	one.Off()
	five.Off()

	damage(t, w, "n5")
	from := len(s.Console.Text())
	one, five = w.boot(t, n, 1, nil), w.boot(t, n, 5, mem(640))
	if said := reported(t, s, from, "n5", "precache", "failed"); !strings.Contains(said, "going on without the bundle") {
		t.Errorf("serve heard %q", said)
	}
	await(t, five, 0, `rhizome-early: precache: failed: going on without the bundle`)
	login(t, one, "n1")
	login(t, five, "n5")
	wantMounts(t, five, "n5", map[string]string{"/usr": "", "/etc": "nfs rw"})
	const kept = `cat /persist/marker; cat /etc/marker 2>/dev/null || echo none; ls /var/forgotten 2>/dev/null || echo none`
	if got := shell(t, one, kept); got != "n1\nnone\nnone" {
		t.Errorf("n1 kept %q", got)
	}
	if got := shell(t, five, kept); got != "n5\nn5\nnone" {
		t.Errorf("n5 kept %q", got)
	}
	if got := shell(t, five, skel); got != before {
		t.Errorf("of what was written back to its /etc, n5 kept\n%s\nand not\n%s", got, before)
	}
}

// skel shows what workOnSkel made, as the node sees it.
const skel = `cd /etc/skel && ls -A && tail -n 1 .profile && cat more/x && stat -c %a .bash_logout`

// workOnSkel works on a folder of the node's kept /etc in memory, and holds node
// and server to what was written back.
func workOnSkel(t *testing.T, w *world, r *rig.Running) string {
	t.Helper()
	shell(t, r, `stat /etc/skel/.bash_logout && rhizome-node prefetch /etc/skel -- sh -c 'cd /etc/skel && test $(stat -f -c %T .) = tmpfs && echo mine >> .profile && rm .bashrc && chmod 600 .bash_logout && mkdir more && echo x > more/x'`)
	got := shell(t, r, skel)
	if want := ".bash_logout\n.profile\nmore\nmine\nx\n600"; got != want {
		t.Errorf("after prefetch, the node sees\n%s\nand not\n%s", got, want)
	}
	changes := string(tool(t, w.binary, "--store", w.store, "changes", "n5"))
	for _, want := range []string{`/etc/skel/\.profile +changed`, `/etc/skel/\.bashrc +removed`, `/etc/skel/\.bash_logout +mode`, `/etc/skel/more/x +added`} {
		if !regexp.MustCompile(want).MatchString(changes) {
			t.Errorf("rhizome changes says nothing of %s:\n%s", want, changes)
		}
	}
	return got
}

// refuseHTTP has the server's machine reset what nodes ask by HTTP for their blobs:
// from ports below 1024. All else goes on.
func refuseHTTP(t *testing.T, n *rig.Net) {
	t.Helper()
	if err := n.Run(t.Context(), "iptables", "-I", "INPUT", "-p", "tcp", "--dport", "80", "--sport", ":1023", "-j", "REJECT", "--reject-with", "tcp-reset"); err != nil {
		t.Fatal(err)
	}
}

// damage changes a byte of a node's bundle where only the digest of the whole
// sees it, in the seek table at the end (docs/storage.md), for the length of the
// test.
func damage(t *testing.T, w *world, node string) {
	t.Helper()
	var m ocispec.Manifest
	readBlob(t, w, manifestOf(t, w, node), &m)
	var config ocispec.Image
	readBlob(t, w, m.Config.Digest.String(), &config)
	_, spec, err := imagefmt.Parse(config.Config.Labels)
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range config.RootFS.DiffIDs {
		if d.String() != spec.Bundle {
			continue
		}
		blob := filepath.Join(w.store, "oci", "blobs", "sha256", m.Layers[i].Digest.Encoded())
		flip(t, blob, m.Layers[i].Size-12)
		t.Cleanup(func() { flip(t, blob, m.Layers[i].Size-12) })
		return
	}
	t.Fatalf("the image has no bundle %q for %s", spec.Bundle, node)
}

func flip(t *testing.T, file string, at int64) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0xff
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

// A root in memory is read over as many servers' lives as it takes, over NFS where
// HTTP no longer answers, and needs no server afterwards.
func TestARootInMemoryNeedsNoServer(t *testing.T) {
	w := alone(t)
	n := lan(t)
	s := w.serve(t, n)
	six := w.boot(t, n, 6, mem(1536))
	awaitIn(t, s.Console, 0, `node\.step node=n6 [^\n]*file=root [^\n]*detail="begin`)
	s.Kill()
	s = w.serve(t, n)
	awaitIn(t, s.Console, 0, `http\.get node=n6 [^\n]*/blobs/`)
	refuseHTTP(t, n)
	login(t, six, "n6")
	if said := reported(t, s, 0, "n6", "root", "ok"); !strings.Contains(said, "read over NFS where HTTP failed, at byte ") {
		t.Errorf("serve heard %q", said)
	}
	awaitIn(t, s.Console, 0, `node\.up node=n6 [^\n]*root \\?"ram`)
	wantMounts(t, six, "n6", map[string]string{"/": "tmpfs rw", "/tmp": "tmpfs rw", "/var": "tmpfs rw", "/etc": "overlay rw", "/persist": "nfs rw"})
	key, err := os.ReadFile(filepath.Join(w.store, "secrets", "e2e", "n6", "ssh", "ssh_host_ed25519_key.pub"))
	if err != nil {
		t.Fatal(err)
	}
	shell(t, six, `umount /persist`)
	s.Stop()
	if got := shell(t, six, `grep -c ' nfs ' /proc/self/mounts; cat /etc/ssh/ssh_host_ed25519_key.pub; echo 3 > /proc/sys/vm/drop_caches; ls -lR /usr > /dev/null && perl -e 'print "runs"'`); !strings.Contains(got, strings.TrimSpace(string(key))) || !strings.HasPrefix(got, "0\n") || !strings.HasSuffix(got, "runs") {
		t.Errorf("without a server the node says:\n%s", got)
	}
}
