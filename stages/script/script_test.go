package script_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"rhizome/pipeline/layer"
	"rhizome/pipeline/tree"
	"rhizome/recipes"
	"rhizome/stages/debian/bootstrap"
	"rhizome/stages/debian/tool"
	"rhizome/stages/sandbox"
	"rhizome/stages/script"
)

var epoch = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// TestMain lets the test's own binary run a script as another user.
func TestMain(m *testing.M) {
	if job := os.Getenv("RHIZOME_TEST_SCRIPT"); job != "" {
		os.Exit(runAndList(job))
	}
	os.Exit(m.Run())
}

type asked struct{ Work, Run string }

func runAndList(job string) int {
	var a asked
	err := json.Unmarshal([]byte(job), &a)
	var d *tree.Tree
	if err == nil {
		d, err = newScript(a.Run).Run(context.Background(), env(a.Work), base())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Print(listing(d))
	return 0
}

func env(work string) sandbox.Env {
	return sandbox.Env{Work: work, LogFile: filepath.Join(work, "log"), WriteTar: layer.WriteTar}
}

func newScript(run string, inputs ...string) script.Script {
	return script.Script{Script: recipes.Script{Run: run, Inputs: inputs}, System: "linux", Epoch: epoch, FS: fstest.MapFS{
		"tune.sh":       {Data: []byte("#!/bin/sh\ncp conf/motd /etc/motd\n"), Mode: 0o644},
		"conf/motd":     {Data: []byte("welcome\n"), Mode: 0o600},
		"secret/passwd": {Data: []byte("not declared\n")},
	}}
}

var programs = []string{"sh", "cp", "ls", "cat", "mv", "rm", "mkdir", "ln", "chmod", "chown", "touch", "mount", "mknod", "env", "id",
	"hostname", "ps", "sleep", "wc", "echo", "grep", "chroot", "mkfifo", "head", "seq", "cut"}

// base is a root with one program, busybox.
func base() *tree.Tree {
	bin, err := exec.LookPath("busybox")
	if err != nil {
		panic(err)
	}
	info, err := os.Stat(bin)
	if err != nil {
		panic(err)
	}
	t := tree.New()
	for _, e := range []tree.Entry{
		{Path: "bin/busybox", Kind: tree.File, Mode: 0o755, Body: tree.DiskFile{Name: bin, Length: info.Size()}},
		{Path: "etc", Kind: tree.Dir, Mode: 0o755},
		{Path: "etc/a", Kind: tree.File, Mode: 0o644, Body: tree.Text("a\n")},
		{Path: "etc/b", Kind: tree.File, Mode: 0o644, Link: "etc/a"},
		{Path: "etc/c", Kind: tree.File, Mode: 0o644, Link: "etc/a"},
		{Path: "etc/keep", Kind: tree.File, Mode: 0o600, UID: 33, GID: 33, Body: tree.Text("kept\n"), Xattrs: map[string]string{"user.note": "kept"}},
		{Path: "dev/console", Kind: tree.CharDevice, Major: 5, Minor: 1, Mode: 0o600},
		{Path: "opt/old/deep/file", Kind: tree.File, Mode: 0o644, Body: tree.Text("moved\n")},
		{Path: "opt/gone/x", Kind: tree.File, Mode: 0o644},
		{Path: "srv/one/f", Kind: tree.File, Mode: 0o644, Body: tree.Text("one\n")},
		{Path: "srv/two/f", Kind: tree.File, Mode: 0o644, Body: tree.Text("two\n")},
		{Path: "root", Kind: tree.Dir, Mode: 0o700},
	} {
		if err := t.Add(e); err != nil {
			panic(err)
		}
	}
	for _, p := range programs {
		if err := t.Add(tree.Entry{Path: "bin/" + p, Kind: tree.Symlink, Mode: 0o777, Target: "busybox"}); err != nil {
			panic(err)
		}
	}
	return t
}

func listing(t *tree.Tree) string {
	var b strings.Builder
	for _, e := range t.Entries() {
		if e.Implied {
			continue
		}
		body := ""
		if e.Body != nil {
			r, err := e.Body.Open()
			if err != nil {
				return err.Error()
			}
			all, _ := io.ReadAll(io.LimitReader(r, 800))
			r.Close()
			body = string(all)
		}
		fmt.Fprintf(&b, "%s %s %04o %d:%d link=%s target=%s %q %q\n", e.Path, e.Kind, e.Mode, e.UID, e.GID, e.Link, e.Target, e.Xattrs, body)
	}
	return b.String()
}

func needSandbox(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("busybox"); err != nil {
		t.Skip("skipped: no busybox here (apt install busybox-static)")
	}
	if _, err := bootstrap.Enter(t.Context()); err != nil {
		t.Skipf("skipped: %v", err)
	}
}

func run(t *testing.T, s script.Script) (string, error) {
	t.Helper()
	work := t.TempDir()
	d, err := s.Run(t.Context(), env(work), base())
	if left, _ := filepath.Glob(filepath.Join(work, "root*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	if err != nil {
		return "", err
	}
	return listing(d), nil
}

const changes = `set -e
echo new >/etc/new; chown 33:44 /etc/new; chmod 4750 /etc/new
chmod 600 /etc/keep
rm /etc/a
ln /etc/new /etc/new2
rm -r /opt/gone; mv /opt/old /opt/young
mv /srv/one /srv/x; mv /srv/two /srv/one; mv /srv/x /srv/two
ln -s ../etc /root/link
mkfifo /root/pipe
touch /etc/c
echo lost >/tmp/lost; echo lost >/run/lost
`

const changed = `etc/a whiteout 0000 0:0 link= target= map[] ""
etc/new file 4750 33:44 link= target= map[] "new\n"
etc/new2 file 4750 33:44 link=etc/new target= map[] ""
opt/gone whiteout 0000 0:0 link= target= map[] ""
opt/old whiteout 0000 0:0 link= target= map[] ""
opt/young directory 0755 0:0 link= target= map[] ""
opt/young/deep directory 0755 0:0 link= target= map[] ""
opt/young/deep/file file 0644 0:0 link= target= map[] "moved\n"
root/link symlink 0777 0:0 link= target=../etc map[] ""
root/pipe fifo 0644 0:0 link= target= map[] ""
srv/one/f file 0644 0:0 link= target= map[] "two\n"
srv/two/f file 0644 0:0 link= target= map[] "one\n"
`

// What a command changes is the layer, to the owner and the link, and nothing
// that it only touched is.
func TestALayerIsWhatTheCommandChanged(t *testing.T) {
	needSandbox(t)
	got, err := run(t, newScript(changes))
	if err != nil || got != changed {
		t.Errorf("%v\ngot\n%s\nwant\n%s", err, got, changed)
	}
}

// Building as root and as a user gives the same.
func TestRootAndUserGetTheSameLayer(t *testing.T) {
	needSandbox(t)
	if os.Geteuid() != 0 {
		t.Skip("skipped: needs root, to run as somebody else")
	}
	cred := ordinaryUser(t)
	work, err := os.MkdirTemp("", "rzt-script-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(work) })
	self := filepath.Join(work, "self")
	copyFile(t, os.Args[0], self)
	if err := os.Chown(work, int(cred.Uid), int(cred.Gid)); err != nil {
		t.Fatal(err)
	}
	job, err := json.Marshal(asked{work, changes})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), "RHIZOME_TEST_SCRIPT="+string(job), "HOME="+work)
	cmd.Dir, cmd.SysProcAttr = work, &syscall.SysProcAttr{Credential: cred}
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, said.String())
	}
	if string(out) != changed {
		t.Errorf("a user got\n%s\nwant\n%s", out, changed)
	}
	if left, _ := filepath.Glob(filepath.Join(work, "root*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestTheCommandSeesItsInputsAndNothingElse(t *testing.T) {
	needSandbox(t)
	t.Setenv("SECRET", "of the caller")
	got, err := run(t, newScript(`./tune.sh && exec >/etc/seen 2>&1
echo "pwd $PWD; $(ls -R | grep -v : | tr '\n' ' ')"; env | grep -v ^PATH
wc -l </proc/net/dev; hostname; id -u; ps | wc -l
echo no >conf/motd || echo inputs are read-only
mount -t tmpfs x /opt || echo no mounts
mknod /x c 1 3 || echo no devices
ls /proc/1/root/etc /home || true
`, "tune.sh", "conf"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`etc/motd file 0644 0:0 link= target= map[] "welcome\n"`, "SOURCE_DATE_EPOCH=1793491200", "inputs are read-only",
		"no mounts", "no devices", `\n3\nlocalhost\n0\n`, "ls: /home: No such file or directory",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("missing %q in\n%s", want, got)
		}
	}
	for _, never := range []string{"SECRET", "passwd"} {
		if strings.Contains(got, never) {
			t.Errorf("%q leaked:\n%s", never, got)
		}
	}
}

func TestAFailureTellsStatusAndLastLines(t *testing.T) {
	needSandbox(t)
	_, err := run(t, newScript("seq 1 100; echo the reason; exit 3"))
	var failed *tool.Error
	if !errors.As(err, &failed) {
		t.Fatalf("got %v", err)
	}
	want := `running the script "seq 1 100; echo the reason; exit 3": the command failed (exit status 3): "the reason" (the whole log is in `
	if !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v", err)
	}
	if len(failed.Tail) != 30 || failed.Tail[0] != "72" {
		t.Errorf("%d lines, the first %q", len(failed.Tail), failed.Tail[0])
	}
}

