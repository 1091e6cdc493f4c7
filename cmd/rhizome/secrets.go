package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"rhizome/registry/imagefmt"
	"rhizome/serve"
	"rhizome/serve/rootfs"
)

// secrets gives serve the files of a node's secrets out of the store.
func (h *host) secrets(ctx context.Context) serve.Secrets {
	return func(cluster, node string, s imagefmt.Secret) ([]rootfs.MemoryEntry, error) {
		switch s.Kind {
		case "ssh-host-keys":
			return h.hostKeys(ctx, cluster, node, s)
		case "cluster-key":
			return h.clusterKey(ctx, cluster, s)
		case "file":
			return h.secretFile(cluster, node, s)
		}
		return nil, fmt.Errorf("this version of rhizome does not know such a secret")
	}
}

// hostKeys are a node's ssh host keys, made the first time that it is served.
func (h *host) hostKeys(ctx context.Context, cluster, node string, s imagefmt.Secret) ([]rootfs.MemoryEntry, error) {
	dir, err := h.store.SSHHostKeys(ctx, cluster, node)
	if err != nil {
		return nil, err
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []rootfs.MemoryEntry
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return nil, err
		}
		mode := uint32(0o600)
		if strings.HasSuffix(f.Name(), ".pub") {
			mode = 0o644
		}
		out = append(out, rootfs.MemoryEntry{Path: path.Join(s.Path, f.Name()), Kind: rootfs.Regular, Mode: mode, UID: s.UID, GID: s.GID, Data: data})
	}
	return out, nil
}

// secretFile is a file that the operator put into the node's secrets folder,
// under the path that it has on the node.
func (h *host) secretFile(cluster, node string, s imagefmt.Secret) ([]rootfs.MemoryEntry, error) {
	name, err := h.secretName(cluster, node, s)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("it was not given yet; put it at %q, readable by serve alone", name)
	}
	if err != nil {
		return nil, err
	}
	return secretOf(s, data), nil
}

func (h *host) secretName(cluster, node string, s imagefmt.Secret) (string, error) {
	dir, err := h.store.SecretsDir(cluster, node)
	return filepath.Join(dir, "files", filepath.FromSlash(path.Clean("/"+s.Path))), err
}

// clusterKey is the key that all nodes of a cluster share, made the first time
// that one of them is served.
func (h *host) clusterKey(ctx context.Context, cluster string, s imagefmt.Secret) ([]rootfs.MemoryEntry, error) {
	name, err := h.store.ClusterKey(ctx, cluster, s.Path)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return secretOf(s, data), nil
}

// secretOf is a secret of one file.
func secretOf(s imagefmt.Secret, data []byte) []rootfs.MemoryEntry {
	mode := s.Mode
	if mode == 0 {
		mode = 0o600
	}
	return []rootfs.MemoryEntry{{Path: s.Path, Kind: rootfs.Regular, Mode: mode, UID: s.UID, GID: s.GID, Data: data}}
}
