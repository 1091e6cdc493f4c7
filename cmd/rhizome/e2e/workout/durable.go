//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// record is the content of record i: some pages, so that it goes out in pieces.
func record(i int) []byte { return bytes.Repeat(fmt.Appendf(nil, "record %d\n", i), 2000) }

func recordName(dir string, i int) string { return filepath.Join(dir, fmt.Sprintf("record-%04d", i)) }

// records makes records as careful programs do: under another name, synced,
// renamed, and their directory synced. Then, and not before, each is told of.
func records(dir string, n int) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for i := range n {
		if err := makeRecord(dir, i); err != nil {
			return fmt.Errorf("record %d: %w", i, err)
		}
		fmt.Println("stable", dir, i)
	}
	return nil
}

func makeRecord(dir string, i int) error {
	temp := filepath.Join(dir, "temp")
	f, err := os.Create(temp)
	if err != nil {
		return err
	}
	_, err = f.Write(record(i))
	if err := errors.Join(err, f.Sync(), f.Close(), os.Rename(temp, recordName(dir, i))); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// check makes sure that the records 0 to n-1 are there and nothing else.
func check(dir string, n int) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for i := range n {
		body, err := os.ReadFile(recordName(dir, i))
		if err != nil {
			return err
		}
		if !bytes.Equal(body, record(i)) {
			return fmt.Errorf("record %d has %d bytes that are not its own", i, len(body))
		}
	}
	if err := expect("files", len(list), n); err != nil {
		return err
	}
	fmt.Println("ok", dir, n, "records")
	return nil
}

// stream writes a file of so many MiB without asking for stability, then syncs
// it, and reads it back past the cache: what the server had not put on its disk
// when it went down, the client must send again.
func stream(dir string, mib int) error {
	name := filepath.Join(dir, "stream")
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	for i := range mib * 16 {
		if _, err := f.Write(piece(i)); err != nil {
			return err
		}
		if i%16 == 15 {
			fmt.Println("unstable", dir, i/16)
		}
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	fmt.Println("stable", dir, "stream")
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		return err
	}
	body, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	for i := range mib * 16 {
		if !bytes.Equal(body[i<<16:(i+1)<<16], piece(i)) {
			return fmt.Errorf("piece %d of the stream is another", i)
		}
	}
	if err := errors.Join(expect("size", len(body), mib<<20), os.Remove(name)); err != nil {
		return err
	}
	fmt.Println("ok", dir, "stream")
	return nil
}

func piece(i int) []byte {
	line := fmt.Sprintf("piece %09d ", i) // 16 bytes
	return []byte(strings.Repeat(line, 4096))
}
