package serve

import (
	"net/netip"

	httpd "rhizome/serve/http"
	"rhizome/serve/nfs"
	"rhizome/serve/tftp"
)

// Counters are what the protocols count, to be read at any time.
type Counters struct {
	TFTP *tftp.Counters
	HTTP *httpd.Counters
	// NFS calls fn for every client that was ever allowed something.
	NFS func(fn func(client netip.Addr, c *nfs.Counters))
}

// Counters are there once the server runs.
func (s *Server) Counters() (Counters, bool) {
	c := s.counters.Load()
	if c == nil {
		return Counters{}, false
	}
	return *c, true
}
