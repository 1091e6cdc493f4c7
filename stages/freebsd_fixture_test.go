package stages

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rhizome/pipeline"
	"rhizome/pipeline/layer"
	"rhizome/pipeline/tree"
	"rhizome/recipes"
)

var update = os.Getenv("RHIZOME_UPDATE_GOLDEN") != ""

// fixture is a copy of the small source tree in testdata, with a recipe for it.
type fixture struct {
	src    string
	recipe *recipes.Recipe
	env    pipeline.Env
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	for _, tool := range []string{"make", "cc", "python3"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("skipped: the fixture tree is built with ", tool, ", which is not installed")
		}
	}
	f := &fixture{src: filepath.Join(t.TempDir(), "src")}
	if err := os.CopyFS(f.src, os.DirFS("../testdata/freebsd-src")); err != nil {
		t.Fatal(err)
	}
	llvm, err := filepath.Abs("../testdata/freebsd-llvm/bin")
	if err != nil {
		t.Fatal(err)
	}
	f.recipe = &recipes.Recipe{Name: "fixture", OS: "freebsd", Arch: "amd64", Dir: t.TempDir(), Nodes: []recipes.Node{{Name: "n1", Kernel: "DISKLESS"}}}
	f.recipe.Source.Src = &recipes.Src{Dir: f.src, Toolchain: llvm}
	f.recipe.Stages = []recipes.Stage{
		{Kind: "world", World: &recipes.World{Without: []string{"GAMES"}}},
		{Kind: "distribution", Distribution: &recipes.Distribution{}},
		{Kind: "kernel", Kernel: diskless()},
	}
	f.env = pipeline.Env{Work: t.TempDir(), Cache: t.TempDir(), Jobs: 2, Events: func(pipeline.Event) {}}
	return f
}

func diskless() *recipes.Kernel {
	return &recipes.Kernel{Name: "DISKLESS", Config: "DISKLESS", Include: "GENERIC", Options: []string{"TARFS"}, NoDevices: []string{"sound", "wlan"}}
}

func (f *fixture) kernel() *recipes.Kernel { return f.recipe.Stages[2].Kernel }

// stages are made anew for every build, as a run of rhizome does.
func (f *fixture) stages() map[string]pipeline.Stage {
	s := NewFreeBSDSource(f.recipe, "linux")
	return map[string]pipeline.Stage{
		"world": World{Source: s}, "distribution": Distribution{Source: s}, "kernel": NewFreeBSDKernel(s, f.recipe.Stages[2], nil),
	}
}

func (f *fixture) hook(t *testing.T, target, script string) {
	t.Helper()
	f.write(t, "hooks/"+target+".sh", script)
}

