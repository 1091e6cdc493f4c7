package serve

import "fmt"

// As gives the machine of this image that has the name of identity, with the
// cards, the address and the network of identity: those belong to the cluster's
// head, whatever version of the root a node boots.
func (img *Image) As(identity *Machine) (*Machine, error) {
	for _, m := range img.Machines {
		if m.Node.Name != identity.Node.Name {
			continue
		}
		as := *m
		as.Cluster = identity.Cluster
		as.Node.MACs = identity.Node.MACs
		as.Node.Address = identity.Node.Address
		return &as, nil
	}
	return nil, fmt.Errorf("the image %s, which node %q is pinned to, does not have that node", img.Digest, identity.Node.Name)
}
