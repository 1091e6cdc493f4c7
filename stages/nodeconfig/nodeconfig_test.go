package nodeconfig

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"rhizome/pipeline/tree"
	"rhizome/recipes"
)

var update = flag.Bool("update", os.Getenv("RHIZOME_UPDATE_GOLDEN") != "", "write the golden files anew")

const linuxRecipe = `
version: 1
name: web
os: linux
epoch: 2026-11-01T00:00:00Z
source: {debian: bookworm}
stages: [{kernel: {}}, {media: {ipxe: true}}]
network: {subnet: 10.77.0.0/24, server: 10.77.0.1, gateway: 10.77.0.254, dns: [10.77.0.1, 10.77.0.2], domain: example.org}
nodes:
  - name: n[1-2]
    mac: ["52:54:00:77:00:[01-02]", "52:54:00:77:01:[01-02]"]
    address: 10.77.0.[11-12]
    persist: /persist
    cmdline: quiet
    tmpfs: {/tmp: 64M, /scratch: "", /var/cache: none}
    fstab: ["10.77.0.1:/home /home nfs rw,nodev 0 0", "swapfile none swap sw 0 0"]
`

const freebsdRecipe = `
version: 1
name: rack
os: freebsd
epoch: 2026-11-01T00:00:00Z
source: {src: /usr/src}
stages: [{world: {}}, {distribution: {}}, {kernel: {config: GENERIC}}]
network: {subnet: 10.77.0.0/24, server: 10.77.0.1, domain: example.org}
nodes:
  - name: f1
    mac: 52:54:00:77:00:01
    address: 10.77.0.21
    rc.conf: {sshd_enable: "YES", kldxref_enable: "YES", motto: 'a "$HOME" and \ '}
    loader.conf: {autoboot_delay: "1"}
    kenv: {nfs.read_size: "16384"}
    tmpfs: {/var: 128M}
    fstab: ["10.77.0.1:/home /home nfs rw 0 0"]
`

// withEarly is the same recipe with the early stage and what goes with it.
func withEarly(recipe string) string {
	return strings.NewReplacer("stages: [", "stages: [{early: {}}, ", "    tmpfs: ",
		"    etc: volatile\n    shared: /shared\n    secrets: [ssh-host-keys, {kind: file, path: /etc/it's mine}]\n    tmpfs: ").Replace(recipe)
}

func parse(t *testing.T, text string) *recipes.Recipe {
	t.Helper()
	r, found := recipes.Check("test.yaml", []byte(text), os.DirFS(t.TempDir()))
	if found.Errors() > 0 {
		t.Fatal(found.Err())
	}
	return r
}

// listing shows every path with its owner and mode, and every text.
func listing(t *testing.T, tr *tree.Tree) string {
	t.Helper()
	var b strings.Builder
	for _, e := range tr.Entries() {
		if e.Implied {
			continue
		}
		fmt.Fprintf(&b, "%s %d:%d /%s\n", e.Perm(), e.UID, e.GID, e.Path)
		if e.Kind == tree.File {
			for _, l := range strings.SplitAfter(text(t, tr, e.Path), "\n") {
				if l != "" {
					b.WriteString("    | " + l)
				}
			}
		}
	}
	return b.String()
}

func text(t *testing.T, tr *tree.Tree, p string) string {
	t.Helper()
	e := tr.Lookup(p)
	if e == nil {
		t.Fatalf("no /%s", p)
	}
	r, err := e.Body.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; if the change is meant, raise Version and run with -update\ngot\n%s\nwant\n%s", file, got, want)
	}
}

func TestNodeTreesAreAsRecorded(t *testing.T) {
	for name, recipe := range map[string]string{
		"linux": linuxRecipe, "freebsd": freebsdRecipe,
		"linux-early": withEarly(linuxRecipe), "freebsd-early": withEarly(freebsdRecipe),
	} {
		r := parse(t, recipe)
		node, err := Build(r, &r.Nodes[0])
		if err != nil {
			t.Fatal(err)
		}
		common, err := Common(r)
		if err != nil {
			t.Fatal(err)
		}
		boot := Cmdline(r, &r.Nodes[0])
		if r.OS == "freebsd" {
			boot = strings.Join(Kenv(&r.Nodes[0]), "\n")
		}
		golden(t, name+".golden", "# The node's layer\n"+listing(t, node)+"# What all nodes share\n"+listing(t, common)+"# For the boot spec\n"+boot+"\n")
	}
}

func TestTwoNodesDifferInNameIdentityAndCardsAlone(t *testing.T) {
	r := parse(t, linuxRecipe)
	a, errA := Build(r, &r.Nodes[0])
	b, errB := Build(r, &r.Nodes[1])
	if errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	var differ []string
	for _, e := range a.Entries() {
		if e.Kind == tree.File && text(t, a, e.Path) != text(t, b, e.Path) {
			differ = append(differ, e.Path)
		}
	}
	want := "etc/NetworkManager/conf.d/10-rhizome.conf etc/hostname etc/machine-id etc/systemd/network/10-rhizome.network"
	if got := strings.Join(differ, " "); got != want {
		t.Errorf("these differ: %s", got)
	}
}

