package main

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets the scripts run this very binary as "rhizome".
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"rhizome": main})
}

// TestStories runs the scripts in testdata/script: each is one thing that a
// user does at the terminal, with what the program says and exits with.
func TestStories(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("RHIZOME_STORE", e.WorkDir+"/store")
			e.Setenv("XDG_CACHE_HOME", e.WorkDir+"/cache")
			e.Setenv("HOME", e.WorkDir)
			return nil
		},
		Cmds:          map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "writes": writes, "agestore": ageStore},
		Condition:     condition,
		UpdateScripts: os.Getenv("RHIZOME_UPDATE_GOLDEN") != "",
	})
}

// condition answers [netns]: may this user have a network of its own here? In CI
// it must, or lines of the stories would be passed over without a word.
func condition(name string) (bool, error) {
	if name != "netns" {
		return false, fmt.Errorf("there is no condition %q", name)
	}
	err := exec.Command("unshare", "-rn", "true").Run()
	if err != nil && os.Getenv("CI") == "true" {
		return false, fmt.Errorf("no network namespace can be made here: %w", err)
	}
	return err == nil, nil
}

// exits runs a command and wants one exit code: exits 2 rhizome lint bad.yaml
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND ARGS...")
	}
	script := `"$@" 2>err.txt >out.txt; code=$?; cat out.txt; cat err.txt >&2; test $code = ` + args[0] +
		` || { echo "exit code $code, want ` + args[0] + `" >&2; exit 1; }`
	ts.Check(ts.Exec("sh", append([]string{"-c", script, "sh"}, args[1:]...)...))
}
