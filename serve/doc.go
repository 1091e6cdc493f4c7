// Package serve boots a cluster from a cluster image: it loads the image's
// nodes as Machines, keeps them in a Fleet, and lets DHCP, TFTP, HTTP and NFS
// answer each machine with what is its own. It knows images and nothing of how
// they are built.
package serve
