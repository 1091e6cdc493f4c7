package bootstrap

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"rhizome/stages/debian/tool"
)

// Namespaces enters the namespaces that a root is built in.
type Namespaces struct {
	unshare []string
	// User is true where the caller is not root, and becomes it only inside.
	User bool
}

// Enter finds out how this process can enter namespaces, and tries. The error
// says what the machine lacks.
//
// A new PID namespace makes the kernel end all that a build started when its
// first process ends, the mount namespace takes its mounts along
// (pid_namespaces(7), mount_namespaces(7)); the network namespace is empty.
func Enter(ctx context.Context) (*Namespaces, error) {
	bin, err := tool.Find("unshare", "util-linux")
	if err != nil {
		return nil, err
	}
	n := &Namespaces{User: os.Geteuid() != 0}
	n.unshare = []string{bin}
	if n.User {
		if err := mayMap(); err != nil {
			return nil, err
		}
		n.unshare = append(n.unshare, "--user", "--map-root-user", "--map-auto")
	}
	n.unshare = append(n.unshare, "--mount", "--pid", "--fork", "--kill-child", "--net", "--uts", "--ipc", "--")
	try := n.Command("true")
	c := tool.Command{Doing: "entering namespaces for the build", Args: try, Explain: n.explain}
	return n, c.Run(ctx)
}

// Command wraps a command line so that it runs inside: with a host name that
// is the same everywhere, and files made with the usual permissions.
func (n *Namespaces) Command(args ...string) []string {
	return append(append([]string{}, n.unshare...),
		append([]string{"/bin/sh", "-c", `umask 022; hostname localhost && exec "$@"`, "sh"}, args...)...)
}

// RemoveAll removes what a build left, as the user or, where its files belong
// to the range of users that the namespace maps, from inside.
func (n *Namespaces) RemoveAll(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	if _, err := os.Lstat(dir); os.IsNotExist(err) {
		return nil
	}
	out, err := exec.Command(n.unshare[0], append(n.unshare[1:], "rm", "-rf", "--one-file-system", dir)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("removing the build's folder %q: %w: %s", dir, err, bytes.TrimSpace(out))
	}
	return nil
}

// mayMap checks that this user owns a range of users and groups.
func mayMap() error {
	for _, helper := range []string{"newuidmap", "newgidmap"} {
		if _, err := tool.Find(helper, "uidmap"); err != nil {
			return fmt.Errorf("building without root: %w", err)
		}
	}
	u, err := user.Current()
	if err != nil {
		return fmt.Errorf("building without root: %w", err)
	}
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		text, err := os.ReadFile(file)
		if err != nil || !ownsRange(string(text), u.Username, u.Uid) {
			return fmt.Errorf("building without root: %q gives the user %q no range of 65536 ids; as root, run: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %s",
				file, u.Username, u.Username)
		}
	}
	return nil
}

// wantedIDs is how many ids a root needs: Debian's highest is 65534.
const wantedIDs = 65535

// ownsRange reads subuid(5): NAME:FIRST:COUNT, where the name may be a number.
func ownsRange(text, name, id string) bool {
	for _, line := range strings.Split(text, "\n") {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) != 3 || f[0] != name && f[0] != id {
			continue
		}
		if n, err := strconv.Atoi(f[2]); err == nil && n >= wantedIDs {
			return true
		}
	}
	return false
}

func (n *Namespaces) explain(tail []string) tool.Cause {
	said := strings.Join(tail, "; ")
	if n.User {
		return tool.Cause{What: fmt.Sprintf("this machine does not let users make user namespaces (%s)", said),
			Remedy: "as root, set the sysctls user.max_user_namespaces above 0 and, where it exists, kernel.unprivileged_userns_clone=1; or build as root"}
	}
	return tool.Cause{What: fmt.Sprintf("this root may not make namespaces (%s)", said),
		Remedy: "it lacks CAP_SYS_ADMIN, as in a container; run the container with --privileged, or build as a user with user namespaces"}
}

// explain reads mmdebstrap's last lines.
func explain(work string) func([]string) tool.Cause {
	return func(tail []string) tool.Cause {
		all := strings.Join(tail, "\n")
		switch {
		case strings.Contains(all, "No space left on device"):
			return tool.Cause{What: fmt.Sprintf("the disk that holds %q is full", filepath.Dir(work)), Remedy: "free some space and build again"}
		case strings.Contains(all, "unmet dependencies"):
			return tool.Cause{What: "the locked packages do not fit each other", Remedy: "run \"rhizome lock\" again"}
		case strings.Contains(all, "can neither be executed natively"), strings.Contains(all, "cannot be executed"):
			return tool.Cause{What: "this machine cannot run programs of the recipe's architecture", Remedy: "apt-get install qemu-user-static binfmt-support arch-test"}
		}
		return tool.Cause{}
	}
}
