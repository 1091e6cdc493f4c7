package early

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// linuxStub stands for each command that Debian's script calls.
const linuxStub = `#!/bin/sh
name=${0##*/}
case "$name $*" in "tar "*-xpf*) cat >/dev/null ;; esac
echo "$name $*" | sed "s#$TOP##g" >>"$LOG"
case "$name $*" in
$FAIL) echo "$name:  it fails" >&2; [ -z "$FILES" ] || seq -f "$name: file %.0f: No space left on device" "$FILES" >&2; exit 1 ;;
"rhizome-node early")
	echo "  read ahead: $(cat "$TOP/bdi/0:20/read_ahead_kb")" >>"$LOG"
	while read -r line; do
		echo "  told: $line" >>"$LOG"
		case $line in
		hello*) cp "$TOP/plan" "$TOP/run/rhizome/plan"; echo ok "node n1 of web" ;;
		fill*) echo "$FILL" ;;
		ram*) echo "$RAM" ;;
		*tmpfs*) [ -z "$DIES" ] || exit 1 ;;
		end) break ;;
		esac
	done ;;
"chroot . "*) shift 2; exec sh "$TOP/early.sh" "$@" ;;
esac
exit 0
`

const linuxPlan = "plan_root='%'\nplan_etc='10.77.0.1:/cow/n1/etc'\nplan_persist='10.77.0.1:/persist/n1'\nplan_shared='10.77.0.1:/shared/web'\n"

// patience is how long a script may take here: it would hang for ever.
const patience = 30 * time.Second

// knob is how far the kernel reads ahead on the root.
const knob = "bdi/0:20/read_ahead_kb"

// linuxRun is one run of the script and what stands around it.
type linuxRun struct {
	conf, fail, fill, ram string
	withoutNode           bool
	// dies has rhizome-node end at the first that it hears of a tmpfs.
	dies string
	// files is how many lines a command that fails says besides.
	files string
}

