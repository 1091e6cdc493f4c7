package recipes

import (
	"strings"
	"testing"
	"testing/fstest"
)

// A server may be behind a router, but nodes must know the router.
func TestServerOutsideTheSubnetTakesAGateway(t *testing.T) {
	recipe := func(gateway string) []byte {
		return []byte("version: 1\nname: rack\nos: linux\narch: amd64\nepoch: 2026-11-01T00:00:00Z\n" +
			"source: {debian: {suite: bookworm}}\nstages: [{kernel: {}}]\n" +
			"network: {subnet: 10.78.0.0/24, server: 10.77.0.1" + gateway + "}\n" +
			"nodes: [{name: n1, mac: \"52:54:00:77:00:01\", address: 10.78.0.11}]\n")
	}
	for gateway, wrong := range map[string]bool{"": true, ", gateway: 10.78.0.1": false, ", gateway: 10.78.0.255": true, ", gateway: 10.77.0.9": true} {
		_, found := Check("rack.yaml", recipe(gateway), fstest.MapFS{})
		said := false
		for _, f := range found {
			said = said || strings.Contains(f.String(), "the server 10.77.0.1 is outside the subnet")
		}
		if said != wrong {
			t.Errorf("with %q lint finds %v", gateway, found)
		}
	}
}
