package stages

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"rhizome/recipes"
)

// What a build would stop at is said at once, with what to do; what is there is
// not.
func TestLacksNamesWhatABuildWouldStopAt(t *testing.T) {
	dir := t.TempDir()
	lacks := func(r recipes.Recipe, want ...string) {
		t.Helper()
		r.Dir, r.Arch = dir, runtime.GOARCH
		all := Lacks(t.Context(), &r, []string{dir})
		text := ""
		for _, err := range all {
			text += err.Error() + "\n"
		}
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("nothing says %q: %s", w, text)
			}
		}
		if len(want) == 0 && len(all) > 0 {
			t.Errorf("got %s", text)
		}
	}
	sets := recipes.Recipe{OS: "freebsd", Source: recipes.Source{Dists: &recipes.Dists{From: "sets", Sets: []string{"base"}}}}
	lacks(sets, "MANIFEST", "base.txz", "source.dists.from")
	if err := os.Mkdir(filepath.Join(dir, "sets"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"MANIFEST", "base.txz"} {
		if err := os.WriteFile(filepath.Join(dir, "sets", f), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	lacks(sets)
	early := sets
	early.Stages = []recipes.Stage{{Early: &recipes.Early{}}}
	lacks(early, "there is no rhizome-node-freebsd-"+runtime.GOARCH)
	lacks(recipes.Recipe{OS: "freebsd", Source: recipes.Source{Src: &recipes.Src{Dir: "src"}}}, "is not a FreeBSD source tree")
	if runtime.GOOS == "linux" {
		script := sets
		script.Stages = []recipes.Stage{{Script: &recipes.Script{}}, {Script: &recipes.Script{}}}
		lacks(script, "whose programs this Linux machine cannot run")
	}
}
