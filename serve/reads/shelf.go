package reads

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"rhizome/registry/durable"

	"github.com/klauspost/compress/zstd"
)

const (
	// keepBoots is how many boots of a node are kept.
	keepBoots = 8
	// maxRecord is how long a record may be in bytes, unpacked.
	maxRecord = 64 << 20

	suffix = ".json.zst"
)

// Shelf is the folder in which records lie: NODE/BEGAN.json.zst, a few boots of
// each node.
type Shelf struct {
	// Dir is the folder, Temp where files grow on the same disk.
	Dir, Temp string
	FS        durable.FS
}

// Keep writes a record in place of an earlier one of the same boot, and removes
// the node's oldest.
func (s Shelf) Keep(r Record) error {
	data, err := pack(r)
	if err != nil {
		return err
	}
	dir := filepath.Join(s.Dir, r.Node)
	if err := s.FS.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("keeping what node %q read: %w", r.Node, durable.Hint(err))
	}
	name := filepath.Join(dir, r.Began.UTC().Format("20060102T150405.000Z")+suffix)
	if err := durable.WriteBytes(s.FS, s.Temp, name, 0o600, data); err != nil {
		return fmt.Errorf("keeping what node %q read: %w", r.Node, durable.Hint(err))
	}
	return s.prune(dir)
}

func pack(r Record) ([]byte, error) {
	plain, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	return enc.EncodeAll(plain, nil), enc.Close()
}

func (s Shelf) prune(dir string) error {
	names, err := recordsIn(dir)
	if err != nil {
		return err
	}
	for len(names) > keepBoots {
		if err := os.Remove(filepath.Join(dir, names[0])); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing an old record of what a node read: %w", err)
		}
		names = names[1:]
	}
	return nil
}

// recordsIn lists a node's records, the oldest first.
func recordsIn(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), suffix) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// Load reads all records, by nodes and then the newest first. No folder is no
// record.
func (s Shelf) Load() ([]Record, error) {
	nodes, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading what nodes read: %w", err)
	}
	var out []Record
	for _, n := range nodes {
		dir := filepath.Join(s.Dir, n.Name())
		names, err := recordsIn(dir)
		if err != nil {
			return nil, fmt.Errorf("reading what node %q read: %w", n.Name(), err)
		}
		for _, name := range slices.Backward(names) {
			r, err := readRecord(filepath.Join(dir, name))
			if err != nil {
				return nil, err
			}
			out = append(out, r)
		}
	}
	return out, nil
}

func readRecord(name string) (Record, error) {
	var r Record
	data, err := os.ReadFile(name)
	if err != nil {
		return r, err
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxRecord))
	if err != nil {
		return r, err
	}
	defer dec.Close()
	plain, err := dec.DecodeAll(data, nil)
	if err == nil {
		err = json.Unmarshal(plain, &r)
	}
	if err == nil && r.Version != Version {
		err = fmt.Errorf("it is of version %d, and this rhizome reads %d", r.Version, Version)
	}
	if err != nil {
		return r, fmt.Errorf("reading the record %q of what a node read: %w; remove the file", name, err)
	}
	return r, nil
}
