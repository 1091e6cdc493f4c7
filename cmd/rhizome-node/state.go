package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"rhizome/cmd/rhizome-node/internal/prefetch"
	"rhizome/serve/node/nodeapi"
)

// stateFile says of a region in memory whose it is. Its lock is held as long
// as the prefetch lives: what has no lock was left behind.
type stateFile struct {
	file *os.File
	base string
}

// state is what stands in it.
type state struct {
	PID     int       `json:"pid"`
	Lease   string    `json:"lease"`
	Mode    string    `json:"mode"`
	Paths   []string  `json:"paths"`
	Command []string  `json:"command"`
	Since   time.Time `json:"since"`
}

func newState(dir string, l nodeapi.Lease, command []string) (*stateFile, error) {
	name := filepath.Join(dir, "prefetch", l.ID)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return nil, fmt.Errorf("making a place for the region: %w", err)
	}
	f, err := os.OpenFile(name+".json", os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("making a place for the region: %w", err)
	}
	s := &stateFile{f, name}
	data, err := json.Marshal(state{os.Getpid(), l.ID, l.Mode, l.Paths, command, time.Now().UTC()})
	if err == nil {
		_, err = f.Write(append(data, '\n'))
	}
	if err == nil {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
	}
	if err == nil {
		err = os.Mkdir(name, 0o700)
	}
	if err != nil {
		s.remove()
		return nil, fmt.Errorf("making a place for the region: %w", err)
	}
	return s, nil
}

// release leaves everything for `status` and `drop`.
func (s *stateFile) release() { s.file.Close() }

func (s *stateFile) remove() {
	os.Remove(s.base)
	os.Remove(s.base + ".json")
	s.file.Close()
}

// held is a region in memory on this node.
type held struct {
	state
	Base string `json:"base"`
	// Running is false for what a prefetch left behind.
	Running bool `json:"running"`
	// Bytes is what it takes in memory.
	Bytes int64 `json:"bytes"`
}

// regions lists what is in memory here.
func regions(dir string) ([]held, error) {
	files, err := filepath.Glob(filepath.Join(dir, "prefetch", "*.json"))
	if err != nil {
		return nil, err
	}
	var all []held
	for _, name := range files {
		h := held{Base: strings.TrimSuffix(name, ".json")}
		f, err := os.Open(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		_ = json.NewDecoder(f).Decode(&h.state) // half written: its lease is unknown
		h.Running = syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) != nil
		f.Close()
		h.Bytes = prefetch.Used(h.Base)
		all = append(all, h)
	}
	return all, nil
}
