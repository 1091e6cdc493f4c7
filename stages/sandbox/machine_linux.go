package sandbox

import (
	"context"
	"errors"

	"rhizome/stages/debian/bootstrap"
	"rhizome/stages/debian/tool"
)

// machine is how this system keeps a command to itself.
type machine struct{ ns *bootstrap.Namespaces }

func enter(ctx context.Context) (machine, error) {
	for prog, pkg := range map[string]string{"tar": "tar", "find": "findutils", "setpriv": "util-linux", "chroot": "coreutils"} {
		if _, err := tool.Find(prog, pkg); err != nil {
			return machine{}, err
		}
	}
	ns, err := bootstrap.Enter(ctx)
	return machine{ns}, err
}

func (m machine) removeAll(dir string) error { return m.ns.RemoveAll(dir) }

// shell is a command line that runs a script inside the namespaces, "$1" being
// its first argument.
func (m machine) shell(script string, args ...string) []string {
	return m.ns.Command(append([]string{"/bin/sh", "-c", "set -eu\n" + script, "sh"}, args...)...)
}

// xattrs carries all attributes but SELinux's, which the machine's policy
// gives and takes.
const xattrs = ` --numeric-owner --xattrs --xattrs-include='*' --xattrs-exclude='security.selinux' `

// The mount points that a root lacks are made before it is listed, so that
// they count as untouched.
const unpackScript = `tar --extract --file=- --directory="$1" --same-owner --same-permissions` + xattrs + `
for d in proc sys dev run tmp; do [ -d "$1/$d" ] || mkdir "$1/$d"; done`

func (m machine) unpack(root string) []string { return m.shell(unpackScript, root) }

// The root's own modes may keep its owner out of nothing: inside, it is uid 0.
const listScript = `cd "$1" && exec find . -printf '%i %C@ %p\0'`

func (m machine) list(root string) []string { return m.shell(listScript, root) }

const packScript = `exec tar --create --file="$3" --directory="$1" --format=pax --no-recursion --null --verbatim-files-from --files-from="$2"` +
	xattrs + `--pax-option=delete=atime,delete=ctime`

func (m machine) pack(root, names, file string) []string {
	return m.shell(packScript, root, names, file)
}

// runScript makes the root the whole world of the command. Moving it over "/"
// leaves nothing above it to climb out to, which chroot(2) alone does not do;
// afterwards the command is process 1, and may neither mount nor make devices
// nor reach the kernel (capabilities(7)). The kernel's settings are the whole
// machine's, and root's to write without any capability (proc_sys(5)).
const runScript = `root=$1 inputs=$2
shift 2
mount --bind "$root" "$root"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
for p in sys sysrq-trigger; do
	[ -e "$root/proc/$p" ] || continue
	mount --bind "$root/proc/$p" "$root/proc/$p"
	mount -o remount,bind,ro,nosuid,nodev,noexec "$root/proc/$p"
done
mount -t tmpfs -o nosuid,mode=755 tmpfs "$root/dev"
for d in null zero full random urandom tty; do
	: >"$root/dev/$d"
	mount --bind "/dev/$d" "$root/dev/$d"
done
mkdir -m 1777 "$root/dev/shm"
ln -s /proc/self/fd "$root/dev/fd"
for n in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${n%:*}" "$root/dev/${n#*:}"; done
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mkdir -p "$root` + InputsAt + `"
mount --bind "$inputs" "$root` + InputsAt + `"
mount -o remount,bind,ro "$root` + InputsAt + `"
cd "$root"
mount --no-mtab --move . /
exec setpriv --bounding-set=-sys_admin,-mknod,-sys_module,-sys_rawio,-sys_boot,-sys_time,-sys_ptrace,-syslog,-net_admin,-bpf,-perfmon,-mac_admin,-mac_override,-audit_control \
	chroot . "$@" </dev/null`

func (m machine) run(root, inputs string, args []string) []string {
	return m.shell(runScript, append([]string{root, inputs}, args...)...)
}

// CanRun says why this machine cannot run a command over a root of a system,
// named as OCI names it.
func CanRun(system string) error {
	if system != "linux" {
		return errors.New("the recipe's os is " + system + ", whose programs this Linux machine cannot run: build it on a " + system + " machine, or put the files that the command would make into a files stage")
	}
	return nil
}
