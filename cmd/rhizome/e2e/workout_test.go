package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"rhizome/cmd/rhizome/internal/rig"
)

// nfsOptions are what the kernel's client is mounted with; "mount -i" hands
// them to the kernel, which needs no helper then.
const nfsOptions = "vers=3,nolock,proto=tcp,mountproto=tcp,port=2049,mountport=2049,addr=10.77.0.1,hard"

const workoutTag = "nfs"

// workoutRecipe is the image of workoutTag: one node that may write, boots to no
// more than a shell, and has programs for its work. Its root is the demo's.
const workoutRecipe = `version: 1
name: e2e
os: linux
arch: amd64
epoch: 2026-11-01T00:00:00Z

%s
stages:
  - kernel: {}
  - media: {ipxe: true}
  - early: {}
  - packages: [fio]
  - files: {from: workout/}

network:
  subnet: 10.77.0.0/24
  server: 10.77.0.1

nodes:
  - name: n1
    mac: 52:54:00:77:00:01
    address: 10.77.0.11
    cmdline: [console=ttyS0, no_timer_check, panic=10, init=/opt/workout/init]
    persist: /persist
    persistQuota: 1G
    etc: persistent
`

// buildWorkout builds the image of workoutTag beside the usual one, with the same
// source: what was built for that is in the cache.
func (w *world) buildWorkout(store, recipe string) error {
	own, err := writeWorkoutRecipe(recipe)
	if err != nil {
		return err
	}
	_, err = w.run("--store", store, "build", own, "--tag", "e2e:"+workoutTag)
	return err
}

func writeWorkoutRecipe(recipe string) (string, error) {
	text, err := os.ReadFile(recipe)
	if err != nil {
		return "", err
	}
	_, source, found := strings.Cut(string(text), "\nsource:")
	source, _, ends := strings.Cut(source, "\nstages:")
	if !found || !ends {
		return "", fmt.Errorf("%s no longer has its source before its stages", recipe)
	}
	dir := filepath.Dir(recipe)
	if err := workoutFiles(dir); err != nil {
		return "", err
	}
	name := filepath.Join(dir, "nfs.yaml")
	return name, os.WriteFile(name, fmt.Appendf(nil, workoutRecipe, "source:"+source), 0o644)
}

// workoutFiles makes what that image has beside the usual: the workout, static.
func workoutFiles(dir string) error {
	if err := os.CopyFS(filepath.Join(dir, "workout"), os.DirFS("testdata/workout")); err != nil {
		return err
	}
	opt := filepath.Join(dir, "workout", "opt", "workout")
	if err := os.MkdirAll(opt, 0o755); err != nil {
		return err
	}
	build := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(opt, "workout"), "rhizome/cmd/rhizome/e2e/workout")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// The kernel's own NFS client does on both kinds of writable export what
// programs do, reads all of the image, and loses nothing that was told to be
// stable when the server is killed in the middle.
func TestTheKernelsClientAtWork(t *testing.T) {
	w := alone(t)
	n := lan(t)
	s := w.serveImage(t, n, "e2e:"+workoutTag)
	r := w.boot(t, n, 1, nil)
	await(t, r, 0, `root@n1:`)
	shell(t, r, `mkdir -p /run/x/root /run/x/persist /run/x/cow`)
	for at, export := range map[string]string{"root": "/nodes/n1", "persist": "/persist/n1", "cow": "/cow/n1/etc"} {
		shell(t, r, fmt.Sprintf("mount -i -t nfs -o %s 10.77.0.1:%s /run/x/%s", nfsOptions, export, at))
	}
	t.Run("reads what was built", func(t *testing.T) { readsAll(t, w, r) })
	for _, at := range []string{"persist", "cow"} {
		t.Run("works on "+at, func(t *testing.T) {
			t.Log(shell(t, r, "mkdir /run/x/"+at+"/posix && /opt/workout/workout posix /run/x/"+at+"/posix"))
		})
	}
	t.Run("fio reads", func(t *testing.T) { fioReads(t, r) })
	// A server belongs to the whole test: one that a part of it starts would be
	// stopped with that part, under the mounts of the next.
	again := func() { s = w.serveImage(t, n, "e2e:"+workoutTag) }
	t.Run("fio reads while the server is killed", func(t *testing.T) { fioGoesOn(t, s, again, r) })
	t.Run("loses nothing stable", func(t *testing.T) { losesNothing(t, w, s, again, r) })
	if log := s.Console.Text(); strings.Contains(log, "panic") {
		t.Errorf("the server's log:\n%s", log)
	}
}

