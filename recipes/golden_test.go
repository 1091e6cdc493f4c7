package recipes

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", os.Getenv("RHIZOME_UPDATE_GOLDEN") != "", "write the golden files anew")

// Each recipe in testdata is wrong in many ways at once, and its golden file
// holds the lines that lint prints.
func TestBadRecipesGetTheRecordedFindings(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d recipes, %v", len(files), err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, found := Check(filepath.Base(file), data, os.DirFS("testdata"))
		var b strings.Builder
		for _, f := range found {
			b.WriteString(f.String() + "\n")
		}
		compare(t, strings.TrimSuffix(file, ".yaml")+".golden", b.String())
		if found.Errors() == 0 {
			t.Errorf("%s: nothing is wrong with it", file)
		}
	}
}

func compare(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; run with -update if the change is meant\ngot\n%s\nwant\n%s", file, got, want)
	}
}
