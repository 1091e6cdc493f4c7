package agent

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTheServerIsTheOneThatTheKernelWasBootedFrom(t *testing.T) {
	for line, want := range map[string]string{
		"root=/dev/nfs nfsroot=10.77.0.1:/nodes/n1,vers=3,ro ip=dhcp": "10.77.0.1",
		"nfsroot=10.77.0.1:/nodes/n1 rhizome.server=10.9.9.9 quiet":   "10.9.9.9",
		"root=/dev/sda1 quiet": "",
		"nfsroot=/only/a/path": "",
	} {
		if got := serverOf(line); got != want {
			t.Errorf("%q: the server is %q, and not %q", line, got, want)
		}
	}
}

func TestTheTokenIsRootsAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "rhizome")
	for range 2 { // a second boot of a root in memory
		if err := Save(dir, "10.77.0.1", "secret"); err != nil {
			t.Fatal(err)
		}
	}
	c, err := Find(dir)
	if err != nil || c.Server != "10.77.0.1" || c.Token != "secret" {
		t.Errorf("%+v, %v", c, err)
	}
	info, err := os.Stat(filepath.Join(dir, "token"))
	if err != nil || info.Mode().Perm() != 0o400 {
		t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
}