// archive is a folder in one stream: every name, mode, owner, link, device and
// byte, in an order that does not depend on the folder. The secrets are in no
// layer.
const archive = `tar --sort=name --mtime=@0 --numeric-owner --format=gnu --exclude=./etc/ssh/ssh_host_\* -cf - . | sha256sum`

// readsAll compares what find, tar and sha256sum see through the kernel's
// client with the layers, which GNU tar alone unpacks.
func readsAll(t *testing.T, w *world, r *rig.Running) {
	tree := filepath.Join(t.TempDir(), "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, blob := range layersOf(t, w, "e2e:"+workoutTag, "n1") {
		tool(t, "sh", "-c", `zstd -dc "$1" | tar -x -p --numeric-owner -C "$2"`, "sh", blob, tree)
	}
	want := strings.TrimSpace(string(tool(t, "sh", "-c", "cd "+tree+" && "+archive)))
	if got := shell(t, r, "cd /run/x/root && "+archive); got != want {
		t.Errorf("all of the image, as tar sees it: %s, want %s", got, want)
	}
	names := `find . -path './etc/ssh/ssh_host_*' -o -printf '%y %m %n %U:%G %p %l\n' | LC_ALL=C sort | sha256sum`
	want = strings.TrimSpace(string(tool(t, "sh", "-c", "cd "+tree+" && "+names)))
	if got := shell(t, r, "cd /run/x/root && "+names); got != want {
		t.Errorf("all names, as find sees them: %s, want %s", got, want)
	}
}

// layersOf lists the blobs of a node's layers, lowest first.
func layersOf(t *testing.T, w *world, image, node string) []string {
	t.Helper()
	var in struct {
		Nodes []struct {
			Node   struct{ Name string }
			Layers []struct{ Digest string }
		}
	}
	if err := json.Unmarshal(tool(t, w.binary, "--store", w.store, "inspect", image, "--json"), &in); err != nil {
		t.Fatal(err)
	}
	var blobs []string
	for _, of := range in.Nodes {
		for _, l := range of.Layers {
			if of.Node.Name == node {
				blobs = append(blobs, blobPath(w, l.Digest))
			}
		}
	}
	return blobs
}

// fioJob reads a large file of the image past the node's own cache, so that every
// block is a READ: in order, and from four threads anywhere.
const fioJob = `fio --readonly --filename=$(ls -S -d /run/x/root/usr/lib/*-linux-gnu/*.so.* | head -n 1) --direct=1 --ioengine=psync --thread --output-format=json`

// fioSays is what is looked at of fio's report.
type fioSays struct {
	Jobs []struct {
		Name  string `json:"jobname"`
		Error int
		Read  struct {
			Total int `json:"total_ios"`
			Bytes int `json:"io_bytes"`
		}
	}
}

// fioReads has fio read by the kernel's client.
func fioReads(t *testing.T, r *rig.Running) {
	said := parseFio(t, shell(t, r, fioJob+` --runtime=20 --name=sequence --rw=read --bs=128k --stonewall --name=anywhere --rw=randread --bs=4k --numjobs=4 --io_size=2m`))
	if len(said.Jobs) != 5 { // one that reads in sequence, four anywhere
		t.Fatalf("fio speaks of %d jobs", len(said.Jobs))
	}
	wantReads(t, said)
}

