package nodeconfig

import (
	"os/exec"
	"strings"
	"testing"
)

// The early script's configuration is read by sh, and whatever the recipe says
// comes out of it as it was written.
func TestTheShellReadsTheEarlyConfiguration(t *testing.T) {
	r := parse(t, strings.Replace(withEarly(linuxRecipe), "persist: /persist", `persist: "/it's $HOME"`, 1))
	node, err := Build(r, &r.Nodes[0])
	if err != nil {
		t.Fatal(err)
	}
	script := text(t, node, EarlyConf) + `printf '%s|%s|%s|%s' "$persist" "$etc" "$tmpfs" "$secrets"`
	out, err := exec.Command("sh", "-c", script).Output()
	want := "/it's $HOME|volatile|1777 64m /tmp\n0755 - /var\n0755 - /scratch|/etc/ssh/ssh_host_* /etc/it?s?mine"
	if err != nil || string(out) != want {
		t.Errorf("sh reads %q (%v)", out, err)
	}
}

func TestWithTheEarlyScriptFstabHoldsTheRecipesLinesAlone(t *testing.T) {
	r := parse(t, withEarly(linuxRecipe))
	node, err := Build(r, &r.Nodes[0])
	if err != nil {
		t.Fatal(err)
	}
	if got := text(t, node, "etc/fstab"); strings.Contains(got, "tmpfs") || !strings.Contains(got, "/home") {
		t.Error(got)
	}
}

func TestARecipesOwnInitGoesFirst(t *testing.T) {
	r := parse(t, strings.Replace(withEarly(linuxRecipe), "cmdline: quiet", "cmdline: init=/bin/sh", 1))
	if got := Cmdline(r, &r.Nodes[0]); strings.Contains(got, "rhizome-early") {
		t.Error(got)
	}
}
