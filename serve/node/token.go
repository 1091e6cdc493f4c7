package node

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"rhizome/registry/durable"
)

// The files of a node in the folder that Secrets gives.
const (
	keyFile  = "node-token.key"
	bootFile = "node-boot.json"
)

// bootRecord is the last boot of a node, kept so that its token holds over a
// restart of serve.
type bootRecord struct {
	Boot string    `json:"boot"`
	At   time.Time `json:"at"`
	// Beats is set once the node sent a heartbeat in this boot: it is missed
	// when they stop, also by a server that was restarted meanwhile.
	Beats bool `json:"beats,omitempty"`
}

// tokens gives and checks the tokens of boots. A token is an HMAC-SHA256 of the
// boot's name under a key of the node's own, so nothing but the key and the
// last boot's name has to be kept.
type tokens struct {
	// dir gives the folder of a node's secrets.
	dir func(cluster, node string) (string, error)

	mu    sync.Mutex
	nodes map[string]*nodeTokens
}

type nodeTokens struct {
	dir  string
	key  []byte
	boot bootRecord
}

// of reads what is kept of a node, once; t.mu is held.
func (t *tokens) of(cluster, node string) (*nodeTokens, error) {
	name := cluster + "/" + node
	if n := t.nodes[name]; n != nil {
		return n, nil
	}
	dir, err := t.dir(cluster, node)
	if err != nil {
		return nil, err
	}
	n := &nodeTokens{dir: dir}
	if n.key, err = readKey(filepath.Join(dir, keyFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the key of node %q's tokens: %w", node, err)
	}
	data, err := os.ReadFile(filepath.Join(dir, bootFile))
	if err == nil {
		err = json.Unmarshal(data, &n.boot)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the last boot of node %q: %w", node, err)
	}
	if t.nodes == nil {
		t.nodes = map[string]*nodeTokens{}
	}
	t.nodes[name] = n
	return n, nil
}

// readKey reads a key of 32 bytes.
func readKey(path string) ([]byte, error) {
	key, err := os.ReadFile(path)
	if err == nil && len(key) != sha256.Size {
		return nil, fmt.Errorf("%q has %d bytes and not %d: remove it, and boot the node anew", path, len(key), sha256.Size)
	}
	return key, err
}

// haveKey makes the key at the node's first boot: a serve that answers nobody
// leaves the store as it was.
func (n *nodeTokens) haveKey() error {
	if n.key != nil {
		return nil
	}
	key := make([]byte, sha256.Size)
	rand.Read(key) // never fails (crypto/rand)
	if err := durable.WriteBytes(durable.OS{}, "", filepath.Join(n.dir, keyFile), 0o600, key); err != nil {
		return err
	}
	n.key = key
	return nil
}

// begin makes the token of a new boot; the former one is good no more.
func (t *tokens) begin(cluster, node string, now time.Time) (boot, token string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, err := t.of(cluster, node)
	if err != nil {
		return "", "", err
	}
	if err := n.haveKey(); err != nil {
		return "", "", err
	}
	record := bootRecord{Boot: rand.Text(), At: now.UTC()}
	if err := n.keep(record); err != nil {
		return "", "", err
	}
	return record.Boot, n.token(cluster, node), nil
}

func (n *nodeTokens) keep(r bootRecord) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := durable.WriteBytes(durable.OS{}, "", filepath.Join(n.dir, bootFile), 0o600, append(data, '\n')); err != nil {
		return fmt.Errorf("noting a boot: %w", err)
	}
	n.boot = r
	return nil
}

func (n *nodeTokens) token(cluster, node string) string {
	m := hmac.New(sha256.New, n.key)
	fmt.Fprintf(m, "rhizome node token %q %q %q", cluster, node, n.boot.Boot)
	return hex.EncodeToString(m.Sum(nil))
}

// check tells whether a token is that of the node's last boot, in a time that
// does not depend on how much of it is right, and which boot that is.
func (t *tokens) check(cluster, node, token string) (boot string, ok bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, err := t.of(cluster, node)
	if err != nil || n.boot.Boot == "" || n.key == nil {
		return "", false, err
	}
	return n.boot.Boot, hmac.Equal([]byte(token), []byte(n.token(cluster, node))), nil
}

// beats notes whether heartbeats are to be expected of a node.
func (t *tokens) beats(cluster, node string, yes bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, err := t.of(cluster, node)
	if err != nil || n.boot.Beats == yes {
		return err
	}
	r := n.boot
	r.Beats = yes
	return n.keep(r)
}

// expected tells whether a node's heartbeats are to be waited for.
func (t *tokens) expected(cluster, node string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, err := t.of(cluster, node)
	return err == nil && n.boot.Beats
}
