// Package volume serves what nodes may write, over NFSv3 (RFC 1813): a tree of
// the node's own, /persist/NODE, and copy-on-write trees, /cow/NODE/PATH,
// which are a folder of the node's image with the node's changes over it.
//
// Volumes is the nfs.Backend. The procedures (read.go, write.go, names.go,
// list.go) work on a tree of objects; there are two: disk, a folder of the host
// whose files the kernel names by handle, and overlay, records in a journal and
// bodies in files, over a view or over nothing.
//
// Permissions are decided here from AUTH_SYS and the files' modes (access.go):
// the server runs as root and its kernel would allow everything.
//
// When a node loses writes, look at sync in disk_linux.go and journal.go; when
// it gets ESTALE, at handle.go; when it sees another's changes, at rebase.go.
package volume
