// Package rpc is the front of every ONC RPC service (RFC 5531): it owns the
// TCP and UDP sockets, record marking, the checks on lengths and credentials,
// the limits on what a client may hold, and the portmapper (RFC 1833, v2).
//
// Programs sit behind it as Handlers and see calls that are well formed. A
// call is first served where it was read, in the goroutine of its connection:
// most NFS calls cost less than a switch of goroutines. A handler that would
// have to wait says WouldBlock, and is called again in a goroutine of its own.
//
// When a mount hangs, look here for who refused: Stats counts dropped packets,
// refused connections and malformed calls.
package rpc
