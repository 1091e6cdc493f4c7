//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func sizes(dir string) error {
	f, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		return err
	}
	defer f.Close()
	const far = 5 << 20
	_, err = f.WriteString("0123456789")
	_, err2 := f.WriteAt([]byte("end"), far)
	if err := errors.Join(err, err2, f.Sync(), f.Truncate(4), f.Truncate(8)); err != nil {
		return err
	}
	cut, err := all(f)
	if _, err := f.WriteAt([]byte("end"), far); err != nil {
		return err
	}
	holed, err2 := all(f)
	want := "0123" + strings.Repeat("\x00", far-4) + "end"
	st, err3 := f.Stat()
	return errors.Join(err, err2, err3, expect("after the cut", cut, "0123\x00\x00\x00\x00"), expect("with a hole", holed == want, true), expect("size", st.Size(), int64(len(want))))
}

func mapped(dir string) error {
	name := filepath.Join(dir, "file")
	if err := write(name, strings.Repeat("a", 3*4096)); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, 3*4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	copy(m[4090:], "over a page's end")
	if err := errors.Join(unix.Msync(m, unix.MS_SYNC), unix.Munmap(m)); err != nil {
		return err
	}
	body, err := os.ReadFile(name)
	return errors.Join(err, expect("what was written through memory", bytes.Contains(body, []byte("aaover a page's endaa")), true))
}

func attributes(dir string) error {
	name := filepath.Join(dir, "file")
	when := time.Unix(1_234_567_890, 123_456_789)
	if err := errors.Join(write(name, "x"), os.Chown(name, 1234, 5678), os.Chmod(name, 0o640|os.ModeSetgid|os.ModeSticky), os.Chtimes(name, when, when)); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return err
	}
	var disk unix.Statfs_t
	return errors.Join(unix.Statfs(dir, &disk),
		expect("owner", fmt.Sprintf("%d:%d", st.Uid, st.Gid), "1234:5678"), expect("mode", st.Mode, unix.S_IFREG|unix.S_ISGID|unix.S_ISVTX|0o640),
		expect("mtime", st.Mtim, unix.NsecToTimespec(when.UnixNano())), expect("links", st.Nlink, 1), expect("some room is left", disk.Bavail > 0, true))
}

func links(dir string) error {
	file, twin, soft, pipe := filepath.Join(dir, "file"), filepath.Join(dir, "twin"), filepath.Join(dir, "soft"), filepath.Join(dir, "pipe")
	if err := errors.Join(write(file, "one"), os.Link(file, twin), os.Symlink("no/such target", soft), unix.Mkfifo(pipe, 0o600), write(twin, "two")); err != nil {
		return err
	}
	var a, b, p unix.Stat_t
	body, err := os.ReadFile(file)
	target, err2 := os.Readlink(soft)
	return errors.Join(err, err2, unix.Stat(file, &a), unix.Stat(twin, &b), unix.Stat(pipe, &p), expect("the other name's content", string(body), "two"),
		expect("inode", a.Ino, b.Ino), expect("links", a.Nlink, 2), expect("target", target, "no/such target"), expect("kind", p.Mode, unix.S_IFIFO|0o600))
}

func directories(dir string) error {
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	if err := errors.Join(os.MkdirAll(filepath.Join(a, "in"), 0o755), os.Mkdir(b, 0o755), write(filepath.Join(a, "in", "f"), "x")); err != nil {
		return err
	}
	_, twice := os.OpenFile(filepath.Join(a, "in", "f"), os.O_CREATE|os.O_EXCL, 0o644)
	err := errors.Join(
		expect("renaming a directory into itself", unix.Rename(a, filepath.Join(a, "in", "a")), error(unix.EINVAL)),
		expect("removing one that is not empty", unix.Rmdir(a), error(unix.ENOTEMPTY)),
		expect("unlinking one", unix.Unlink(b) != nil, true),
		expect("creating what is there", errors.Is(twice, unix.EEXIST), true),
		os.Rename(a, filepath.Join(b, "moved")))
	body, err2 := os.ReadFile(filepath.Join(b, "moved", "in", "f"))
	return errors.Join(err, err2, expect("what moved with it", string(body), "x"))
}

func names(dir string) error {
	all := []string{"a", "A", "a ", " a", "ä", "a\u0308", "-rf", "new\nline", "\xff\xfe", strings.Repeat("n", 255), "...", "a\\b"}
	for _, name := range all {
		if err := write(filepath.Join(dir, name), name); err != nil {
			return err
		}
	}
	have, err := os.ReadDir(dir)
	for _, name := range all {
		body, err2 := os.ReadFile(filepath.Join(dir, name))
		err = errors.Join(err, err2, expect("content", string(body), name))
	}
	tooLong := write(filepath.Join(dir, strings.Repeat("n", 256)), "")
	return errors.Join(err, expect("names", len(have), len(all)), expect("a name of 256 bytes", errors.Is(tooLong, unix.ENAMETOOLONG), true))
}
