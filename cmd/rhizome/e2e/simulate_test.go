package e2e

import (
	"encoding/json"
	"os/exec"
	"testing"
)

// Machines that are only simulated go through every protocol too: all of them
// come up, and each reads the same bytes of its root. (Scripts and mount paths
// hold the node's name, so their bytes differ.)
func TestSimulatedMachinesBoot(t *testing.T) {
	w := need(t)
	const nodes = 16
	out, err := exec.Command(w.binary, "--store", w.store, "simulate", "e2e:v1", "--nodes", "16", "--read", "4", "--json").Output()
	if err != nil {
		t.Fatalf("simulate: %v\n%s", err, out)
	}
	var report struct {
		Up int
		By []struct {
			Protocol     string
			Calls, Bytes int64
		}
		Server struct{ CPU int64 }
	}
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatal(err)
	}
	if report.Up != nodes || report.Server.CPU == 0 {
		t.Errorf("%d of %d came up: %s", report.Up, nodes, out)
	}
	for _, row := range report.By {
		if row.Calls == 0 || row.Protocol == "nfs" && row.Bytes%nodes != 0 {
			t.Errorf("in %s the machines made %d calls for %d bytes, which %d cannot share alike", row.Protocol, row.Calls, row.Bytes, nodes)
		}
	}
}
