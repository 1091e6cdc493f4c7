package freebsd

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
)

// Build is how make is called for one source tree.
type Build struct {
	Source    Source
	Toolchain Toolchain
	// Host is runtime.GOOS of the machine that builds.
	Host string
	// Objects is MAKEOBJDIRPREFIX (build(7)); it lies outside the tree.
	Objects string
	// SrcConf is the path of a src.conf(5) outside the tree.
	SrcConf string
	// Temp is a folder for compilers' temporary files.
	Temp string
	Jobs int
}

// Command is a program to run.
type Command struct {
	Dir  string
	Args []string
	Env  []string
}

// defaultSIGINT runs a program with SIGINT at its default. A job in the
// background of a shell without job control begins with SIGINT ignored, and
// make could then not be interrupted in order.
const defaultSIGINT = `import os,signal,sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable] + sys.argv[1:])`

// Command puts together a call of make: FreeBSD's own on FreeBSD, and through
// the tree's tools/build/make.py elsewhere or where a toolchain is named. The
// environment holds nothing of the caller's.
func (b Build) Command(args ...string) Command {
	c := Command{Dir: b.Source.Dir, Env: b.env()}
	if b.foreign() {
		c.Args = append([]string{"python3", "-c", defaultSIGINT, filepath.Join(b.Source.Dir, "tools/build/make.py")}, b.crossFlags()...)
	} else {
		c.Args = []string{"make", "-DWITHOUT_CLEAN"}
	}
	c.Args = append(c.Args, b.variables()...)
	c.Args = append(c.Args, args...)
	return c
}

// Bootstrap is the call that makes make.py build its bmake and do nothing
// else. bmake would then run its self-tests, within the source tree: they test
// make and not this tree, and fail on a busy machine (cmd-interrupt races a
// sleep), so all of them are declared broken.
func (b Build) Bootstrap() Command {
	c := b.Command("-V", "MACHINE")
	c.Env = append(c.Env, "BROKEN_TESTS=*")
	return c
}

// foreign says that the build must go through make.py.
func (b Build) foreign() bool { return b.Host != "freebsd" || b.Toolchain.Bin != "" }

func (b Build) crossFlags() []string {
	return []string{
		"--cross-bindir=" + b.Toolchain.Bin, "--host-bindir=" + b.Toolchain.Bin,
		"--host-compiler-type=clang", "--no-clean",
	}
}

// variables are the same for every target. WITH_REPRODUCIBLE_BUILD keeps host,
// user and path out of the kernel's and loader's stamps and maps paths in
// debug information and __FILE__ (src.conf(5)).
func (b Build) variables() []string {
	return []string{
		"TARGET=" + b.Source.target(), "TARGET_ARCH=" + b.Source.targetArch(),
		"-DNO_ROOT", "-DDB_FROM_SRC", "-DWITH_REPRODUCIBLE_BUILD",
		"SRCCONF=" + b.SrcConf, "SRC_ENV_CONF=/dev/null", "__MAKE_CONF=/dev/null",
		fmt.Sprintf("-j%d", max(1, b.Jobs)),
	}
}

// env leaves SOURCE_DATE_EPOCH out on purpose: newvers.sh hands it to "date -ur",
// which GNU date takes for a file's name, and then stops the build. Nothing needs
// it: WITH_REPRODUCIBLE_BUILD stamps no time, and stand/efi has a fixed one.
func (b Build) env() []string {
	vars := map[string]string{
		"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME": b.Temp, "TMPDIR": b.Temp, "LC_ALL": "C", "TZ": "UTC",
		// newvers.sh stamps these into a kernel made of a changed tree.
		"USER": "root", "HOSTNAME": "rhizome",
		// An index that does not exist lets newvers.sh see no local changes:
		// for a changed tree it would stamp the object folder's path. What was
		// changed is in the stage's key instead.
		"GIT_INDEX_FILE":   filepath.Join(b.Temp, "no-index"),
		"MAKEOBJDIRPREFIX": b.Objects,
	}
	env := make([]string, 0, len(vars))
	for _, k := range slices.Sorted(maps.Keys(vars)) {
		env = append(env, k+"="+vars[k])
	}
	return env
}

// KernelObjects is the folder that a kernel's objects go to.
func (b Build) KernelObjects(name string) string {
	return filepath.Join(b.Objects, b.Source.Dir, b.Source.target()+"."+b.Source.targetArch(), "sys", name)
}
