package main

import (
	"errors"
	"io/fs"
	"syscall"

	"rhizome/recipes"
	"rhizome/registry/layout"
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

func isNotFound(err error) bool {
	var image *layout.NotFoundError
	var other *store.NotFoundError
	var iface *serve.NoInterfaceError
	var far *remote.Error
	if errors.As(err, &far) {
		return far.Kind == remote.NotFound
	}
	return errors.As(err, &iface) || errors.As(err, &image) || errors.As(err, &other) || errors.Is(err, fs.ErrNotExist)
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

func isDiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// hinted is any error that knows its own remedy.
type hinted interface{ Hint() string }