func TestARootThatCannotRunSaysWhy(t *testing.T) {
	needSandbox(t)
	empty := tree.New()
	if err := empty.Add(tree.Entry{Path: "etc/x", Kind: tree.File}); err != nil {
		t.Fatal(err)
	}
	_, err := newScript("true").Run(t.Context(), env(t.TempDir()), empty)
	if err == nil || !strings.Contains(err.Error(), "the root has no such program") {
		t.Errorf("no shell: %v", err)
	}
	linked := tree.New()
	if err := linked.Add(tree.Entry{Path: "tmp", Kind: tree.Symlink, Target: "/etc"}); err != nil {
		t.Fatal(err)
	}
	_, err = newScript("true").Run(t.Context(), env(t.TempDir()), linked)
	if err == nil || !strings.Contains(err.Error(), `the root's "/tmp" is a symlink`) {
		t.Errorf("a link to mount over: %v", err)
	}
	foreign := newScript("true")
	foreign.System = "freebsd"
	if _, err := foreign.Run(t.Context(), env(t.TempDir()), base()); err == nil || !strings.Contains(err.Error(), "build it on a freebsd machine") {
		t.Errorf("another system: %v", err)
	}
}

// Ctrl-C ends the command and all it started, at once, and leaves neither
// mounts nor folders.
func TestStoppingLeavesNothing(t *testing.T) {
	needSandbox(t)
	ctx, stop := context.WithCancelCause(t.Context())
	work := t.TempDir()
	e := env(work)
	mark := fmt.Sprintf("rzt%d", os.Getpid())
	e.Line = func(l string) {
		if l == "started" {
			stop(errors.New("interrupted"))
		}
	}
	_, err := newScript("trap '' TERM INT HUP\nsleep 1000."+strconv.Itoa(os.Getpid())+" "+mark+" & (sleep 1000 "+mark+") & echo started; wait").Run(ctx, e, base())
	if err == nil || !strings.HasSuffix(err.Error(), ": interrupted") {
		t.Errorf("got %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(work, "root*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), work) {
		t.Errorf("a mount stayed: %v", err)
	}
	cmdlines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, c := range cmdlines {
		if text, _ := os.ReadFile(c); strings.Contains(string(text), "\x00"+mark) {
			t.Errorf("a process stayed: %q", text)
		}
	}
}

