package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
)

// To ask what a command does is not to run it: "heartbeat --help" used to begin
// the heartbeat, and "up --help" told the server that userland is up.
func TestAskingForHelpStartsNothing(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel() // should it begin after all
	for _, c := range commands() {
		if flagged()[c.name] != nil {
			continue
		}
		for _, flag := range []string{"-h", "--help"} {
			var out, errs bytes.Buffer
			code := (&program{out: &out, err: &errs, dir: t.TempDir()}).run(ended, []string{c.name, flag})
			if code != exitOK || !strings.HasPrefix(errs.String(), "usage: rhizome-node "+c.name) {
				t.Errorf("%s %s exits with %d and says %q", c.name, flag, code, errs.String())
			}
		}
	}
}
