//go:build unix

package rpc

import "syscall"

const (
	errAddrInUse  = syscall.EADDRINUSE
	errPermission = syscall.EACCES
)
