package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// machine is how this system keeps a command to itself: a jail(8) without
// addresses, made by root. It was written from the manuals and has not been
// run: docs/stages.md says so.
type machine struct{}

func enter(context.Context) (machine, error) {
	if os.Geteuid() != 0 {
		return machine{}, errors.New("jails are made by root; run the build as root")
	}
	return machine{}, nil
}

// removeAll takes the flags off first that keep files from being removed.
func (m machine) removeAll(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	if out, err := exec.Command("chflags", "-R", "noschg,nouchg,nosunlnk", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("removing the build's folder %q: %w: %s", dir, err, out)
	}
	return os.RemoveAll(dir)
}

func (m machine) shell(script string, args ...string) []string {
	return append([]string{"/bin/sh", "-c", "set -eu\numask 022\n" + script, "sh"}, args...)
}

// Flags are left out: the command could change nothing that has schg.
func (m machine) unpack(root string) []string {
	return m.shell(`tar -x -f - -C "$1" -p --no-fflags --numeric-owner
for d in proc sys dev run tmp; do [ -d "$1/$d" ] || mkdir "$1/$d"; done
mkdir -p "$1`+InputsAt+`"`, root)
}

func (m machine) list(root string) []string {
	return m.shell(`cd "$1" && find . -print0 | xargs -0 stat -f '%i %Fc %N' | tr '\n' '\0'`, root)
}

func (m machine) pack(root, names, file string) []string {
	return m.shell(`tar -c -f "$3" -C "$1" --format pax -n --null -T "$2" --numeric-owner`, root, names, file)
}

func (m machine) run(root, inputs string, args []string) []string {
	const script = `root=$1 inputs=$2
shift 2
exec jail -c path="$root" host.hostname=localhost ip4=disable ip6=disable mount.devfs devfs_ruleset=4 \
	mount="$inputs $root` + InputsAt + ` nullfs ro 0 0" exec.clean=0 command="$@" </dev/null`
	return m.shell(script, append([]string{root, inputs}, args...)...)
}

// CanRun says why this machine cannot run a command over a root of a system.
func CanRun(system string) error {
	if system != "freebsd" {
		return errors.New("the recipe's os is " + system + ", and commands are run over it on " + system + " machines alone: build it there, or put the files that the command would make into a files stage")
	}
	return nil
}
