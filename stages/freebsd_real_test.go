//go:build fulltree

package stages_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"rhizome/pipeline"
	"rhizome/pipeline/layer"
	"rhizome/pipeline/tree"
	"rhizome/recipes"
	"rhizome/stages"
)

// A full FreeBSD tree takes an hour on two cores, so it is built only with the
// build tag "fulltree", where RHIZOME_FREEBSD_SRC names one. RHIZOME_FREEBSD_WORK keeps objects and layers
// between runs; RHIZOME_FREEBSD_STEPS picks some of the steps.
func TestFullTreeBecomesLayers(t *testing.T) {
	src, work := os.Getenv("RHIZOME_FREEBSD_SRC"), os.Getenv("RHIZOME_FREEBSD_WORK")
	if src == "" || work == "" {
		t.Skip("skipped: RHIZOME_FREEBSD_SRC and RHIZOME_FREEBSD_WORK name no full source tree and work folder")
	}
	r := &recipes.Recipe{Name: "full", OS: "freebsd", Arch: "amd64", Nodes: []recipes.Node{{Name: "n1", Kernel: "DISKLESS"}}}
	r.Source.Src = &recipes.Src{Dir: src, Toolchain: os.Getenv("RHIZOME_FREEBSD_LLVM")}
	r.Stages = []recipes.Stage{
		{World: &recipes.World{Without: strings.Fields(os.Getenv("RHIZOME_FREEBSD_WITHOUT"))}},
		{Kernel: &recipes.Kernel{Name: "DISKLESS", Config: "DISKLESS", Include: "GENERIC", Options: []string{"TARFS"},
			NoDevices: []string{"sound"}, Modules: []string{"tmpfs", "nullfs", "unionfs"}}},
	}
	s := stages.NewFreeBSDSource(r, "")
	all := []pipeline.Stage{stages.NewFreeBSDKernel(s, r.Stages[1], nil), stages.Distribution{Source: s}, stages.World{Source: s}}
	wanted := os.Getenv("RHIZOME_FREEBSD_STEPS")
	for _, st := range all {
		if kind := st.Info().Kind; wanted == "" || strings.Contains(wanted, kind) {
			t.Run(kind, func(t *testing.T) { buildForReal(t, st, filepath.Join(work, kind), filepath.Join(work, "cache")) })
		}
	}
}

func buildForReal(t *testing.T, st pipeline.Stage, work, cache string) {
	env := pipeline.Env{Work: work, Cache: cache, Jobs: runtime.NumCPU(), Events: func(pipeline.Event) {}}
	begun := time.Now()
	in, err := st.Inputs(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d inputs in %v", len(in), time.Since(begun))
	begun = time.Now()
	out, err := st.Run(t.Context(), env, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("built in %v: %d entries, facts %v", time.Since(begun), out.Tree.Len(), out.Facts)
	writeLayer(t, out.Tree, work+".layer")
}

func writeLayer(t *testing.T, tr *tree.Tree, file string) {
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	begun := time.Now()
	sum, err := layer.Write(f, tr, time.Unix(1793491200, 0), runtime.NumCPU())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("layer %s in %v: diffid %v, %d bytes", file, time.Since(begun), sum.DiffID, sum.Size)
}
