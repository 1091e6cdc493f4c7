package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The shipped Slurm recipe is a working cluster: a job over two nodes runs on
// both, which are whom they say they are by a key that no layer holds.
func TestSlurmRunsAJobOverTwoNodes(t *testing.T) {
	w := alone(t)
	recipe := writeSlurm(t)
	if _, err := w.run("--store", w.store, "build", recipe, "--tag", "slurm:v1"); err != nil {
		t.Fatal(err)
	}
	n := lan(t)
	w.serveImage(t, n, "slurm:v1")
	first, second := w.boot(t, n, 1, nil), w.boot(t, n, 2, nil)
	login(t, first, "n1")
	login(t, second, "n2")
	// sinfo fails until the controller answers, and names a node idle only when
	// that node's slurmd has registered.
	shell(t, first, `for i in $(seq 300); do [ "$(sinfo -h -t idle -o %D)" = 2 ] && break; sleep 1; done; sinfo -N; journalctl -b -n 20 -u munge -u slurmctld -u slurmd --no-pager`)
	if got := shell(t, first, `srun -N2 hostname | sort`); got != "n1\nn2" {
		t.Errorf("srun -N2 hostname printed %q", got)
	}
	if got := shell(t, second, `srun -N1 -w n1 --chdir=/ hostname`); got != "n1" {
		t.Errorf("a job sent from n2 to n1 ran on %q", got)
	}
	sums := shell(t, first, `sha256sum < /etc/munge/munge.key; stat -c %a:%U /etc/munge/munge.key`)
	if other := shell(t, second, `sha256sum < /etc/munge/munge.key; stat -c %a:%U /etc/munge/munge.key`); other != sums || !strings.HasSuffix(sums, "400:root") {
		t.Errorf("munge's key on n1 and n2:\n%s\n%s", sums, other)
	}
}

func writeSlurm(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	shipped := filepath.Join("..", "..", "..", "recipes")
	text, err := os.ReadFile(filepath.Join(shipped, "debian-slurm.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	const overlay = "      from: debian-slurm/overlay/\n      template: true\n"
	changed, err := replaceAll(string(text), overlay, overlay+"  - files: {from: console/}\n")
	if err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{
		filepath.Join(shipped, "debian-demo"): "debian-demo", filepath.Join(shipped, "debian-slurm"): "debian-slurm", "testdata/console": "console",
	} {
		if err := os.CopyFS(filepath.Join(dir, to), os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
	}
	recipe := filepath.Join(dir, "debian-slurm.yaml")
	if err := os.WriteFile(recipe, []byte(changed), 0o644); err != nil {
		t.Fatal(err)
	}
	return recipe
}
