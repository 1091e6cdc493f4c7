package main

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"rhizome/recipes"
	"rhizome/registry/layout"
	"rhizome/registry/ref"
	"rhizome/registry/remote"
	"rhizome/registry/store"
	"rhizome/serve"
)

// isConflict: somebody else has it, or changed it.
func isConflict(err error) bool {
	var conflict *store.ConflictError
	var inUse *store.InUseError
	return isBusy(err) || errors.As(err, &conflict) || errors.As(err, &inUse) || errors.Is(err, syscall.EADDRINUSE)
}

// isMisspelt: an argument that can mean nothing, wherever that was found.
func isMisspelt(err error) bool {
	var reference *ref.SyntaxError
	var name *store.NameError
	return errors.As(err, &reference) || errors.As(err, &name) || isInvalidRecipe(err) || errors.Is(err, recipes.ErrDirectory)
}

func isNotFound(err error) bool {
	var image *layout.NotFoundError
	var other *store.NotFoundError
	var none *store.NoStoreError
	var iface *serve.NoInterfaceError
	var far *remote.Error
	if errors.As(err, &far) {
		return far.Kind == remote.NotFound
	}
	return errors.As(err, &iface) || errors.As(err, &image) || errors.As(err, &other) || errors.As(err, &none) || errors.Is(err, fs.ErrNotExist)
}

func isNetwork(err error) bool {
	var far *remote.Error
	if errors.As(err, &far) {
		return far.Kind != remote.Local && far.Kind != remote.Stopped
	}
	var f fetchError
	return errors.As(err, &f) && f.Network()
}

// fetchError is any error that says of itself that the network failed.
type fetchError interface {
	error
	Network() bool
}

func isInvalidRecipe(err error) bool {
	var invalid *recipes.InvalidError
	return errors.As(err, &invalid)
}

// isDiskFull knows a full disk by its error, or by the words of a program that a
// stage runs (strerror(3)): xz may meet it before we do.
func isDiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) ||
		err != nil && strings.Contains(strings.ToLower(err.Error()), syscall.ENOSPC.Error())
}

// isOutput: what failed is not the store's but where the results go.
func isOutput(err error) bool {
	var at *fs.PathError
	return errors.As(err, &at) && at.Path == os.Stdout.Name()
}

// hinted is any error that knows its own remedy.
type hinted interface{ Hint() string }
