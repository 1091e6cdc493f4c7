package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// RunDir is where the early program leaves what this boot's programs need:
// server and token.
func RunDir() string {
	if runtime.GOOS == "freebsd" {
		return "/var/run/rhizome"
	}
	return "/run/rhizome"
}

// Find makes a client from what the early program left in dir; the server is
// else taken from the kernel's command line or environment. A token that this
// user may not read is no error here: the server will ask for it.
func Find(dir string) (*Client, error) {
	server, err := os.ReadFile(filepath.Join(dir, "server"))
	if errors.Is(err, fs.ErrNotExist) {
		server, err = []byte(ServerOfKernel()), nil
	}
	if err != nil {
		return nil, fmt.Errorf("finding the server: %w", err)
	}
	c := &Client{Server: strings.TrimSpace(string(server))}
	if c.Server == "" {
		return nil, fmt.Errorf("no server is known: %s is missing, and the kernel was not booted from one", filepath.Join(dir, "server"))
	}
	if token, err := os.ReadFile(filepath.Join(dir, "token")); err == nil {
		c.Token = strings.TrimSpace(string(token))
	}
	return c, nil
}

// Save writes what Find reads: the token for root alone.
func Save(dir, server, token string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, f := range []struct {
		name, text string
		mode       fs.FileMode
	}{{"server", server, 0o444}, {"token", token, 0o400}} {
		temp := filepath.Join(dir, "."+f.name+".new")
		os.Remove(temp)
		if err := os.WriteFile(temp, []byte(f.text+"\n"), f.mode); err != nil {
			return err
		}
		if err := os.Rename(temp, filepath.Join(dir, f.name)); err != nil {
			return err
		}
	}
	return nil
}

// ServerOfKernel is the server that the running kernel was booted from, or "".
func ServerOfKernel() string {
	if runtime.GOOS == "freebsd" {
		for _, name := range []string{"rhizome.server", "boot.nfsroot.server"} {
			if out, err := exec.Command("/bin/kenv", "-q", name).Output(); err == nil {
				return strings.TrimSpace(string(out))
			}
		}
		return ""
	}
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return ""
	}
	return serverOf(string(line))
}

// serverOf reads a Linux command line: rhizome.server=HOST, or nfsroot=HOST:/...
// (Documentation/admin-guide/nfs/nfsroot.rst).
func serverOf(cmdline string) (server string) {
	for word := range strings.FieldsSeq(cmdline) {
		if v, ok := strings.CutPrefix(word, "rhizome.server="); ok {
			return v
		}
		if v, ok := strings.CutPrefix(word, "nfsroot="); ok && server == "" {
			if host, _, ok := strings.Cut(v, ":/"); ok {
				server = host
			}
		}
	}
	return server
}
