package store

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"rhizome/registry/durable"

	"golang.org/x/crypto/ssh"
)

// SSHHostKeys makes a node's ssh host keys if it has none, and returns their
// folder: ssh_host_{ed25519,ecdsa,rsa}_key and the same with .pub, in OpenSSH's
// own format. They stay the same over every image that the node boots, so that
// nobody is asked to accept a new key. All or none of them exist.
func (s *Store) SSHHostKeys(ctx context.Context, cluster, node string) (string, error) {
	if err := checkName("node", node); err != nil {
		return "", err
	}
	parent, err := s.SecretsDir(cluster, node)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(parent, "ssh")
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return dir, err
	}
	release, err := s.images.Lock(ctx)
	if err != nil {
		return "", err
	}
	defer release()
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return dir, err // another process was quicker
	}
	if err := s.makeHostKeys(parent, dir, node); err != nil {
		return "", fmt.Errorf("making the ssh host keys of the node %q: %w", node, err)
	}
	return dir, nil
}

// clusterKeySize is how many random bytes a cluster's key has: what munge's own
// tool makes (mungekey(8): 128 to 1024 bytes).
const clusterKeySize = 1024

// ClusterKey returns the file of a key that all nodes of a cluster share, made
// of random bytes if there is none. Whoever has one already puts it there
// before the cluster is served. The name may hold slashes; it is no path.
func (s *Store) ClusterKey(ctx context.Context, cluster, name string) (string, error) {
	dir, err := s.SecretsDir(cluster, "@cluster")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, url.PathEscape(name))
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		return file, err
	}
	release, err := s.images.Lock(ctx)
	if err != nil {
		return "", err
	}
	defer release()
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		return file, err // another process was quicker
	}
	key := make([]byte, clusterKeySize)
	rand.Read(key)
	if err := durable.WriteBytes(s.fs, s.path(dirTemp), file, 0o600, key); err != nil {
		return "", fmt.Errorf("making the key %q of the cluster %q: %w", name, cluster, err)
	}
	return file, nil
}

// makeHostKeys fills a folder beside the final one and renames it: a crash
// leaves no node with half its keys. What an earlier crash left is used again.
func (s *Store) makeHostKeys(parent, dir, node string) error {
	fresh := dir + ".new"
	if err := s.fs.MkdirAll(fresh, 0o700); err != nil {
		return durable.Hint(err)
	}
	keys, err := generateHostKeys()
	if err != nil {
		return err
	}
	for name, key := range keys {
		if err := s.writeHostKey(filepath.Join(fresh, "ssh_host_"+name+"_key"), "root@"+node, key); err != nil {
			return err
		}
	}
	if err := s.fs.Rename(fresh, dir); err != nil {
		return durable.Hint(err)
	}
	return s.fs.SyncDir(parent)
}

func generateHostKeys() (map[string]crypto.Signer, error) {
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		return nil, err
	}
	return map[string]crypto.Signer{"ed25519": edKey, "ecdsa": ecKey, "rsa": rsaKey}, nil
}

func (s *Store) writeHostKey(path, comment string, key crypto.Signer) error {
	block, err := ssh.MarshalPrivateKey(key, comment)
	if err != nil {
		return err
	}
	public, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		return err
	}
	if err := durable.WriteBytes(s.fs, s.path(dirTemp), path, 0o600, pem.EncodeToMemory(block)); err != nil {
		return err
	}
	line := ssh.MarshalAuthorizedKey(public)
	line = append(line[:len(line)-1], " "+comment+"\n"...)
	return durable.WriteBytes(s.fs, s.path(dirTemp), path+".pub", 0o644, line)
}