func TestInputsKeyFollowsContentAndNothingElse(t *testing.T) {
	key := func(change func(script.Script)) string {
		s := newScript("./tune.sh", "tune.sh", "conf")
		change(s)
		in, err := s.Inputs()
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(in)
	}
	files := func(s script.Script) fstest.MapFS { return s.FS.(fstest.MapFS) }
	same := key(func(script.Script) {})
	for name, change := range map[string]func(script.Script){
		"a date":          func(s script.Script) { files(s)["conf/motd"].ModTime = epoch },
		"an umask":        func(s script.Script) { files(s)["conf/motd"].Mode = 0o644 },
		"what none reads": func(s script.Script) { files(s)["secret/passwd"].Data = []byte("x") },
	} {
		if key(change) != same {
			t.Errorf("%s changed the key", name)
		}
	}
	for name, change := range map[string]func(script.Script){
		"a byte":     func(s script.Script) { files(s)["conf/motd"].Data = []byte("welcom\n") },
		"a name":     func(s script.Script) { files(s)["conf/more"] = &fstest.MapFile{} },
		"executable": func(s script.Script) { files(s)["conf/motd"].Mode = 0o755 },
	} {
		if key(change) == same {
			t.Errorf("%s did not change the key", name)
		}
	}
	missing := newScript("x", "nowhere")
	if _, err := missing.Inputs(); err == nil || !strings.Contains(err.Error(), `reading the input "nowhere"`) {
		t.Errorf("got %v", err)
	}
}