func TestMachineIDsAreUUIDsOfTheirOwn(t *testing.T) {
	seen := map[string]string{}
	for _, cluster := range []string{"a", "b"} {
		for i := range 200 {
			node := fmt.Sprintf("n%d", i)
			id := MachineID(cluster, node)
			if !regexp.MustCompile(`^[0-9a-f]{12}8[0-9a-f]{3}[89ab][0-9a-f]{15}$`).MatchString(id) {
				t.Fatalf("%s is no version 8 UUID", id)
			}
			if other, ok := seen[id]; ok {
				t.Fatalf("%s/%s and %s have the same machine-id", cluster, node, other)
			}
			seen[id] = cluster + "/" + node
		}
	}
	// The boundary between the names counts.
	if MachineID("a", "bc") == MachineID("ab", "c") {
		t.Error("two clusters share a machine-id")
	}
}

func TestTheCommandLineHasOnlyWhatNfsmountOfTheInitramfsKnows(t *testing.T) {
	// klibc 2.0.12, usr/kinit/nfsmount/main.c, int_opts and bool_opts.
	known := map[string]bool{}
	for _, w := range strings.Fields("port nfsvers vers rsize wsize timeo retrans acregmin acregmax acdirmin acdirmax " +
		"soft hard intr nointr posix noposix cto nocto ac noac lock nolock acl noacl v2 v3 udp tcp broken_suid ro rw") {
		known[w] = true
	}
	for _, o := range strings.Split(nfsOptions, ",") {
		name, _, _ := strings.Cut(o, "=")
		if !known[name] {
			t.Errorf("nfsmount would end the boot with: bad option %q", name)
		}
	}
}

func TestAConsoleInTheRecipeReplacesTheUsualOnes(t *testing.T) {
	r := parse(t, strings.Replace(linuxRecipe, "cmdline: quiet", "cmdline: [console=ttyS1, quiet]", 1))
	got := Cmdline(r, &r.Nodes[0])
	if strings.Contains(got, "tty0") || !strings.HasSuffix(got, " console=ttyS1 quiet") {
		t.Error(got)
	}
}

func TestRcConfGivesTheShellTheValuesAsTheyWereWritten(t *testing.T) {
	r := parse(t, freebsdRecipe)
	node, err := Build(r, &r.Nodes[0])
	if err != nil {
		t.Fatal(err)
	}
	script := text(t, node, "etc/rc.conf") + `printf '%s' "$motto"`
	out, err := exec.Command("sh", "-c", script).Output()
	if err != nil || string(out) != `a "$HOME" and \ ` {
		t.Errorf("sh reads %q (%v)", out, err)
	}
}

// findmnt reads fstab as mount(8) does.
func TestTheMadeFstabPassesFindmntVerify(t *testing.T) {
	tool, err := exec.LookPath("findmnt")
	if err != nil {
		t.Skip("skipped: findmnt is not installed")
	}
	r := parse(t, linuxRecipe)
	node, err := Build(r, &r.Nodes[0])
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "fstab")
	if err := os.WriteFile(file, []byte(text(t, node, "etc/fstab")), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(tool, "--fstab", "--tab-file", file, "--noheadings", "--output", "TARGET,FSTYPE,OPTIONS").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"/tmp", "size=64m", "/scratch", "/home", "nfs"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("findmnt does not see %s in\n%s", want, out)
		}
	}
}

// Every mount of the made fstab has its mount point in the same layer: systemd
// stops in its emergency mode where one is missing.
func TestEveryMountPointIsThere(t *testing.T) {
	for _, recipe := range []string{linuxRecipe, freebsdRecipe} {
		r := parse(t, recipe)
		node, err := Build(r, &r.Nodes[0])
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range strings.Split(text(t, node, "etc/fstab"), "\n") {
			f := recipes.FstabFields(l)
			if len(f) < 2 || f[1] == "none" {
				continue
			}
			if e := node.Lookup(f[1]); e == nil || e.Kind != tree.Dir || e.Implied {
				t.Errorf("%s: nothing to mount %s on", r.OS, f[1])
			}
		}
	}
}

// fstab(5) writes a blank within a name as \040; the folder has the blank, or the
// mount fails at every boot.
func TestAMountPointWithABlankInItsNameIsMadeAsMountReadsIt(t *testing.T) {
	r := parse(t, strings.Replace(freebsdRecipe, "/home /home nfs", `/home /our\\040home nfs`, 1))
	node, err := Build(r, &r.Nodes[0])
	if err != nil {
		t.Fatal(err)
	}
	if e := node.Lookup("our home"); e == nil || e.Kind != tree.Dir {
		t.Errorf("there is no /our home in\n%s", listing(t, node))
	}
	if !strings.Contains(text(t, node, "etc/fstab"), `/our\040home`) {
		t.Error("the line in fstab is another")
	}
}
