package freebsd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestCommandsOnFreeBSDAndElsewhere(t *testing.T) {
	b := Build{Source: Source{Dir: "/src", Arch: "arm64"}, Objects: "/obj", SrcConf: "/w/src.conf", Temp: "/w/tmp", Jobs: 8}
	rest := "TARGET=arm64 TARGET_ARCH=aarch64 -DNO_ROOT -DDB_FROM_SRC -DWITH_REPRODUCIBLE_BUILD SRCCONF=/w/src.conf SRC_ENV_CONF=/dev/null __MAKE_CONF=/dev/null -j8 DESTDIR=/w/root installworld"
	for name, c := range map[string]struct {
		host, llvm, want string
	}{
		"FreeBSD's own make":            {"freebsd", "", "make -DWITHOUT_CLEAN " + rest},
		"Linux through make.py":         {"linux", "/llvm/bin", "/src/tools/build/make.py --cross-bindir=/llvm/bin --host-bindir=/llvm/bin --host-compiler-type=clang --no-clean " + rest},
		"FreeBSD with a named compiler": {"freebsd", "/llvm/bin", "/src/tools/build/make.py --cross-bindir=/llvm/bin --host-bindir=/llvm/bin --host-compiler-type=clang --no-clean " + rest},
	} {
		b.Host, b.Toolchain.Bin = c.host, c.llvm
		got := strings.Join(b.Command("DESTDIR=/w/root", "installworld").Args, " ")
		got = strings.TrimPrefix(got, "python3 -c "+defaultSIGINT+" ")
		if got != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, c.want)
		}
	}
}