// run runs the script over stubs and returns what it called, in order.
func (c linuxRun) run(t *testing.T) string {
	t.Helper()
	top := t.TempDir()
	bin := filepath.Join(top, "stub")
	for _, d := range []string{bin, top + "/usr/sbin", top + "/etc/rhizome", top + "/persist", top + "/shared", top + "/run", top + "/usr/lib/rhizome/root", top + "/sbin", top + "/bdi/0:20"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile("files/linux.sh")
	if err != nil {
		t.Fatal(err)
	}
	script := strings.NewReplacer("PATH=/usr/sbin:/usr/bin:/sbin:/bin", "PATH="+bin+":/usr/bin:/bin",
		"\nconf=", "\nconf="+top, "\nnode=", "\nnode="+top, "\nplace=", "\nplace="+top, "\nhere=", "\nhere="+top,
		"/proc/cmdline", top+"/cmdline", "/proc/filesystems", top+"/filesystems",
		"/proc/self/mountinfo", top+"/mountinfo", "/sys/class/bdi", top+"/bdi",
		"in /sbin/init ", "in "+top+"/sbin/init ").Replace(string(text))
	root := "nfs"
	for _, mode := range []string{"precache", "ram"} {
		if strings.Contains(c.conf, "root='"+mode+"'") {
			root = mode
		}
	}
	for file, content := range map[string]string{
		"early.sh": script, "stub/all": linuxStub, "plan": strings.Replace(linuxPlan, "%", root, 1),
		"cmdline": "quiet nfsroot=10.77.0.1:/nodes/n1,vers=3,nolock init=/usr/sbin/rhizome-early\n", "filesystems": "nodev\ttmpfs\nnodev\toverlay\n",
		"mountinfo": "22 1 0:20 / / ro,relatime - nfs 10.77.0.1:/nodes/n1 ro\n23 22 0:21 / /proc rw - proc proc rw\n", knob: "128\n",
		"etc/rhizome/early.conf": strings.NewReplacer("'/persist", "'"+top+"/persist", "'/shared", "'"+top+"/shared").Replace(c.conf),
		"sbin/init":              "#!/bin/sh\necho \"init $*\" >>\"$LOG\"\n",
	} {
		if err := os.WriteFile(filepath.Join(top, file), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"mount", "umount", "tar", "cp", "chmod", "modprobe", "pivot_root", "chroot"} {
		if err := os.Symlink("all", filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	if !c.withoutNode {
		if err := os.Symlink("../../stub/all", top+"/usr/sbin/rhizome-node"); err != nil {
			t.Fatal(err)
		}
	}
	// The stub of rhizome-node needs the real cp.
	stub := strings.Replace(linuxStub, `cp "$TOP/plan"`, `/bin/cp "$TOP/plan"`, 1)
	if err := os.WriteFile(filepath.Join(top, "stub/all"), []byte(stub), 0o755); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(top, "log")
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	cmd := exec.CommandContext(ctx, "sh", top+"/early.sh", "splash")
	cmd.WaitDelay = time.Second
	cmd.Env = []string{"LOG=" + log, "TOP=" + top, "FAIL=" + c.fail, "FILL=" + c.fill, "RAM=" + c.ram, "FILES=" + c.files, "DIES=" + c.dies}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the kernel would panic: %v\n%s", err, out)
	}
	done, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if ahead, err := os.ReadFile(filepath.Join(top, knob)); err != nil || string(ahead) != "128\n" {
		t.Errorf("the system begins with a read-ahead of %s KiB, %v", ahead, err)
	}
	does, told := calls(string(done))
	return strings.ReplaceAll(does+"# on the console\n"+string(out)+"# told to rhizome-node\n"+told, top, "")
}

const linuxTmpfs = "tmpfs='1777 64m /tmp\n0755 - /var'\n"

// What the script does in each mode, and with each fault, is recorded: in every
// case init runs in the end.
func TestDebiansScriptAlwaysComesToInit(t *testing.T) {
	for name, c := range map[string]linuxRun{
		"nfs":              {conf: "root='nfs'\netc='volatile'\npersist='/persist'\nshared='/shared'\n" + linuxTmpfs, fail: "-"},
		"precache":         {conf: "root='precache'\netc='persistent'\n" + linuxTmpfs, fail: "-", fill: "ok 30.0 MB in 900 entries lie over /usr"},
		"slow-link":        {conf: "root='precache'\n" + linuxTmpfs, fail: "-", fill: "later the link is slow: going on in the background"},
		"damaged-bundle":   {conf: "root='precache'\n" + linuxTmpfs, fail: "-", fill: "failed going on without the bundle: the blob has the digest sha256:ff"},
		"program-dies":     {conf: "root='precache'\netc='volatile'\n" + linuxTmpfs, fail: "-", fill: "gone"},
		"ram":              {conf: "root='ram'\netc='volatile'\npersist='/persist'\n" + linuxTmpfs, fail: "-", ram: "ok 600.0 MB in 14000 entries, all in memory"},
		"ram-too-large":    {conf: "root='ram'\netc='volatile'\n" + linuxTmpfs, fail: "-", ram: "failed the root takes 600.0 MB and 100.0 MB of memory are free"},
		"no-memory":        {conf: "root='nfs'\netc='persistent'\n" + linuxTmpfs, fail: "mount -t tmpfs*"},
		"exports-refused":  {conf: "root='nfs'\netc='persistent'\npersist='/persist'\n" + linuxTmpfs, fail: "mount -i -t nfs*"},
		"no-overlayfs":     {conf: "root='nfs'\netc='volatile'\n" + linuxTmpfs, fail: "mount -t overlay*"},
		"no-program":       {conf: "root='precache'\netc='persistent'\npersist='/persist'\nshared='/shared'\n" + linuxTmpfs, fail: "-", withoutNode: true},
		"no-configuration": {conf: "", fail: "-"},
	} {
		t.Run(name, func(t *testing.T) {
			log := c.run(t)
			if !strings.Contains(log, "\ninit splash\n") {
				t.Errorf("init did not run:\n%s", log)
			}
			golden(t, "linux-"+name+".golden", log)
		})
	}
}

// A tmpfs that is too small for /var makes tar name every file that did not fit:
// more than a fifo holds, and more than rhizome-node takes in a line. What is told
// is the beginning of it.
func TestACommandThatSaysMuchDoesNotHoldDebiansBoot(t *testing.T) {
	conf := "root='nfs'\n" + linuxTmpfs
	does, told, _ := strings.Cut(linuxRun{conf: conf, fail: "tar -C * -xpf -", files: "5000"}.run(t), "# told to rhizome-node\n")
	for line := range strings.Lines(does + told) {
		if len(line) > 1000 {
			t.Errorf("a line has %d bytes: %.100s", len(line), line)
		}
	}
	if !strings.Contains(told, "tmpfs /var\tfailed\ttar: it fails tar: file 1:") {
		t.Errorf("it told\n%.2000s", told)
	}
}

// An agent that ended reads no more: what is told to it must not fill its fifo.
func TestMuchToTellADeadProgramDoesNotHoldDebiansBoot(t *testing.T) {
	conf := "root='nfs'\ntmpfs='" + strings.Repeat("0755 - /a/place\n", 300) + "'\n"
	log := linuxRun{conf: conf, fail: "mount -t tmpfs *", files: "20", dies: "yes"}.run(t)
	if !strings.Contains(log, "\ninit splash\n") {
		t.Errorf("init did not run:\n%s", log)
	}
}

// What tar cannot read it fills with zeros or leaves out: such a /var is none.
func TestAVarThatCannotBeReadStaysTheImages(t *testing.T) {
	log := linuxRun{conf: "root='nfs'\n" + linuxTmpfs, fail: "tar -C /var *"}.run(t)
	if !strings.Contains(log, "tmpfs /var: failed: tar: it fails copying /var from the image did not succeed") || strings.Contains(log, "--move /run/rhizome/new /var") {
		t.Errorf("it did\n%s", log)
	}
}