func (f *fixture) write(t testing.TB, name, text string) {
	t.Helper()
	p := filepath.Join(f.src, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// run builds one step in its own work folder below env.Work.
func (f *fixture) run(ctx context.Context, kind string) (pipeline.Output, error) {
	env := f.env
	env.Work = filepath.Join(f.env.Work, kind)
	return f.stages()[kind].Run(ctx, env, nil)
}

func (f *fixture) build(t *testing.T, kind string) pipeline.Output {
	t.Helper()
	out, err := f.run(t.Context(), kind)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (f *fixture) inputs(t testing.TB, kind string) pipeline.Inputs {
	t.Helper()
	in, err := f.stages()[kind].Inputs(t.Context(), f.env)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func diffID(t *testing.T, tr *tree.Tree) string {
	t.Helper()
	sum, err := layer.Write(io.Discard, tr, time.Unix(1793491200, 0), 1)
	if err != nil {
		t.Fatal(err)
	}
	return string(sum.DiffID)
}

// list writes a tree down without the sizes of compiled programs, which depend
// on the compiler.
func list(tr *tree.Tree) string {
	var b strings.Builder
	for _, e := range tr.Entries() {
		fmt.Fprintf(&b, "%-36s %s %04o %d:%d", e.Path, e.Kind, e.Mode, e.UID, e.GID)
		switch {
		case e.Link != "":
			fmt.Fprintf(&b, " hard link to %s", e.Link)
		case e.Kind == tree.Symlink:
			fmt.Fprintf(&b, " -> %s", e.Target)
		case e.Kind == tree.CharDevice:
			fmt.Fprintf(&b, " %d,%d", e.Major, e.Minor)
		}
		if e.Flags != "" {
			fmt.Fprintf(&b, " %s", e.Flags)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestTheFixtureGivesTheTreesItsMETALOGsDescribe(t *testing.T) {
	f := newFixture(t)
	for kind, facts := range map[string]string{
		"world":        "map[boot.bios:/boot/pxeboot boot.uefi:/boot/loader.efi]",
		"distribution": "map[]",
		"kernel":       "map[kernel.path:/boot/kernel/kernel kernel.version:15.1-RELEASE-p1 DISKLESS]",
	} {
		out := f.build(t, kind)
		if got := fmt.Sprint(out.Facts); got != facts {
			t.Errorf("%s: facts are %s, want %s", kind, got, facts)
		}
		golden := filepath.Join("testdata", "freebsd-"+kind+".list")
		if update {
			if err := os.WriteFile(golden, []byte(list(out.Tree)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if got := list(out.Tree); got != string(want) {
			t.Errorf("%s differs from %s (make golden writes it anew):\n%s", kind, golden, got)
		}
	}
}

func TestTheKernelIsTheOneThatWasAskedFor(t *testing.T) {
	f := newFixture(t)
	body, err := f.build(t, "kernel").Tree.Lookup("boot/kernel/kernel").Body.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	program := filepath.Join(t.TempDir(), "kernel")
	data, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, data, 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(program).Output()
	if err != nil {
		t.Fatal(err)
	}
	want := "FreeBSD 15.1-RELEASE-p1 DISKLESS\nEFIRT INET INET6 NFSCL NFS_ROOT SCHED_ULE TARFS TMPFS\nem ether isa loop re virtio vtnet\n/usr/src/sys/kern/main.c\n"
	if string(out) != want {
		t.Errorf("the kernel says\n%swant\n%s", out, want)
	}
	if generic, err := os.ReadFile(filepath.Join(f.src, "sys/amd64/conf/GENERIC")); err != nil || strings.Contains(string(generic), "TARFS") {
		t.Errorf("GENERIC was changed: %v", err)
	}
	if _, err := os.Stat(filepath.Join(f.src, "sys/amd64/conf/DISKLESS")); err == nil {
		t.Error("the new configuration was written into the source tree")
	}
}

func TestPathsAndJobsLeaveNoTrace(t *testing.T) {
	one, two := newFixture(t), newFixture(t)
	one.env.Jobs, two.env.Jobs = 1, 4
	for kind := range one.stages() {
		a, b := one.inputs(t, kind), two.inputs(t, kind)
		if fmt.Sprint(a) != fmt.Sprint(b) {
			t.Errorf("%s: another folder gives other inputs:\n%v\n%v", kind, a, b)
		}
		if s := fmt.Sprint(a); strings.Contains(s, one.src) || strings.Contains(s, one.env.Work) {
			t.Errorf("%s: a path is an input: %v", kind, a)
		}
		if x, y := diffID(t, one.build(t, kind).Tree), diffID(t, two.build(t, kind).Tree); x != y {
			t.Errorf("%s: another folder and number of jobs give %s and %s", kind, x, y)
		}
	}
}

func TestKernelsOfOneSourceAreBuiltApart(t *testing.T) {
	f := newFixture(t)
	first := diffID(t, f.build(t, "kernel").Tree)
	f.kernel().Options = nil
	second := diffID(t, f.build(t, "kernel").Tree)
	f.kernel().Options = []string{"TARFS"}
	if third := diffID(t, f.build(t, "kernel").Tree); first == second || first != third {
		t.Errorf("with, without and with TARFS again give %s, %s and %s", first, second, third)
	}
}

func TestOnlyWhatAStageReadsIsItsInput(t *testing.T) {
	for name, c := range map[string]struct {
		file  string
		moves string
	}{
		"a userland program": {"bin/cat/cat.c", "world distribution"},
		"the kernel":         {"sys/kern/main.c", "kernel world"},
		"the device hints":   {"sys/amd64/conf/GENERIC.hints", "distribution kernel world"},
		"a document":         {"README.md", ""},
		"the users":          {"etc/master.passwd", "distribution kernel world"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			before := map[string]string{}
			for kind := range f.stages() {
				before[kind] = fmt.Sprint(f.inputs(t, kind))
			}
			f.append(t, c.file, "\n")
			for kind := range f.stages() {
				moved := fmt.Sprint(f.inputs(t, kind)) != before[kind]
				if want := strings.Contains(c.moves, kind); moved != want {
					t.Errorf("%s: inputs changed: %v, want %v", kind, moved, want)
				}
			}
		})
	}
}

func (f *fixture) append(t *testing.T, name, text string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(f.src, name))
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, name, string(data)+text)
}

func TestATouchIsNoChangeAndAByteIs(t *testing.T) {
	f := newFixture(t)
	before := fmt.Sprint(f.inputs(t, "kernel"))
	file := filepath.Join(f.src, "sys/kern/main.c")
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	when := info.ModTime().Add(time.Hour)
	if err := os.Chtimes(file, when, when); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(f.inputs(t, "kernel")); got != before {
		t.Error("touch changed the inputs")
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-2] ^= 1
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(file, when, when); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(f.inputs(t, "kernel")); got == before {
		t.Error("a changed byte under the old size and time changed no input")
	}
}

func TestTheWorldsOptionsAreTheUserlandsAlone(t *testing.T) {
	f := newFixture(t)
	kernel, world, dist := fmt.Sprint(f.inputs(t, "kernel")), fmt.Sprint(f.inputs(t, "world")), fmt.Sprint(f.inputs(t, "distribution"))
	f.recipe.Stages[0].World.Without = nil
	if fmt.Sprint(f.inputs(t, "kernel")) != kernel {
		t.Error("the world's options are an input of the kernel")
	}
	if fmt.Sprint(f.inputs(t, "world")) == world || fmt.Sprint(f.inputs(t, "distribution")) == dist {
		t.Error("the world's options are no input of world or distribution")
	}
	if e := f.build(t, "world").Tree.Lookup("usr/bin/fortune"); e == nil || e.Mode != 0o2555 || e.GID != 13 {
		t.Errorf("with games, usr/bin/fortune is %+v", e)
	}
}

func TestAFailedBuildGoesOnWhereItStopped(t *testing.T) {
	f := newFixture(t)
	f.hook(t, "installworld", "echo 'cp: /x: No space left on device'; exit 1\n")
	_, err := f.run(t.Context(), "world")
	if err == nil {
		t.Fatal("a full disk is no error")
	}
	for _, want := range []string{"make installworld", "the disk is full", "No space left on device", filepath.Join(f.env.Work, "world", "logs", "installworld.log")} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q: %v", want, err)
		}
	}
	f.hook(t, "installworld", "")
	objects := programs(t, f.env.Work)
	f.build(t, "world")
	if again := programs(t, f.env.Work); fmt.Sprint(again) != fmt.Sprint(objects) {
		t.Errorf("programs were compiled again: %v, then %v", objects, again)
	}
}

// programs maps the world's compiled programs to their times.
func programs(t *testing.T, work string) map[string]time.Time {
	t.Helper()
	found := map[string]time.Time{}
	names, err := filepath.Glob(filepath.Join(work, "world/obj/*"))
	if err != nil || len(names) == 0 {
		t.Fatal("no objects: ", err)
	}
	err = filepath.Walk(filepath.Join(work, "world/obj"), func(p string, i os.FileInfo, err error) error {
		if err == nil && i.Mode().IsRegular() {
			found[p] = i.ModTime()
		}
		return err
	})
	if err != nil || len(found) < 5 {
		t.Fatalf("%d objects: %v", len(found), err)
	}
	return found
}

func TestCancellingStopsEveryProcess(t *testing.T) {
	for target, kind := range map[string]string{
		"buildworld": "world", "installworld": "world", "kernel-toolchain": "kernel", "buildkernel": "kernel", "installkernel": "kernel", "distribution": "distribution",
	} {
		t.Run(target, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			started := filepath.Join(t.TempDir(), "started")
			// The sleeper is a grandchild: stopping make alone would leave it.
			f.hook(t, target, "sleep 1000 & echo $! > "+started+".part; mv "+started+".part "+started+"; wait\n")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan error, 1)
			go func() { _, err := f.run(ctx, kind); done <- err }()
			pid := await(t, started, done)
			cancel()
			err := <-done
			if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "the next build goes on from there") {
				t.Errorf("got %v, want a sentence about being stopped", err)
			}
			gone(t, pid)
			f.hook(t, target, "")
			f.build(t, kind)
		})
	}
}

// await waits until a file is there and returns its text.
func await(t *testing.T, file string, done <-chan error) string {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if text, err := os.ReadFile(file); err == nil {
			return strings.TrimSpace(string(text))
		}
		select {
		case err := <-done:
			t.Fatalf("the build ended before its hook ran: %v", err)
		case <-t.Context().Done():
			t.Fatal("the hook did not run")
		case <-tick.C:
		}
	}
}

// gone waits until a process has ended: one that was killed closes its files
// before it is dead.
func gone(t *testing.T, pid string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 4000 {
		if !running(pid) {
			return
		}
		<-tick.C
	}
	t.Errorf("process %s still runs", pid)
}

// running says whether a process lives; a dead one that nobody waited for does
// not.
func running(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestTwoBuildsOfOneThingAtOnceBothSucceed(t *testing.T) {
	f := newFixture(t)
	other := *f
	other.env.Work = t.TempDir() // as two stores would have it, over one cache
	errs := make(chan error, 2)
	for _, x := range []*fixture{f, &other} {
		go func() { _, err := x.run(t.Context(), "kernel"); errs <- err }()
	}
	for range 2 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func TestBadInputIsASentenceWithARemedy(t *testing.T) {
	for name, c := range map[string]struct {
		kind   string
		change func(t *testing.T, f *fixture)
		want   []string
	}{
		"no source tree": {"world", func(t *testing.T, f *fixture) { f.recipe.Source.Src.Dir = t.TempDir() },
			[]string{"is not a FreeBSD source tree", "it has no Makefile", "/usr/src"}},
		"a tree of another architecture": {"world", func(t *testing.T, f *fixture) { f.recipe.Arch = "arm64" },
			[]string{"it has no sys/arm64/conf/GENERIC"}},
		"no toolchain named": {"world", func(t *testing.T, f *fixture) { f.recipe.Source.Src.Toolchain = "" },
			[]string{"needs LLVM 19.1.7", "apt install llvm-19 clang-19 lld-19", "/usr/lib/llvm-19/bin"}},
		"a toolchain without clang": {"kernel", func(t *testing.T, f *fixture) { f.recipe.Source.Src.Toolchain = t.TempDir() },
			[]string{"has no clang", "apt install"}},
		"a toolchain of another version": {"kernel", func(t *testing.T, f *fixture) {
			f.write(t, "lib/clang/include/llvm/Config/llvm-config.h", "#define LLVM_VERSION_STRING \"21.1.0\"\n")
		}, []string{"is LLVM 19", "carries the runtime of LLVM 21.1.0", "llvm-21"}},
		"a tree without make.py": {"kernel", func(t *testing.T, f *fixture) {
			if err := os.Remove(filepath.Join(f.src, "tools/build/make.py")); err != nil {
				t.Fatal(err)
			}
		}, []string{"no tools/build/make.py", "FreeBSD 13 or later"}},
		"a misspelt kernel option": {"kernel", func(_ *testing.T, f *fixture) { f.kernel().Options = []string{"TARFSS"} },
			[]string{`kernel "DISKLESS"`, `knows no kernel option "TARFSS"`, "did you mean TARFS?"}},
		"an unknown option in the tree's own configuration": {"kernel", func(t *testing.T, f *fixture) { f.append(t, "sys/amd64/conf/GENERIC", "options NO_SUCH\n") },
			[]string{`config(8) knows no kernel option "NO_SUCH"`, "buildkernel.log"}},
		"an unknown device": {"kernel", func(_ *testing.T, f *fixture) { f.kernel().Devices = []string{"warp"} },
			[]string{`config(8) knows no device "warp"`, "sys/conf/NOTES"}},
		"an unknown module": {"kernel", func(_ *testing.T, f *fixture) { f.kernel().Modules = []string{"tmpfs", "warp"} },
			[]string{`no kernel module "warp"`, "sys/modules"}},
		"an unknown include": {"kernel", func(_ *testing.T, f *fixture) { f.kernel().Include = "GENERRIC" },
			[]string{"no such file in sys/amd64/conf", "GENERIC, LOCAL"}},
		"a kernel that mounts no root": {"kernel", func(_ *testing.T, f *fixture) { f.kernel().Include = "LOCAL" },
			[]string{"lacks option NFSCL, needed by the node \"n1\"", "option NFS_ROOT", "a network driver (such as device em"}},
		"half of BOOTP": {"kernel", func(_ *testing.T, f *fixture) { f.kernel().Options = []string{"BOOTP"} },
			[]string{"lacks option BOOTP_NFSROOT"}},
		"an option with and without": {"world", func(_ *testing.T, f *fixture) { f.recipe.Stages[0].World.With = []string{"GAMES"} },
			[]string{`the option "GAMES" is both`, "keep one"}},
		"an option that is none": {"world", func(_ *testing.T, f *fixture) { f.recipe.Stages[0].World.Without = []string{"LIB32=yes"} },
			[]string{`"LIB32=yes" is not`, "DEBUG_FILES"}},
		"a METALOG that lists too much": {"distribution", func(t *testing.T, f *fixture) {
			f.hook(t, "distribution", "echo './etc/ghost type=file uname=root gname=wheel mode=0555' >> $METALOG\n")
		}, []string{`"etc/ghost" is listed as a file but is not on the disk`}},
		"a METALOG that lists too little": {"world", func(t *testing.T, f *fixture) {
			f.hook(t, "installworld", "mkdir -p $DESTDIR/bin; echo x > $DESTDIR/bin/stowaway\n")
		}, []string{`"bin/stowaway" is on the disk but not in the METALOG`, "ignores NO_ROOT"}},
		"a distribution that leaves out the hints": {"distribution", func(t *testing.T, f *fixture) { f.without(t, "share/mk/distribution.list", "device.hints") },
			[]string{"left out /boot/device.hints", "the loader knows no console"}},
		"a world that leaves out pxeboot": {"world", func(t *testing.T, f *fixture) { f.without(t, "share/mk/world.list", "boot/pxeboot") },
			[]string{"the world has no /boot/pxeboot", "LOADER_PXEBOOT"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			c.change(t, f)
			_, err := f.run(t.Context(), c.kind)
			if err == nil {
				t.Fatal("it was built")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %v\nwant %q in it", err, want)
				}
			}
		})
	}
}

// without takes the lines that hold a word out of a file.
func (f *fixture) without(t *testing.T, name, word string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(f.src, name))
	if err != nil {
		t.Fatal(err)
	}
	var kept []string
	for _, l := range strings.Split(string(data), "\n") {
		if !strings.Contains(l, word) {
			kept = append(kept, l)
		}
	}
	f.write(t, name, strings.Join(kept, "\n"))
}

func TestASourceInGitIsLockedFetchedAndBuilt(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("skipped: git is not installed")
	}
	f := newFixture(t)
	for _, args := range [][]string{{"init", "-q", "-b", "releng"}, {"add", "-A", "-f"}, {"-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "-m", "15.1"}} {
		if out, err := exec.Command("git", append([]string{"-C", f.src}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
	}
	fromFolder := fmt.Sprint(f.inputs(t, "world"))
	f.recipe.Source.Src.Git, f.recipe.Source.Src.Dir, f.recipe.Source.Src.Commit = "file://"+f.src, "", "releng"
	if _, err := f.run(t.Context(), "world"); err == nil || !strings.Contains(err.Error(), "rhizome lock") {
		t.Errorf("a branch without a lock gives %v", err)
	}
	f.env.Lock = &recipes.Lock{}
	if err := f.stages()["world"].(World).Lock(t.Context(), f.env, f.env.Lock); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(f.inputs(t, "world")); got != fromFolder {
		t.Errorf("the same tree by git has other inputs:\n%s\n%s", fromFolder, got)
	}
	f.build(t, "world")
}

func TestReleaseSetsBecomeLayersOfABase(t *testing.T) {
	if _, err := exec.LookPath("xz"); err != nil {
		t.Skip("skipped: xz is not installed")
	}
	f := newFixture(t)
	base := f.build(t, "world").Tree
	if err := base.Merge(f.build(t, "distribution").Tree); err != nil {
		t.Fatal(err)
	}
	sets := t.TempDir()
	manifest := txz(t, sets, "base", base) + txz(t, sets, "kernel", f.build(t, "kernel").Tree)
	if err := os.WriteFile(filepath.Join(sets, "MANIFEST"), []byte(manifest), 0o644); err != nil {
		t.Fatal(err)
	}
	f.recipe.Source = recipes.Source{Dists: &recipes.Dists{From: sets, Sets: []string{"base", "kernel"}}}
	server := httptest.NewServer(http.FileServer(http.Dir(sets)))
	defer server.Close()
	f.recipe.Source.Dists.From = server.URL
	want := []string{"map[boot.bios:/boot/pxeboot boot.uefi:/boot/loader.efi]", "map[kernel.path:/boot/kernel/kernel]"}
	for i, d := range NewDists(f.recipe, get) {
		env := f.env
		env.Work = t.TempDir()
		out, err := d.Run(t.Context(), env, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(out.Facts); got != want[i] {
			t.Errorf("%s: facts are %s, want %s", d.Info().Name, got, want[i])
		}
		if i == 0 && list(out.Tree) != list(base) {
			t.Errorf("the set's tree is not the one it was made of:\n%s", list(out.Tree))
		}
	}
}

// get is a client that the stage is handed.
func get(ctx context.Context, url string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// txz writes a tree as a release set and returns its line of the MANIFEST.
func txz(t *testing.T, dir, name string, tr *tree.Tree) string {
	t.Helper()
	if err := tr.Normalize(); err != nil {
		t.Fatal(err)
	}
	var tar bytes.Buffer
	if err := layer.WriteTar(&tar, tr, time.Unix(0, 0)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("xz", "-0", "--stdout")
	cmd.Stdin = &tar
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".txz"), out, 0o644); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s.txz\t%x\t1\t%s\n", name, sha256.Sum256(out), name)
}

// BenchmarkSecondPlan is what all FreeBSD stages' inputs cost when nothing has
// changed.
func BenchmarkSecondPlan(b *testing.B) {
	f := newFixture(b)
	for b.Loop() {
		for _, s := range f.stages() {
			if _, err := s.Inputs(b.Context(), f.env); err != nil {
				b.Fatal(err)
			}
		}
	}
}