func TestTheEnvironmentIsOurOwn(t *testing.T) {
	t.Setenv("MAKEFLAGS", "-n")
	t.Setenv("CFLAGS", "-O3")
	env := Build{Objects: "/obj", Temp: "/w/tmp"}.Command("x").Env
	want := "GIT_INDEX_FILE=/w/tmp/no-index HOME=/w/tmp HOSTNAME=rhizome LC_ALL=C MAKEOBJDIRPREFIX=/obj " +
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin TMPDIR=/w/tmp TZ=UTC USER=root"
	if got := strings.Join(env, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestTheLogIsWholeAndTheErrorShowsItsEnd(t *testing.T) {
	var said []string
	r := Runner{Logs: t.TempDir(), Progress: func(l string) { said = append(said, l) }}
	script := `echo ">>> stage 1"; for i in $(seq 1 100); do echo "line $i"; done; echo "===> lib/libc (all)"; echo last >&2; exit 3`
	err := r.Run(t.Context(), "buildworld", Command{Dir: "/", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"}})
	var failed *MakeError
	if !errors.As(err, &failed) || len(failed.Tail) != tailLines || failed.Tail[tailLines-1] != "last" {
		t.Fatalf("got %v", err)
	}
	if !strings.Contains(err.Error(), "make buildworld: exit status 3") || !strings.Contains(err.Error(), r.Log("buildworld")) {
		t.Errorf("got %v", err)
	}
	text, err := os.ReadFile(r.Log("buildworld"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"); n < 103 || !strings.Contains(string(text), "line 1\n") {
		t.Errorf("the log has %d lines", n)
	}
	if fmt.Sprint(said) != "[>>> stage 1 ===> lib/libc (all)]" {
		t.Errorf("progress was %q", said)
	}
}

func TestRemediesAreFoundInRealOutput(t *testing.T) {
	for line, want := range map[string]string{
		"install: /w/root/usr/lib/libc.a: No space left on device":                  "the disk is full",
		`config: unknown option "NFS_ROOTT"`:                                        `config(8) knows no kernel option "NFS_ROOTT"`,
		`config: Error: device "warp" is unknown`:                                   `config(8) knows no device "warp"`,
		"/src/libarchive.c:3:10: fatal error: 'archive.h' file not found":           "apt install libarchive-dev",
		"sh: 1: flex: not found":                                                    `the host has no "flex"`,
		"clang: error: unable to execute command: Killed":                           "for want of memory",
		"Could not infer value for $XCC: /llvm/clang does not exist":                "the toolchain's folder lacks a program",
		`bmake: "/src/Makefile.inc1" line 1742: Missing KERNCONF /src/sys/X/conf/Y`: "the tree has no such kernel configuration",
		"everything is well":                                                        "",
	} {
		if got := explain([]string{"before", line, "*** Error code 1"}); (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%q is explained by %q, want %q", line, got, want)
		}
	}
}

func TestAProgramThatIsNotThereIsNamed(t *testing.T) {
	err := Runner{Logs: t.TempDir()}.Run(t.Context(), "x", Command{Dir: "/", Args: []string{"/nonexistent/make"}})
	if err == nil || !strings.Contains(err.Error(), `starting "/nonexistent/make"`) {
		t.Errorf("got %v", err)
	}
}

func TestALockWaitsAndCanBeGivenUp(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sub", "lock")
	unlock, err := lock(t.Context(), file, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := lock(ctx, file, true, cancel); !errors.Is(err, context.Canceled) {
		t.Errorf("a held lock gives %v", err)
	}
	got := make(chan error, 1)
	waits := make(chan struct{})
	go func() {
		again, err := lock(t.Context(), file, false, func() { close(waits) })
		if err == nil {
			again()
		}
		got <- err
	}()
	<-waits
	unlock()
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func TestSharedLocksAreHeldTogether(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lock")
	for range 2 {
		unlock, err := lock(t.Context(), file, true, func() { t.Error("a shared lock waits for a shared lock") })
		if err != nil {
			t.Fatal(err)
		}
		defer unlock()
	}
}

func TestSrcConfIsTheSameForTheSameOptions(t *testing.T) {
	got, err := SrcConf([]string{"TESTS", "lib32", "WITHOUT_GAMES", "TESTS"}, []string{"BEARSSL"})
	if want := "WITHOUT_GAMES=yes\nWITHOUT_LIB32=yes\nWITHOUT_TESTS=yes\nWITH_BEARSSL=yes\n"; err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	for _, bad := range []string{"", "A B", "X=y", "X\nY"} {
		if _, err := SrcConf([]string{bad}, nil); err == nil {
			t.Errorf("%q is taken for an option", bad)
		}
	}
}

func TestUsersComeFromTheTree(t *testing.T) {
	ids, err := ReadIDs("../../testdata/freebsd-src")
	if err != nil {
		t.Fatal(err)
	}
	if uid, err := ids.User("games"); err != nil || uid != 7 {
		t.Errorf("games is %d, %v", uid, err)
	}
	if gid, err := ids.Group("65533"); err != nil || gid != 65533 {
		t.Errorf("a number is %d, %v", gid, err)
	}
	for _, text := range []string{"root", "root:*", "root:*:zero:0"} {
		if _, err := ParseNames([]byte(text)); err == nil {
			t.Errorf("%q is read as a line of master.passwd", text)
		}
	}
}

func TestACommitIsCheckedOutOnceAndWhole(t *testing.T) {
	origin := copyTree(t)
	commit := commitAll(t, origin)
	git(t, origin, "tag", "-a", "-m", "release", "release/15.1")
	change(t, origin, "COPYRIGHT", "later\n")
	git(t, origin, "commit", "--quiet", "--all", "-m", "later")
	if got, err := ResolveCommit(t.Context(), origin, "release/15.1"); err != nil || got != commit {
		t.Errorf("the tag is %q, %v, want %q", got, err, commit)
	}
	cache := t.TempDir()
	var said []string
	for range 2 {
		dir, err := Checkout(t.Context(), cache, "file://"+origin, commit, func(s string) { said = append(said, s) })
		if err != nil {
			t.Fatal(err)
		}
		if text, err := os.ReadFile(filepath.Join(dir, "COPYRIGHT")); err != nil || string(text) == "later\n" {
			t.Errorf("the checkout is not the commit's: %q, %v", text, err)
		}
	}
	if len(said) != 1 {
		t.Errorf("fetched %d times: %q", len(said), said)
	}
}

func TestCheckoutsThatCannotBe(t *testing.T) {
	origin := copyTree(t)
	commitAll(t, origin)
	cache := t.TempDir()
	if _, err := Checkout(t.Context(), cache, origin, "main", nil); err == nil || !strings.Contains(err.Error(), `run "rhizome lock"`) {
		t.Errorf("a branch gives %v", err)
	}
	gone := strings.Repeat("12", 20)
	if _, err := Checkout(t.Context(), cache, "file://"+origin, gone, nil); err == nil || !strings.Contains(err.Error(), "is the commit there") {
		t.Errorf("a missing commit gives %v", err)
	}
	if _, err := os.Stat(filepath.Join(cache, gone)); err == nil {
		t.Error("a failed checkout is visible")
	}
	if _, err := ResolveCommit(t.Context(), origin, "no-such-branch"); err == nil {
		t.Error("a branch that is not there is resolved")
	}
}

func TestTheKernelsStampIsAnInputOnlyWhereTheTreeStampsIt(t *testing.T) {
	dir := copyTree(t)
	commit := commitAll(t, dir)
	s := Source{Dir: dir}
	if got := versionControlStamp(t.Context(), s); got != "" {
		t.Errorf("the fixture's newvers.sh asks no git, but the stamp is %q", got)
	}
	change(t, dir, "sys/conf/newvers.sh", "git rev-parse --verify HEAD\n")
	if _, err := os.Stat("/usr/bin/git"); err != nil {
		t.Skip("skipped: newvers.sh looks for git in /usr/bin and /usr/local/bin, and here it is elsewhere")
	}
	if got, want := versionControlStamp(t.Context(), s), commit[:12]+" false 1 main"; got != want {
		t.Errorf("the stamp is %q, want %q", got, want)
	}
}

func TestAStoppedBuildEndsThoughItIgnoresSignals(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := Runner{Logs: t.TempDir()}
	go func() {
		for ctx.Err() == nil {
			if log, _ := os.ReadFile(r.Log("x")); strings.Contains(string(log), "deaf now") {
				cancel()
			}
			time.Sleep(time.Millisecond)
		}
	}()
	script := `trap "" INT TERM; printf "deaf %s\n" now; while :; do sleep 1; done`
	err := r.Run(ctx, "x", Command{Dir: "/", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
