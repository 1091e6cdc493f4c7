package bootstrap

import (
	"strings"
	"testing"
	"time"
)

func TestOnlyAWholeRangeOfIDsIsEnough(t *testing.T) {
	for text, want := range map[string]bool{
		"someone:100000:65536\n":              true,
		"1000:100000:65536":                   true,
		"# none\nother:100000:65536\n":        false,
		"someone:100000:1000\n":               false,
		"someone:100000:1\nsomeone:2:65535\n": true,
		"someone:x:y\nsomeone\n":              false,
		"":                                    false,
	} {
		if got := ownsRange(text, "someone", "1000"); got != want {
			t.Errorf("%q: got %v", text, got)
		}
	}
}

func TestRefusedNamespacesNameTheRemedy(t *testing.T) {
	said := []string{"unshare: unshare failed: Operation not permitted"}
	for user, want := range map[bool]string{true: "user.max_user_namespaces", false: "CAP_SYS_ADMIN"} {
		c := (&Namespaces{User: user}).explain(said)
		if !strings.Contains(c.Remedy, want) || !strings.Contains(c.What, said[0]) {
			t.Errorf("user %v: got %+v", user, c)
		}
	}
}

func TestMmdebstrapsLastWordsAreUnderstood(t *testing.T) {
	for line, want := range map[string]string{
		"tar: ./x: Cannot write: No space left on device":                                        `the disk that holds "/srv" is full`,
		"The following packages have unmet dependencies:":                                        "the locked packages do not fit each other",
		"E: arm64 can neither be executed natively nor via qemu user emulation with binfmt_misc": "this machine cannot run programs of the recipe's architecture",
		"E: something else": "",
	} {
		if got := explain("/srv/work")([]string{"I: x", line}).What; got != want {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
	}
}

func TestTheBuildsEnvironmentIsItsOwn(t *testing.T) {
	t.Setenv("http_proxy", "http://proxy.example")
	t.Setenv("LANG", "de_DE.UTF-8")
	env := strings.Join(Spec{Epoch: time.Unix(1793491200, 0), Extra: []string{"INITRD=No"}}.environ("/w/root"), "\n") + "\n"
	for _, want := range []string{"SOURCE_DATE_EPOCH=1793491200\n", "TMPDIR=/w/root\n", "INITRD=No\n", "TZ=UTC\n"} {
		if !strings.Contains(env, want) {
			t.Errorf("the environment has no %s", want)
		}
	}
	for _, never := range []string{"proxy", "de_DE"} {
		if strings.Contains(env, never) {
			t.Errorf("the environment leaks %q: %s", never, env)
		}
	}
}

func TestOfAVersionsManyWordsTheNumberIsKept(t *testing.T) {
	for out, want := range map[string]string{
		"mmdebstrap 1.3.5\n": "1.3.5", "apt 2.6.1 (amd64)\nSupported modules:\n": "2.6.1", "": "",
	} {
		if got := firstVersion(out); got != want {
			t.Errorf("%q: got %q", out, got)
		}
	}
}
