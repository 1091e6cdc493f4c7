package recipes

import (
	"io/fs"
	"os/exec"
	"strings"
	"testing"
)

func TestShippedRecipesHaveNoFindings(t *testing.T) {
	if len(Shipped()) < 2 {
		t.Fatalf("shipped recipes: %v", Shipped())
	}
	for _, name := range Shipped() {
		r, found, err := Load(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			t.Error(f)
		}
		if r.Name != name {
			t.Errorf("recipe %s calls itself %s", name, r.Name)
		}
	}
}

func TestShippedRecipesLoadFromTheEmptyFolderAndFromTheDiskAlike(t *testing.T) {
	fromDisk, _, err := Load("debian-demo.yaml")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	embedded, found, err := Load("debian-demo")
	if err != nil || len(found) > 0 {
		t.Fatal(err, found)
	}
	if len(embedded.Nodes) != 2 || embedded.Nodes[1].MACs[0] != fromDisk.Nodes[1].MACs[0] {
		t.Errorf("embedded %+v, on disk %+v", embedded.Nodes, fromDisk.Nodes)
	}
	if _, err := fs.Stat(embedded.FS, "debian-demo/overlay/usr/local/sbin/node-up"); err != nil {
		t.Errorf("the overlay of an embedded recipe: %v", err)
	}
}

func TestTheScriptsOfShippedOverlaysPassShellcheck(t *testing.T) {
	tool, err := exec.LookPath("shellcheck")
	if err != nil {
		t.Skip("skipped: shellcheck is not installed")
	}
	out, err := exec.Command(tool, "-s", "sh", "debian-demo/overlay/usr/local/sbin/node-up").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	// FreeBSD's rc.subr is not here, and its variables are used by sourcing.
	out, err = exec.Command(tool, "-s", "sh", "-e", "SC1091,SC2034,SC2086", "freebsd-diskless/overlay/usr/local/etc/rc.d/node_up").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestNamingNoRecipeListsTheShippedOnes(t *testing.T) {
	_, _, err := Load("debain-demo")
	if err == nil || !strings.Contains(err.Error(), "debian-demo, debian-slurm, freebsd-diskless") {
		t.Error(err)
	}
}
