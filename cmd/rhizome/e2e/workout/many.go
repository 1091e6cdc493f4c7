//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// manyFiles is how many files a directory gets, and hands how many make them
// at once: each waits for the server's disk.
const (
	manyFiles = 10_000
	hands     = 16
)

func many(dir string) error {
	if err := inParallel(manyFiles, func(i int) error { return write(filepath.Join(dir, manyName(i)), manyName(i)) }); err != nil {
		return err
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	have := map[string]bool{}
	for _, e := range list {
		have[e.Name()] = true
	}
	for i := range manyFiles {
		if !have[manyName(i)] {
			return fmt.Errorf("%s is not listed", manyName(i))
		}
	}
	if err := expect("names listed", len(list), manyFiles); err != nil {
		return err
	}
	body, err := os.ReadFile(filepath.Join(dir, manyName(4711)))
	err = errors.Join(err, expect("one of them", string(body), manyName(4711)))
	return errors.Join(err, inParallel(manyFiles, func(i int) error { return os.Remove(filepath.Join(dir, manyName(i))) }))
}

func manyName(i int) string { return fmt.Sprintf("file-%05d", i) }

func inParallel(n int, do func(i int) error) error {
	errs := make([]error, hands)
	var all sync.WaitGroup
	for hand := range hands {
		all.Go(func() {
			for i := hand; i < n && errs[hand] == nil; i += hands {
				errs[hand] = do(i)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}
