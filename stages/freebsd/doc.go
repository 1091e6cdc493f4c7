// Package freebsd drives FreeBSD's own build for the stages that need it:
// world, kernel and distribution. It checks a source tree, names what a stage
// reads of it by content, runs make (through tools/build/make.py where the
// host is not FreeBSD), and turns an installation made with -DNO_ROOT into a
// tree.Tree.
//
// The files follow that road: source.go and git.go (the tree), digest.go and
// blobs.go (its content), toolchain.go (LLVM), make.go and command.go (the
// build), metalog.go, vis.go, ids.go and install.go (what it installed).
package freebsd
