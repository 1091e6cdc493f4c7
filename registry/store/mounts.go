package store

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"rhizome/registry/durable"

	"github.com/opencontainers/go-digest"
)

// Mount says that a node runs from a manifest. It outlives the server that
// wrote it: a node goes on while its server is restarted.
type Mount struct {
	Cluster  string        `json:"cluster"`
	Node     string        `json:"node"`
	Manifest digest.Digest `json:"manifest"`
	Since    time.Time     `json:"since"`
}

// SetMounted notes that a node has a manifest mounted; its former one is free
// then.
func (s *Store) SetMounted(cluster, node string, manifest digest.Digest) error {
	if err := errors.Join(checkName("cluster", cluster), checkName("node", node), manifest.Validate()); err != nil {
		return fmt.Errorf("noting what the node %q has mounted: %w", node, err)
	}
	if err := s.fs.MkdirAll(s.path(dirMounts, cluster), 0o700); err != nil {
		return fmt.Errorf("noting what the node %q has mounted: %w", node, durable.Hint(err))
	}
	if err := s.fs.SyncDir(s.path(dirMounts)); err != nil { // the name of a new cluster's folder
		return fmt.Errorf("noting what the node %q has mounted: %w", node, durable.Hint(err))
	}
	m := Mount{Cluster: cluster, Node: node, Manifest: manifest, Since: s.now().UTC()}
	return s.writeJSON(filepath.Join(dirMounts, cluster, node+".json"), m)
}

// ClearMounted notes that a node is off.
func (s *Store) ClearMounted(cluster, node string) error {
	if err := errors.Join(checkName("cluster", cluster), checkName("node", node)); err != nil {
		return err
	}
	err := s.fs.Remove(s.path(dirMounts, cluster, node+".json"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("noting that the node %q is off: %w", node, durable.Hint(err))
	}
	return nil
}

// Mounts lists what nodes have mounted.
func (s *Store) Mounts() ([]Mount, error) {
	clusters, err := s.Names(dirMounts, "")
	if err != nil {
		return nil, err
	}
	var mounts []Mount
	for _, c := range clusters {
		if mounts, err = s.addMounts(mounts, filepath.Join(dirMounts, c)); err != nil {
			return nil, err
		}
	}
	return mounts, nil
}

// addMounts appends what the nodes of one cluster have mounted.
func (s *Store) addMounts(mounts []Mount, folder string) ([]Mount, error) {
	files, err := s.Names(folder, ".json")
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		var m Mount
		if err := s.readJSON(filepath.Join(folder, file), &m); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, err
		}
		mounts = append(mounts, m)
	}
	return mounts, nil
}
