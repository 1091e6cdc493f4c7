package main

import (
	"time"

	"rhizome/serve/boot"
	"rhizome/serve/node"
)

// nodeAPI answers what programs on the nodes ask and tell.
func (h *host) nodeAPI(events boot.Sink, regions node.Regions) *node.Server {
	s := node.New(node.Config{
		Plan: h.fleet.Plan, Secrets: h.store.SecretsDir,
		Regions: regions, Events: events, Log: h.term.logger(), Now: time.Now,
	})
	for _, m := range h.fleet.Machines() {
		s.Expect(m.Cluster.Name, m.Node.Name, m.Node.Address)
	}
	return s
}