// ordinaryUser makes a user with a range of ids and takes it away again.
func ordinaryUser(t *testing.T) *syscall.Credential {
	t.Helper()
	name := fmt.Sprintf("rzs%d", os.Getpid())
	if out, err := exec.Command("useradd", "--no-create-home", "--user-group", name).CombinedOutput(); err != nil {
		t.Skipf("skipped: cannot make a user: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("userdel", name).CombinedOutput(); err != nil {
			t.Errorf("removing the user %s: %v: %s", name, err, out)
		}
	})
	if text, _ := os.ReadFile("/etc/subuid"); !strings.Contains(string(text), name+":") {
		t.Skip("skipped: useradd gives no ranges of ids here")
	}
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// The kernel's settings are the machine's. A user could not write them anyway, so
// root must not either: both give the same layer.
func TestACommandLeavesTheKernelsSettingsAlone(t *testing.T) {
	needSandbox(t)
	got, err := run(t, newScript(`set -e
was=$(cat /proc/sys/vm/swappiness)
if echo "$was" >/proc/sys/vm/swappiness; then echo written >/etc/new; fi
if echo h >/proc/sysrq-trigger; then echo written >/etc/sysrq; fi`))
	if err != nil || got != "" {
		t.Errorf("%v\n%s", err, got)
	}
}

// The umask of whoever builds is no input: it once became the mode of the root
// folder, where no layer below describes it, and of the inputs' folders.
func TestTheBuildersUmaskIsInNoLayer(t *testing.T) {
	needSandbox(t)
	defer syscall.Umask(syscall.Umask(0o077))
	got, err := run(t, newScript("ls -ld / . conf | cut -c1-10 >/seen", "conf"))
	want := "seen file 0644 0:0 link= target= map[] \"drwxr-xr-x\\ndrwxr-xr-x\\ndrwxr-xr-x\\n\"\n"
	if err != nil || got != want {
		t.Errorf("%v\ngot\n%s\nwant\n%s", err, got, want)
	}
}

// The base is merged, and an overlay under the script has a file in /lib, by its
// short name: the script still finds what lies there.
func TestAFileThatAnOverlayLaysBelowASymlinkHidesNothing(t *testing.T) {
	needSandbox(t)
	root := base()
	overlay := tree.New()
	for _, e := range []tree.Entry{
		{Path: "usr/lib/present", Kind: tree.File, Mode: 0o644, Body: tree.Text("here\n")},
		{Path: "lib", Kind: tree.Symlink, Mode: 0o777, Target: "usr/lib"},
	} {
		if err := root.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := overlay.Add(tree.Entry{Path: "lib/firmware/x", Kind: tree.File, Mode: 0o644, Body: tree.Text("x")}); err != nil {
		t.Fatal(err)
	}
	if err := root.Merge(overlay); err != nil {
		t.Fatal(err)
	}
	d, err := newScript("cat /lib/present /usr/lib/firmware/x >/etc/found").Run(t.Context(), env(t.TempDir()), root)
	if err != nil {
		t.Fatal(err)
	}
	if got := listing(d); !strings.Contains(got, "etc/found") || strings.Contains(got, "lib") {
		t.Errorf("the script changed\n%s", got)
	}
}
