//go:build !linux && !freebsd

package sandbox

import (
	"context"
	"errors"
	"runtime"
)

var errNoSandbox = errors.New("commands are run over a root on Linux and FreeBSD alone, and this machine is neither (" + runtime.GOOS + ")")

type machine struct{}

func enter(context.Context) (machine, error) { return machine{}, errNoSandbox }

func (machine) removeAll(string) error                { return errNoSandbox }
func (machine) unpack(string) []string                { return nil }
func (machine) list(string) []string                  { return nil }
func (machine) pack(string, string, string) []string  { return nil }
func (machine) run(string, string, []string) []string { return nil }

// CanRun says why this machine cannot run a command over a root of a system.
func CanRun(string) error { return errNoSandbox }
