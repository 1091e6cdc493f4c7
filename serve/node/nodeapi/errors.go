package nodeapi

import "net/netip"

// Holder is who asks for a lease: a node in one of its boots.
type Holder struct {
	Cluster, Node, Boot string
	Addr                netip.Addr
}

// ConflictError is a region that another has, or one that changed meanwhile.
type ConflictError struct{ Conflict Conflict }

func (e *ConflictError) Error() string { return e.Conflict.Error }

// MissingError is a lease, or a path, that is not there.
type MissingError struct{ Err error }

func (e *MissingError) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *MissingError) Unwrap() error { return e.Err }

// InputError is a request that is wrong; the client is told why.
type InputError struct{ Err error }

func (e *InputError) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *InputError) Unwrap() error { return e.Err }

// FullError is a disk or a quota without the room for a commit.
type FullError struct{ Err error }

func (e *FullError) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *FullError) Unwrap() error { return e.Err }
