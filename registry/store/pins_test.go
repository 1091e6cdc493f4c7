package store_test

import (
	"context"
	"errors"
	"testing"

	"rhizome/registry/layout"
	"rhizome/registry/registrytest"
	"rhizome/registry/store"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// pinStory is a store with three versions of a cluster's image.
type pinStory struct {
	t       *testing.T
	s       *store.Store
	a, b, c ocispec.Descriptor
}

func newPinStory(t *testing.T) pinStory {
	s := open(t, t.TempDir(), store.Options{})
	l := s.Images()
	return pinStory{t, s, registrytest.Cluster(t, l, 1), registrytest.Cluster(t, l, 2), registrytest.Cluster(t, l, 3)}
}

func (p pinStory) pin(d ocispec.Descriptor, nodes ...string) {
	p.t.Helper()
	if _, _, err := p.s.Pin(context.Background(), store.PinRequest{Cluster: "web", Image: d, Nodes: nodes}); err != nil {
		p.t.Fatal(err)
	}
}

func (p pinStory) rollback(to digest.Digest, nodes ...string) {
	p.t.Helper()
	if _, _, err := p.s.Rollback(context.Background(), store.RollbackRequest{Cluster: "web", Nodes: nodes, To: to}); err != nil {
		p.t.Fatal(err)
	}
}

// expect checks the head and what n1 and n2 boot.
func (p pinStory) expect(head, n1, n2 ocispec.Descriptor) {
	p.t.Helper()
	pins, err := p.s.Pins("web")
	if err != nil {
		p.t.Fatal(err)
	}
	if pins.Head != head.Digest || pins.Of("n1") != n1.Digest || pins.Of("n2") != n2.Digest {
		name := map[digest.Digest]string{p.a.Digest: "a", p.b.Digest: "b", p.c.Digest: "c"}
		p.t.Errorf("head %s, n1 %s, n2 %s; want %s, %s, %s", name[pins.Head], name[pins.Of("n1")], name[pins.Of("n2")],
			name[head.Digest], name[n1.Digest], name[n2.Digest])
	}
}

func TestARollbackIsOneSwitchAndAnotherUndoesIt(t *testing.T) {
	p := newPinStory(t)
	p.pin(p.a)
	p.expect(p.a, p.a, p.a)
	p.pin(p.b)
	p.expect(p.b, p.b, p.b)
	p.rollback("")
	p.expect(p.b, p.a, p.a) // roots go back, identities do not
	p.rollback("")
	p.expect(p.b, p.b, p.b)
}

func TestACanaryGoesAheadAloneAndComesBackAlone(t *testing.T) {
	p := newPinStory(t)
	p.pin(p.a)
	p.pin(p.b, "n1")
	p.expect(p.a, p.b, p.a)
	p.rollback("", "n1")
	p.expect(p.a, p.a, p.a)
	p.rollback("", "n1")
	p.expect(p.a, p.b, p.a)
	p.pin(p.c) // all go on, the canary too
	p.expect(p.c, p.c, p.c)
	p.rollback("") // and each goes back to where it was
	p.expect(p.c, p.b, p.a)
	p.rollback("", "n2") // n2 undoes its own last move
	p.expect(p.c, p.b, p.c)
	p.rollback(p.a.Digest)
	p.expect(p.c, p.a, p.a)
}

func TestPinsThatCannotBeAreRefusedAndChangeNothing(t *testing.T) {
	ctx := context.Background()
	p := newPinStory(t)
	var notFound *store.NotFoundError
	if _, _, err := p.s.Rollback(ctx, store.RollbackRequest{Cluster: "web"}); !errors.As(err, &notFound) {
		t.Errorf("rolling back what nobody pinned: %v", err)
	}
	if _, _, err := p.s.Pin(ctx, store.PinRequest{Cluster: "web", Image: p.a, Nodes: []string{"n1"}}); !errors.As(err, &notFound) {
		t.Errorf("a node before its cluster: %v", err)
	}
	p.pin(p.a)
	if _, _, err := p.s.Rollback(ctx, store.RollbackRequest{Cluster: "web"}); !errors.As(err, &notFound) {
		t.Errorf("rolling back the first pin: %v", err)
	}
	if _, _, err := p.s.Pin(ctx, store.PinRequest{Cluster: "web", Image: p.b, Nodes: []string{"n3"}}); !errors.As(err, &notFound) {
		t.Errorf("a node that the image does not have: %v", err)
	}
	var conflict *store.ConflictError
	if _, _, err := p.s.Pin(ctx, store.PinRequest{Cluster: "web", Image: p.b, Generation: 7}); !errors.As(err, &conflict) {
		t.Errorf("a generation that was overtaken: %v", err)
	}
	var missing *layout.NotFoundError
	if _, _, err := p.s.Rollback(ctx, store.RollbackRequest{Cluster: "web", To: digest.FromString("none")}); !errors.As(err, &missing) {
		t.Errorf("rolling back to an image that is not here: %v", err)
	}
	if _, _, err := p.s.Pin(ctx, store.PinRequest{Cluster: "../web", Image: p.b}); err == nil {
		t.Error("a cluster's name left its folder")
	}
	p.expect(p.a, p.a, p.a)
	if pins, _ := p.s.Pins("web"); pins.Generation != 1 || len(pins.History) != 1 || pins.History[0].Who != "ada@host" {
		t.Errorf("the pins are %+v", pins)
	}
}
