package main

import (
	"bytes"
	"flag"
	"os/exec"
	"strings"
	"testing"
)

func manual(t *testing.T) string {
	t.Helper()
	var out, errs bytes.Buffer
	if code := (&program{out: &out, err: &errs}).run(t.Context(), []string{manName}); code != exitOK {
		t.Fatalf("code %d: %s", code, errs.String())
	}
	return out.String()
}

// The page has every command and every flag, since it is made of them, and
// every code.
func TestTheManualHasAllThatTheProgramHas(t *testing.T) {
	page := manual(t)
	for _, c := range commands() {
		if !strings.Contains(page, `\fB`+escaped(c.name)+`\fP`) || !strings.Contains(page, escaped(c.short)) {
			t.Errorf("the command %s is not in the page", c.name)
		}
	}
	all := 0
	for _, f := range flagged() {
		f.VisitAll(func(o *flag.Flag) {
			all++
			if !strings.Contains(page, `\fB`+escaped("--"+o.Name)+`\fP`) {
				t.Errorf("the flag %s is not in the page", o.Name)
			}
		})
	}
	if all < 6 {
		t.Errorf("only %d flags are known", all)
	}
	for _, want := range []string{`\-\-ttl\fP \fIduration\fP`, "(default 2m0s)", ".TP\n127\n", "/run/rhizome/token"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %q", want)
		}
	}
}

// Who asks a command for help is told its arguments and flags.
func TestEveryCommandTellsOfItself(t *testing.T) {
	for _, c := range commands() {
		var errs bytes.Buffer
		if code := (&program{err: &errs}).run(t.Context(), []string{c.name, "--help"}); code != exitOK || !strings.Contains(errs.String(), c.short) {
			t.Errorf("%s --help: code %d: %s", c.name, code, errs.String())
		}
		if f := flagged()[c.name]; f != nil {
			f.VisitAll(func(o *flag.Flag) {
				if !strings.Contains(errs.String(), "-"+o.Name) {
					t.Errorf("%s --help does not tell of --%s", c.name, o.Name)
				}
			})
		}
	}
}

// groff warns of nothing.
func TestTheManualIsGoodTroff(t *testing.T) {
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Skip("skipped: groff is not installed")
	}
	c := exec.Command(groff, "-man", "-ww", "-z")
	c.Stdin = strings.NewReader(manual(t))
	if out, err := c.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("groff: %v\n%s", err, out)
	}
}

func TestTextStaysText(t *testing.T) {
	for in, want := range map[string]string{".hidden": `\&.hidden`, "'s": `\&'s`, `a\b`: `a\eb`, "--x": `\-\-x`} {
		if got := escaped(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}
