package early

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", os.Getenv("RHIZOME_UPDATE_GOLDEN") != "", "write the golden files anew")

// The scripts are read by the shell of the base and by shellcheck.
func TestTheScriptsAreCleanShell(t *testing.T) {
	for name, skip := range map[string]string{"linux.sh": "", "freebsd.sh": "", "freebsd.rc": "SC1091,SC2034"} {
		if out, err := exec.Command("sh", "-n", "files/"+name).CombinedOutput(); err != nil {
			t.Errorf("sh -n %s: %v\n%s", name, err, out)
		}
		tool, err := exec.LookPath("shellcheck")
		if err != nil {
			t.Skip("skipped: shellcheck is not installed")
		}
		if out, err := exec.Command(tool, "-s", "sh", "-e", "SC1091,"+skip, "files/"+name).CombinedOutput(); err != nil {
			t.Errorf("shellcheck %s: %v\n%s", name, err, out)
		}
	}
}

// stub stands for each of FreeBSD's commands that the script calls: it writes
// down how it was called, fails where the test says so, and else says what the
// script goes by.
const stub = `#!/bin/sh
name=${0##*/}
echo "$name $*" | sed "s#$TOP##g" >>"$LOG"
case "$name $*" in
$FAIL) echo "$name: it fails" >&2; [ -z "$FILES" ] || seq -f "$name: file %.0f: No space left on device" "$FILES" >&2; exit 1 ;;
esac
case "$name $*" in
"kenv -q boot.nfsroot.server") echo 10.77.0.1 ;;
"mount -p") printf '10.77.0.1:/persist/f1\t%s\tnfs\trw\t0 0\n' "${INSIDE:-/persist}" ;;
"kenv -q boot.nfsroot.path") echo /nodes/f1 ;;
"tar -tf "*) printf '%s\n' etc/ etc/.wh.motd .wh.gone usr/lib/.wh..wh..opq ;;
"rhizome-node early")
	while read -r line; do
		case $line in
		hello*)
			[ -n "$NOPLAN" ] || cp "$TOP/plan" "$TOP/var/run/rhizome/plan"
			echo "${NOPLAN:-ok node f1 of rack}"
			continue ;;
		end) break ;;
		report*)
			echo "  told: $line" >>"$LOG"
			continue ;;
		esac
		echo "  asked: $line" | sed "s#$TOP##g" >>"$LOG"
		case $line in
		bundle*) echo "${BUNDLE:-ok}"; [ -z "$THEN" ] || { sleep 0.2; echo "$THEN"; } ;;
		layer*) echo "${LAYER:-ok}" ;;
		esac
	done
	echo "  it ended" >>"$LOG" ;;
esac
exit 0
`

// freebsdPlan is what rhizome-node writes of the plan.
const freebsdPlan = `plan_root='%s'
plan_layers='2'
plan_folders='/usr/bin
/usr/lib'
plan_etc='10.77.0.1:/cow/f1/etc'
plan_persist='10.77.0.1:/persist/f1'
plan_shared='10.77.0.1:/shared/rack'
`

