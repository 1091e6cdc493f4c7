package registry

import (
	"context"
	"slices"
	"testing"
	"time"

	"rhizome/registry/ref"
	"rhizome/registry/registrytest"
	"rhizome/registry/remote"
)

// TestARegistryRemembersWhatATagMeant: three pushes of two images, and a tag of
// another name between.
func TestARegistryRemembersWhatATagMeant(t *testing.T) {
	ctx := context.Background()
	host := registrytest.Docker(t, "docker-registry").Host
	s := open(t)
	l := link(t, s, remote.Options{})
	first, second := registrytest.Cluster(t, s.Images(), 1), registrytest.Cluster(t, s.Images(), 2)
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	web, other := parse(t, host+"/rack:web"), parse(t, host+"/rack:web-20250101T000000Z-odd")
	for _, push := range []error{
		l.PushDated(ctx, first, web, now),
		l.PushDated(ctx, first, web, now.Add(time.Hour)), // the same again
		l.PushDated(ctx, second, other, now.Add(2*time.Hour)),
		l.PushDated(ctx, second, web, now.Add(3*time.Hour), "stable"),
	} {
		if push != nil {
			t.Fatal(push)
		}
	}
	got, err := l.FarHistory(ctx, web)
	if err != nil {
		t.Fatal(err)
	}
	want := []FarVersion{
		{Time: now.Add(3 * time.Hour), Ref: "rack:web", Dated: "web-20261101T150000Z", To: second.Digest},
		{Time: now, Ref: "rack:web", Dated: "web-20261101T120000Z", To: first.Digest},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	if all, err := l.FarHistory(ctx, parse(t, host+"/rack")); err != nil || len(all) != 3 {
		t.Errorf("of the whole repository: %+v, %v", all, err)
	}
	// A dated tag is an image like any other: that is what a rollback needs.
	old := parse(t, host+"/rack:"+want[1].Dated)
	if d, err := link(t, open(t), remote.Options{}).Pull(ctx, old, PullOptions{}); err != nil || d.Digest != first.Digest {
		t.Errorf("%s came as %s, %v", old, d.Digest, err)
	}
}

func TestADigestAloneGetsNoDatedTag(t *testing.T) {
	ctx := context.Background()
	host := registrytest.Docker(t, "docker-registry").Host
	s := open(t)
	l := link(t, s, remote.Options{})
	image := registrytest.Cluster(t, s.Images(), 1)
	dest := ref.Reference{Host: host, Name: "rack", Digest: image.Digest}
	if err := l.PushDated(ctx, image, dest, time.Now()); err != nil {
		t.Fatal(err)
	}
	if tags, err := l.Client.Tags(ctx, dest); err == nil && len(tags) > 0 {
		t.Errorf("tags %q", tags)
	}
}

func TestOnlyDatesAreDates(t *testing.T) {
	for tag, want := range map[string]bool{
		"web-20261101T120000Z": true, "a-b-20261101T120000Z": true, "20261101T120000Z": false, "-20261101T120000Z": false,
		"web-20261101": false, "web-20261341T120000Z": false, "web": false, "": false,
	} {
		if _, _, ok := parseDated(tag); ok != want {
			t.Errorf("%q: %v", tag, ok)
		}
	}
}
