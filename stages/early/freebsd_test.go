package early

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

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
$FAIL) echo "$name: it fails" >&2; exit 1 ;;
esac
case "$name $*" in
"kenv -q boot.nfsroot.server") echo 10.77.0.1 ;;
"kenv -q boot.nfsroot.path") echo /nodes/f1 ;;
"fetch "*/plan) cat "$TOP/plan" ;;
"fetch "*/blobs/*) echo "${7##*/}" >"$6" ;;
"sha256 "*) if [ "$SUM" = right ]; then cat "$2"; else echo "$SUM"; fi ;;
"sysctl -n vm.stats.vm.v_free_count") echo 100000 ;;
"sysctl -n hw.pagesize") echo 4096 ;;
"sysctl -n hw.physmem") echo 536870912 ;;
"tar -tf "*) printf '%s\n' etc/ etc/.wh.motd .wh.gone usr/lib/.wh..wh..opq ;;
"rhizome-node early")
	while read -r line; do
		case $line in
		hello*) echo ok "node f1 of rack" ;;
		end) break ;;
		esac
		echo "  told: $line" >>"$LOG"
	done ;;
"rhizome-node early get "*) echo "${3##*/}" >"$4"; [ -z "$NOTE" ] || echo "$NOTE" ;;
esac
exit 0
`

// freebsdPlan is as serve answers it (nodeapi.Plan).
const freebsdPlan = `{"node":"f1","cluster":"rack","digest":"sha256:aa","os":"freebsd","root":"%s","export":"10.77.0.1:/nodes/f1","blobs":"10.77.0.1:/blobs/f1",` +
	`"bundle":{"url":"http://10.77.0.1/blobs/sha256/b0","digest":"sha256:b0","diffId":"sha256:d0","size":29000000,"uncompressed":135000000,"index":{"offset":1,"size":2,"digest":"sha256:i"},"folders":["/usr/bin","/usr/lib"]},` +
	`"layers":[{"url":"http://10.77.0.1/blobs/sha256/b1","digest":"sha256:b1","diffId":"sha256:d1","size":4000,"uncompressed":9000},{"url":"http://10.77.0.1/blobs/sha256/b2","digest":"sha256:b2","size":4,"uncompressed":9}],` +
	`"persist":{"path":"/persist","export":"10.77.0.1:/persist/f1"},"shared":{"path":"/shared","export":"10.77.0.1:/shared/rack"},"copyOnWrite":[{"path":"/etc","export":"10.77.0.1:/cow/f1/etc"}]}`

// runFreeBSD runs the script over stubs and returns what it called, in order,
// and what it told.
func runFreeBSD(t *testing.T, conf, fail, sum string, withNode bool, env ...string) string {
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
		"early.sh": script, "plan": strings.NewReplacer(`"path":"/p`, `"path":"`+top+`/p`, `"path":"/s`, `"path":"`+top+`/s`).Replace(fmt.Sprintf(freebsdPlan, root)), "stub/all": stub, "etc/ssh/ssh_host_key": "secret",
		"etc/rhizome/early.conf": strings.ReplaceAll(conf, "'/", "'"+top+"/"),
	} {
		if err := os.WriteFile(filepath.Join(top, file), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"mount", "umount", "mtree", "tar", "fetch", "sha256", "sysctl", "kldload", "kenv"} {
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
	cmd := exec.Command("sh", top+"/early.sh", "autoboot")
	cmd.Env = []string{"LOG=" + log, "TOP=" + top, "FAIL=" + fail, "SUM=" + sum}
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
		if strings.HasPrefix(l, "  told: ") {
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
		conf, fail, sum string
		told            []string
	}{
		"nfs": {"root='nfs'\netc='volatile'\npersist='/persist'\nshared='/shared'\n" + freebsdTmpfs, "-", "right",
			[]string{"tmpfs", "etc volatile\tok", "persist"}},
		"precache": {"root='precache'\netc='persistent'\n" + freebsdTmpfs, "-", "right",
			[]string{"precache\tok\ttarfs: /usr/bin /usr/lib", "etc persistent\tok"}},
		"precache-without-tarfs": {"root='precache'\n" + freebsdTmpfs, "mount -r -t tarfs*", "right",
			[]string{"precache\tok\tunpacked, for tarfs did not take it: /usr/bin /usr/lib"}},
		"precache-damaged": {"root='precache'\n" + freebsdTmpfs, "-", "ff",
			[]string{"precache\tfailed\tgoing on without the bundle: the blob has the digest sha256:ff, and should have sha256:b0"}},
		"ram": {"root='ram'\netc='volatile'\npersist='/persist'\nsecrets='/etc/ssh/ssh_host_*'\n" + freebsdTmpfs, "-", "right",
			[]string{"root\tok"}},
		"ram-damaged": {"root='ram'\netc='volatile'\n" + freebsdTmpfs, "-", "ff",
			[]string{"root\tfailed\tthe blob has the digest sha256:ff, and should have sha256:b1", "etc volatile\tok"}},
		"no-memory": {"root='nfs'\netc='persistent'\n" + freebsdTmpfs, "mount -t tmpfs*", "right",
			[]string{"tmpfs /var\tfailed\tmount: it fails", "etc persistent\tok"}},
		"exports-refused": {"root='nfs'\netc='persistent'\npersist='/persist'\n" + freebsdTmpfs, "mount -t nfs*", "right",
			[]string{"etc persistent\tfailed\tmount: it fails", "etc volatile\tok", "persist"}},
		"no-server": {"root='precache'\netc='volatile'\npersist='/persist'\n" + freebsdTmpfs, "fetch*", "right",
			[]string{"plan\tfailed", "precache\tskipped", "persist"}},
	} {
		t.Run(name, func(t *testing.T) {
			does, told := calls(runFreeBSD(t, c.conf, c.fail, c.sum, true))
			for _, want := range c.told {
				if !strings.Contains(told, want) {
					t.Errorf("the server was not told %q, but\n%s", want, told)
				}
			}
			golden(t, "freebsd-"+name+".golden", does)
		})
	}
}

func TestWithoutRhizomeNodeFreeBSDGoesOn(t *testing.T) {
	log := runFreeBSD(t, "root='precache'\netc='volatile'\n"+freebsdTmpfs, "-", "right", false)
	for _, want := range []string{"there is no /sbin/rhizome-node: going on without it", "fetch -q -T 30 -r -o /var/run/rhizome/blob/bundle http://10.77.0.1/blobs/sha256/b0", "precache: ok", "etc volatile: ok"} {
		if !strings.Contains(log, want) {
			t.Errorf("no %q in\n%s", want, log)
		}
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
		log := runFreeBSD(t, "root='"+mode+"'\n", "-", "right", true, "NOTE="+note)
		_, told := calls(log)
		if !strings.Contains(log, "rhizome-early: "+want) || !strings.Contains(told, "\tok\t") || !strings.Contains(told, note) {
			t.Errorf("no %q in\n%s", want, log)
		}
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update || os.Getenv("RHIZOME_UPDATE_GOLDEN") != "" {
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
