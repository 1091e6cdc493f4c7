package durable_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"rhizome/registry/durable"
	"rhizome/registry/durable/faultfs"
)

// eachFault runs work once for every call that it makes to the disk, with that
// call failing, and then again with the machine dying there.
func eachFault(t *testing.T, work func(t *testing.T, fsys durable.FS) error) {
	count := &faultfs.FS{}
	if err := work(t, count); err != nil {
		t.Fatalf("without any fault: %v", err)
	}
	for at := 1; at <= count.Calls(); at++ {
		for _, crash := range []bool{false, true} {
			t.Run(fmt.Sprintf("call %d, crash %v", at, crash), func(t *testing.T) {
				err := work(t, &faultfs.FS{At: at, Crash: crash})
				if err == nil {
					t.Error("the fault went unnoticed")
				}
			})
		}
	}
}

func TestAFileIsTheOldOneOrTheNewOneWhateverFails(t *testing.T) {
	old, fresh := []byte("old"), bytes.Repeat([]byte("new"), 300_000)
	eachFault(t, func(t *testing.T, fsys durable.FS) error {
		dir := t.TempDir()
		path := filepath.Join(dir, "file")
		if err := os.WriteFile(path, old, 0o600); err != nil {
			t.Fatal(err)
		}
		err := durable.WriteBytes(fsys, "", path, 0o600, fresh)
		got, readErr := os.ReadFile(path)
		if readErr != nil || !bytes.Equal(got, old) && !bytes.Equal(got, fresh) {
			t.Errorf("after %v the file has %d bytes, neither the old nor the new content (%v)", err, len(got), readErr)
		}
		if err == nil && !bytes.Equal(got, fresh) {
			t.Error("a write that succeeded left the old file")
		}
		if errors.Is(err, syscall.ENOSPC) {
			if left, _ := filepath.Glob(filepath.Join(dir, "*.tmp")); len(left) > 0 {
				t.Errorf("a full disk left %q behind", left)
			}
		}
		return err
	})
}

func TestAFullDiskSaysWhatToDo(t *testing.T) {
	err := durable.WriteBytes(&faultfs.FS{At: 2}, "", filepath.Join(t.TempDir(), "file"), 0o600, []byte("x"))
	if err == nil || !strings.Contains(err.Error(), "rhizome gc") {
		t.Errorf("a full disk gives %v", err)
	}
}

func TestOneHolderAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	release, err := durable.Lock(context.Background(), path, durable.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, err := durable.TryLock(path, durable.Exclusive); ok || err != nil {
		t.Errorf("a held lock: TryLock gives %v, %v", ok, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := durable.Lock(ctx, path, durable.Exclusive); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for a held lock gives %v", err)
	}
	release()
	again, err := durable.Lock(context.Background(), path, durable.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	again()
}

// waitForOpen waits until this process has a file open n times.
func waitForOpen(t *testing.T, path string, n int) {
	t.Helper()
	for {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("skipped: there is no /proc to see open files in")
		}
		open := 0
		for _, fd := range fds {
			if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && to == path {
				open++
			}
		}
		if open == n {
			return
		}
		runtime.Gosched()
	}
}

// A sweeper removes lock files that nobody holds. Whoever waited for the
// removed file must not believe that it holds the new one.
func TestALockOnARemovedFileIsNoLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := durable.Lock(context.Background(), path, durable.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan func())
	go func() {
		release, err := durable.Lock(context.Background(), path, durable.Exclusive)
		if err != nil {
			t.Error(err)
		}
		got <- release
	}()
	waitForOpen(t, path, 2)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	first()
	second := <-got
	defer second()
	if _, ok, _ := durable.TryLock(path, durable.Exclusive); ok {
		t.Error("two hold the lock at once")
	}
}
