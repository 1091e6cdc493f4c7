package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"

	"rhizome/registry/store"
	"rhizome/serve/boot"
)

// eventDays is how many days of events are looked through for a node's last
// boot.
const eventDays = 31

// maxEventLine bounds a line of the store's event log, in bytes.
const maxEventLine = 1 << 20

// readEvents hands a cluster's events of the last days to use, in order. A line
// that cannot be read, such as one that a crash cut, is passed over.
func readEvents(s *store.Store, cluster string, use func(boot.Event)) error {
	files, err := s.Names(filepath.Join("events", cluster), "")
	if err != nil {
		return err
	}
	files = slices.DeleteFunc(files, func(name string) bool {
		day, err := path.Match("????-??-??.jsonl", name)
		return !day || err != nil
	})
	for _, name := range files[max(0, len(files)-eventDays):] {
		if err := readEventFile(filepath.Join(s.Dir(), "events", cluster, name), use); err != nil {
			return fmt.Errorf("reading the events of the cluster %q: %w", cluster, err)
		}
	}
	return nil
}

func readEventFile(name string, use func(boot.Event)) error {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(make([]byte, 0, 64<<10), maxEventLine)
	for lines.Scan() {
		var e boot.Event
		if json.Unmarshal(lines.Bytes(), &e) == nil {
			use(e)
		}
	}
	return lines.Err()
}

// eventClusters lists the clusters that serve has seen machines of.
func eventClusters(s *store.Store) ([]string, error) { return s.Names("events", "") }
