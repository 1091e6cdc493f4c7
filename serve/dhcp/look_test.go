package dhcp

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"rhizome/registry/imagefmt"
)

func TestAnAddressOfTheServerOrANodeInOtherHandsIsToldOf(t *testing.T) {
	other, card := net.HardwareAddr{2, 0, 0, 0, 0, 9}, net.HardwareAddr{2, 0, 0, 0, 0, 1}
	server := Machine{Node: imagefmt.Node{Address: netip.MustParseAddr("10.77.0.1")}}
	node := Machine{Node: imagefmt.Node{Name: "n1", Address: netip.MustParseAddr("10.77.0.11"), MACs: []string{card.String()}}}
	if e, ok := InUse(server, other, card); !ok || !strings.Contains(e.Error, "10.77.0.1 of this server is used by the machine 02:00:00:00:00:09") {
		t.Errorf("%v %+v", ok, e)
	}
	if e, ok := InUse(node, other, nil); !ok || !strings.Contains(e.Error, `of node "n1"`) {
		t.Errorf("%v %+v", ok, e)
	}
	if _, ok := InUse(node, card, nil); ok {
		t.Error("a node's own card was told of")
	}
}

func TestAnInterfaceThatIsNotThereCannotBeTried(t *testing.T) {
	s := Server{Config: Config{Interface: "nothere0"}}
	if err := s.Try(t.Context()); err == nil || !strings.Contains(err.Error(), "no such interface") {
		t.Errorf("got %v", err)
	}
}
