//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// all reads an open file from its beginning.
func all(f *os.File) (string, error) {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<30))
	return string(b), err
}

func write(name, body string) error { return os.WriteFile(name, []byte(body), 0o644) }

func renameOverOpen(dir string) error {
	at, over := filepath.Join(dir, "at"), filepath.Join(dir, "over")
	if err := errors.Join(write(at, "old"), write(over, "new")); err != nil {
		return err
	}
	reader, err := os.Open(at)
	if err != nil {
		return err
	}
	defer reader.Close()
	if err := os.Rename(over, at); err != nil {
		return err
	}
	old, err := all(reader)
	now, err2 := os.ReadFile(at)
	_, gone := os.Stat(over)
	return errors.Join(err, err2, expect("the open file", old, "old"), expect("the name", string(now), "new"),
		expect("the other name is gone", os.IsNotExist(gone), true))
}

func unlinkOpen(dir string) error {
	name := filepath.Join(dir, "file")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString("first ")
	if err := errors.Join(err, os.Remove(name)); err != nil {
		return err
	}
	_, err = f.WriteString("second")
	body, err2 := all(f)
	_, gone := os.Stat(name)
	err = errors.Join(err, err2, expect("what it holds", body, "first second"), expect("its name is gone", os.IsNotExist(gone), true), f.Close())
	left, err2 := os.ReadDir(dir) // the client's own name for it (.nfs...) goes at close
	return errors.Join(err, err2, expect("names left", len(left), 0))
}

func appendByTwo(dir string) error {
	const lines = 400
	name := filepath.Join(dir, "log")
	if err := write(name, ""); err != nil {
		return err
	}
	one, two := self("append", name, fmt.Sprint(lines)), self("append", name, fmt.Sprint(lines))
	if err := errors.Join(one.Start(), two.Start()); err != nil {
		return err
	}
	if err := errors.Join(one.Wait(), two.Wait()); err != nil {
		return err
	}
	body, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	have := map[string]int{}
	for line := range strings.Lines(string(body)) {
		have[line]++
	}
	for _, writer := range []int{one.Process.Pid, two.Process.Pid} {
		for i := range lines {
			if n := have[appended(writer, i)]; n != 1 {
				return fmt.Errorf("line %d of writer %d is there %d times", i, writer, n)
			}
		}
	}
	return expect("lines", len(have), 2*lines)
}

func appended(pid, i int) string {
	return fmt.Sprintf("%d writes line %d %s\n", pid, i, strings.Repeat(".", i%90))
}

func appendLines(name string, n int) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	for i := range n {
		if _, err := f.WriteString(appended(os.Getpid(), i)); err != nil {
			return err
		}
	}
	return f.Close()
}

// holdLock takes a lock, says so, and holds it until its input ends.
func holdLock(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		return err
	}
	fmt.Println("locked")
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, f.Close())
}

func locks(dir string) error {
	name := filepath.Join(dir, "lock")
	if err := write(name, "x"); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	holder := self("lock", name, "0")
	stop, err := holder.StdinPipe()
	if err != nil {
		return err
	}
	said, err := holder.StdoutPipe()
	if err != nil {
		return err
	}
	if err := holder.Start(); err != nil {
		return err
	}
	if _, err := io.ReadFull(said, make([]byte, len("locked\n"))); err != nil {
		return err
	}
	refused := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	who := unix.Flock_t{Type: unix.F_RDLCK}
	err = unix.FcntlFlock(f.Fd(), unix.F_GETLK, &who)
	stop.Close()
	err = errors.Join(err, holder.Wait(), expect("a second lock", refused, error(unix.EAGAIN)), expect("the lock's holder", int(who.Pid), holder.Process.Pid))
	return errors.Join(err, unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}), unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB))
}