// wantReads wants every job to have read, and no read to have failed.
func wantReads(t *testing.T, said fioSays) {
	t.Helper()
	for _, j := range said.Jobs {
		if j.Error != 0 || j.Read.Total == 0 {
			t.Errorf("%s: error %d after %d reads", j.Name, j.Error, j.Read.Total)
		}
		t.Logf("%s: %d reads, %d bytes", j.Name, j.Read.Total, j.Read.Bytes)
	}
}

// fioGoesOn kills the server under fio's reads and starts it again: they take
// longer, and none fails.
func fioGoesOn(t *testing.T, s *rig.Server, again func(), r *rig.Running) {
	from := len(r.Console.Text())
	if err := r.Type(`(` + fioJob + ` --runtime=15 --time_based --name=restart --rw=randread --bs=32k --numjobs=2 > /run/fio.json 2>&1; echo FIO E''NDED $?) &
`); err != nil {
		t.Fatal(err)
	}
	// A job of fifteen seconds is at work for some time before and after.
	shell(t, r, `until grep -q fio /proc/[0-9]*/comm; do sleep 0.1; done; sleep 3`)
	s.Kill()
	again()
	ended, _ := await(t, r, from, `FIO ENDED (\d+)`)
	said := parseFio(t, shell(t, r, `cat /run/fio.json`))
	if ended[1] != "0" || len(said.Jobs) != 2 {
		t.Errorf("fio ended with status %s: %+v", ended[1], said)
	}
	wantReads(t, said)
}

func parseFio(t *testing.T, text string) (said fioSays) {
	t.Helper()
	from := strings.IndexByte(text, '{')
	if from < 0 {
		t.Fatalf("fio says:\n%s", text)
	}
	if err := json.NewDecoder(strings.NewReader(text[from:])).Decode(&said); err != nil {
		t.Fatalf("reading what fio says: %v\n%s", err, text)
	}
	return said
}

// fourWriters makes records, and writes streams that nothing makes stable, on
// both exports at once.
const fourWriters = `(for at in persist cow; do for what in records stream; do
/opt/workout/workout $what /run/x/$at/$what 40 & done; done; wait; echo ALL D''ONE) 2>&1 | tee /dev/ttyS0 > /run/writers &
`

// losesNothing kills the server while four writers write, looks at its disk,
// and starts it again: the writers go on as if nothing had been.
func losesNothing(t *testing.T, w *world, s *rig.Server, again func(), r *rig.Running) {
	shell(t, r, `mkdir /run/x/persist/stream /run/x/cow/stream`)
	from := len(r.Console.Text())
	if err := r.Type(strings.ReplaceAll(strings.TrimSpace(fourWriters), "\n", " ") + "\n"); err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{"persist", "cow"} {
		await(t, r, from, `stable /run/x/`+at+`/records 5\r?\n`)
	}
	s.Kill()
	text := r.Console.Text()[from:]
	stable := regexp.MustCompile(`stable /run/x/persist/records (\d+)\r?\n`).FindAllStringSubmatch(text, -1)
	last, err := strconv.Atoi(stable[len(stable)-1][1])
	if err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(w.store, "persist", "e2e", "n1", "records")
	for i := range last + 1 {
		body, err := os.ReadFile(filepath.Join(disk, fmt.Sprintf("record-%04d", i)))
		if want := strings.Repeat(fmt.Sprintf("record %d\n", i), 2000); err != nil || string(body) != want {
			t.Errorf("record %d was stable, and the server's disk has %d bytes of it: %v", i, len(body), err)
		}
	}
	again()
	await(t, r, from, `ALL DONE`)
	out := shell(t, r, `cat /run/writers; echo 3 > /proc/sys/vm/drop_caches; for at in persist cow; do /opt/workout/workout check /run/x/$at/records 40 || exit 1; done`)
	for _, want := range []string{"ok /run/x/persist/stream stream", "ok /run/x/cow/stream stream", "ok /run/x/persist/records 40 records", "ok /run/x/cow/records 40 records"} {
		if !strings.Contains(out, want) {
			t.Errorf("the node did not say %q", want)
		}
	}
	if strings.Contains(out, "FAIL") {
		t.Error(out)
	}
	t.Logf("killed when %d records were stable", last+1)
}
