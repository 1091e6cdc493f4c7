package freebsd

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// Only what is on the disk is called done: a disk that fails at that, or a machine
// that dies in it, leaves no name that a later build would believe.
func TestNothingIsCalledDoneBeforeItIsOnTheDisk(t *testing.T) {
	broken := errors.New("the disk is broken")
	for name, finish := range map[string]func(tree, name string, sync func(string) error) error{"a checkout": settle, "a toolchain": markDone} {
		t.Run(name, func(t *testing.T) {
			tree, done := filepath.Join(t.TempDir(), "tree"), filepath.Join(t.TempDir(), "done")
			if err := os.MkdirAll(filepath.Join(tree, "sys"), 0o755); err != nil {
				t.Fatal(err)
			}
			look := func(answer error) func(string) error {
				return func(synced string) error {
					if _, err := os.Stat(done); err == nil || synced != tree {
						t.Errorf("%q is synced, and %q is there: %v", synced, done, err == nil)
					}
					return answer
				}
			}
			if err := finish(tree, done, look(broken)); !errors.Is(err, broken) {
				t.Errorf("a sync that fails gives %v", err)
			}
			if _, err := os.Stat(done); err == nil {
				t.Error("what could not be synced is called done")
			}
			if err := finish(tree, done, look(syncTree(tree))); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(done); err != nil {
				t.Error(err)
			}
		})
	}
}
