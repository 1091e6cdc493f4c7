//go:build linux

// Command workout does to a mounted file system what programs on a node do, and
// checks what POSIX promises of each. The end-to-end tests put it into a node,
// where it works on the server's writable exports through the kernel's client.
//
//	workout posix DIR          every story below, one line each
//	workout records DIR N      makes N records, each stable before it is told of
//	workout check DIR N        the records up to N are there, whole and alone
//	workout stream DIR MIB     so many MiB of unstable writes, then fsync
//
// A line begins with "ok", "stable" or "FAIL"; a failure ends it with status 1.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// story is one thing that programs rely on. It has a directory of its own.
type story struct {
	name string
	tell func(dir string) error
}

var stories = []story{
	{"a rename over an open file leaves its reader the old content", renameOverOpen},
	{"a file without a name is read until it is closed", unlinkOpen},
	{"two writers append and no line is lost or torn", appendByTwo},
	{"a lock keeps others out until its holder ends", locks},
	{"a file is cut, grown and has holes", sizes},
	{"a mapped file is written through memory", mapped},
	{"attributes are kept as they were set", attributes},
	{"links and special files are what they were made", links},
	{"directories move and refuse what they must", directories},
	{"names are told apart to the last byte", names},
	{"10,000 files are made, listed, read and removed", many},
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Println("FAIL", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 2 && args[0] == "posix" {
		return posix(args[1])
	}
	if len(args) >= 3 {
		n, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		switch args[0] {
		case "records":
			return records(args[1], n)
		case "check":
			return check(args[1], n)
		case "stream":
			return stream(args[1], n)
		case "append":
			return appendLines(args[1], n)
		case "lock":
			return holdLock(args[1])
		}
	}
	return fmt.Errorf("usage: workout posix|records|check|stream DIR [N]")
}

func posix(dir string) error {
	for i, s := range stories {
		own := filepath.Join(dir, strconv.Itoa(i))
		if err := os.Mkdir(own, 0o755); err != nil {
			return err
		}
		if err := s.tell(own); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		if err := os.RemoveAll(own); err != nil {
			return fmt.Errorf("%s: cleaning up: %w", s.name, err)
		}
		fmt.Println("ok", s.name)
	}
	return nil
}

// self runs this program again, as another process.
func self(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Stderr = os.Stderr
	return cmd
}

// expect makes an error of two values that are not the same.
func expect[T comparable](what string, got, want T) error {
	if got != want {
		return fmt.Errorf("%s: %v, want %v", what, got, want)
	}
	return nil
}