// runFreeBSD runs the script over stubs and returns what it called, in order,
// and what it told.
func runFreeBSD(t *testing.T, conf, fail string, withNode bool, env ...string) string {
	t.Helper()
	top := t.TempDir()
	bin := filepath.Join(top, "stub")
	for _, d := range []string{bin, top + "/sbin", top + "/etc/rhizome", top + "/etc/ssh", top + "/persist", top + "/shared", top + "/var/run", top + "/usr/lib/rhizome/root/usr/lib", top + "/usr/lib/rhizome/root" + top + "/persist",
		top + "/var/run/rhizome/bundle/usr/bin", top + "/var/run/rhizome/bundle/usr/lib"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile("files/freebsd.sh")
	if err != nil {
		t.Fatal(err)
	}
	// The script's own places move below top, and what it runs to the stubs.
	script := string(text)
	for _, place := range []string{"conf=/etc", "node=/sbin", "place=/usr", "here=/var"} {
		key, path, _ := strings.Cut(place, "=")
		if !strings.Contains(script, "\n"+place) {
			t.Fatalf("the script no longer sets %s", place)
		}
		script = strings.Replace(script, "\n"+place, "\n"+key+"="+top+path, 1)
	}
	script = strings.Replace(script, "PATH=/sbin:/bin:/usr/sbin:/usr/bin", "PATH="+bin+":/bin:/usr/bin", 1)
	script = strings.ReplaceAll(script, ">/dev/console", `>>"$LOG"`)
	root := "nfs"
	for _, mode := range []string{"precache", "ram"} {
		if strings.Contains(conf, "root='"+mode+"'") {
			root = mode
		}
	}
	for file, content := range map[string]string{
		"early.sh": script, "plan": fmt.Sprintf(freebsdPlan, root), "stub/all": stub, "etc/ssh/ssh_host_key": "secret",
		"etc/rhizome/early.conf": strings.ReplaceAll(conf, "'/", "'"+top+"/"),
	} {
		if err := os.WriteFile(filepath.Join(top, file), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"mount", "umount", "mtree", "tar", "kldload", "kenv"} {
		if err := os.Symlink("all", filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	if withNode {
		if err := os.Symlink("../stub/all", top+"/sbin/rhizome-node"); err != nil {
			t.Fatal(err)
		}
	}
	log := filepath.Join(top, "log")
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	cmd := exec.CommandContext(ctx, "sh", top+"/early.sh", "autoboot")
	cmd.WaitDelay = time.Second
	cmd.Env = []string{"LOG=" + log, "TOP=" + top, "FAIL=" + fail}
	cmd.Env = append(cmd.Env, env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("init would stop in single user mode: %v\n%s", err, out)
	}
	done, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(done), top, "")
}

const freebsdTmpfs = "tmpfs='1777 64m /tmp\n0755 - /var'\n"

// calls leaves out what is told: it comes beside the calls, in no fixed place.
func calls(log string) (does, told string) {
	for l := range strings.Lines(log) {
		if strings.HasPrefix(l, "  told: ") || strings.HasPrefix(l, "  it ended") {
			told += l
		} else {
			does += l
		}
	}
	return does, told
}

// The order of what the script does in each mode is recorded: read the diff
// before you write it anew.
func TestFreeBSDsScriptDoesEachStepInItsOrder(t *testing.T) {
	for name, c := range map[string]struct {
		conf, fail, env string
		told            []string
	}{
		"nfs": {"root='nfs'\netc='volatile'\npersist='/persist'\nshared='/shared'\n" + freebsdTmpfs, "-", "",
			[]string{"tmpfs", "etc volatile\tok", "persist"}},
		"precache": {"root='precache'\netc='persistent'\n" + freebsdTmpfs, "-", "",
			[]string{"precache\tok\ttarfs: /usr/bin /usr/lib", "etc persistent\tok"}},
		"precache-without-tarfs": {"root='precache'\n" + freebsdTmpfs, "mount -r -t tarfs*", "",
			[]string{"precache\tok\tunpacked, for tarfs did not take it: /usr/bin /usr/lib"}},
		"precache-damaged": {"root='precache'\n" + freebsdTmpfs, "-", "BUNDLE=failed going on without the bundle: it has the digest sha256:ff",
			nil},
		"ram": {"root='ram'\netc='volatile'\npersist='/persist'\nsecrets='/etc/ssh/ssh_host_*'\n" + freebsdTmpfs, "-", "",
			[]string{"root\tok"}},
		"ram-damaged": {"root='ram'\netc='volatile'\n" + freebsdTmpfs, "-", "LAYER=failed layer 1 of 2: the blob has the digest sha256:ff",
			[]string{"root\tfailed\tlayer 1 of 2: the blob has the digest sha256:ff", "etc volatile\tok"}},
		"no-memory": {"root='nfs'\netc='persistent'\n" + freebsdTmpfs, "mount -t tmpfs*", "",
			[]string{"tmpfs /var\tfailed\tmount: it fails", "etc persistent\tok"}},
		"small-var": {"root='nfs'\netc='volatile'\n" + freebsdTmpfs, "tar -C */var -xpf*", "",
			[]string{"tmpfs /var\tfailed\ttar: it fails", "etc volatile\tok"}},
		"exports-refused": {"root='nfs'\netc='persistent'\npersist='/persist'\n" + freebsdTmpfs, "mount -t nfs*", "",
			[]string{"etc persistent\tfailed\tmount: it fails", "etc volatile\tok", "persist"}},
		"no-server": {"root='precache'\netc='volatile'\npersist='/persist'\n" + freebsdTmpfs, "-", "NOPLAN=failed connection refused",
			[]string{"persist"}},
	} {
		t.Run(name, func(t *testing.T) {
			env := []string{c.env}
			if name == "no-server" {
				env = append(env, "BUNDLE=failed there is no plan: the server could not be asked")
			}
			does, told := calls(runFreeBSD(t, c.conf, c.fail, true, env...))
			for _, want := range c.told {
				if !strings.Contains(told, want) {
					t.Errorf("the server was not told %q, but\n%s", want, told)
				}
			}
			golden(t, "freebsd-"+name+".golden", does)
		})
	}
}

// On a slow link the script ends without the bundle. When rhizome-node has it all it
// is laid over the root and told, and only then rhizome-node may end.
func TestFreeBSDsScriptDoesNotWaitForASlowBundle(t *testing.T) {
	log := runFreeBSD(t, "root='precache'\netc='volatile'\n"+freebsdTmpfs, "-", true,
		"BUNDLE=later the link is slow (0.1 MB in 1.0 s): going on in the background", "THEN=ok")
	before := 0
	for _, want := range []string{"rhizome-early: precache: skipped: the link is slow", "rhizome-early: etc volatile: ok", "mount -r -t tarfs", "precache: ok: tarfs: /usr/bin /usr/lib", "  it ended"} {
		at := strings.Index(log, want)
		if at < before {
			t.Fatalf("no %q, or not in its place, in\n%s", want, log)
		}
		before = at
	}
	if _, told := calls(log); !strings.Contains(told, "precache\tok\ttarfs") {
		t.Errorf("the server was told\n%s", told)
	}
}

// A bundle that comes later hides nothing that the node mounted meanwhile.
func TestFreeBSDsLateBundleHidesNoMount(t *testing.T) {
	log := runFreeBSD(t, "root='precache'\n"+freebsdTmpfs, "-", true, "BUNDLE=later the link is slow", "THEN=ok", "INSIDE=/usr/lib/data")
	const want = "precache: ok: tarfs: /usr/bin; /usr/lib stays as it is: something is mounted in it"
	if !strings.Contains(log, want) || strings.Contains(log, "mount -t nullfs -o ro /var/run/rhizome/bundle/usr/lib") {
		t.Errorf("no %q in\n%s", want, log)
	}
}

func TestWithoutRhizomeNodeFreeBSDGoesOn(t *testing.T) {
	log := runFreeBSD(t, "root='precache'\netc='persistent'\n"+freebsdTmpfs, "-", false)
	for _, want := range []string{"there is no /sbin/rhizome-node: going on without it", "precache: failed: rhizome-node is gone", "10.77.0.1:/cow/f1/etc /etc", "etc persistent: ok"} {
		if !strings.Contains(log, want) {
			t.Errorf("no %q in\n%s", want, log)
		}
	}
}

// The same as in TestACommandThatSaysMuchDoesNotHoldDebiansBoot.
func TestACommandThatSaysMuchDoesNotHoldFreeBSDsBoot(t *testing.T) {
	log := runFreeBSD(t, "root='nfs'\netc='volatile'\n"+freebsdTmpfs, "tar -C * -xpf *", true, "FILES=5000")
	if _, told := calls(log); len(told) > 5000 || !strings.Contains(told, "tmpfs /var\tfailed\ttar: it fails tar: file 1:") || !strings.Contains(told, "etc volatile\tfailed\ttar:") {
		t.Errorf("it told\n%.2000s", told)
	}
}

// What came over NFS is said at the console and the server, with the bundle or
// the root that it belongs to.
func TestFreeBSDsScriptSaysWhatCameOverNFS(t *testing.T) {
	const note = "read over NFS where HTTP failed, at byte 0: connection refused"
	for mode, want := range map[string]string{
		"precache": "precache: ok: tarfs: /usr/bin /usr/lib; " + note,
		"ram":      "root: ok: " + note,
	} {
		log := runFreeBSD(t, "root='"+mode+"'\n", "-", true, "BUNDLE=ok "+note, "LAYER=ok "+note)
		_, told := calls(log)
		if !strings.Contains(log, "rhizome-early: "+want) || !strings.Contains(told, "\tok\t") || !strings.Contains(told, note) {
			t.Errorf("no %q in\n%s", want, log)
		}
	}
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
		t.Errorf("%s differs; run with -update if the change is meant\ngot\n%s\nwant\n%s", file, got, want)
	}
}
