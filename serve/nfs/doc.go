// Package nfs serves merged views read-only over NFSv3 (RFC 1813) and the
// MOUNT protocol v1 and v3 (RFC 1094 appendix A, RFC 1813 appendix I). Calls
// come from package rpc as values and are answered by appending XDR; no
// sockets here.
//
// What a node may mount, and which handles are its own, the caller's Exports
// decides. Calls on writable exports are handed, whole, to Backends.
//
// When a node hangs in its mount, look at mount.go and at the events
// mount.refused and nfs.refused; when it reads wrong or slowly, at read.go.
package nfs
