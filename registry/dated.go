package registry

import (
	"context"
	"slices"
	"strings"
	"time"

	"rhizome/registry/ref"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A registry keeps no history of a tag. What a tag meant is kept there as dated
// tags of the same images: TAG-20261101T120000Z, in UTC, beside TAG.
const datedForm = "20060102T150405Z"

// maxTag is the longest tag (distribution-spec, "Pull").
const maxTag = 128

// maxHistory is how many entries of a registry's history are read: each is a
// request.
const maxHistory = 100

// DatedTag is the tag under which a registry remembers that TAG came to mean
// an image at some time.
func DatedTag(tag string, at time.Time) string { return tag + "-" + at.UTC().Format(datedForm) }

// parseDated takes a dated tag apart.
func parseDated(dated string) (tag string, at time.Time, ok bool) {
	cut := strings.LastIndexByte(dated, '-')
	if cut <= 0 {
		return "", time.Time{}, false
	}
	at, err := time.Parse(datedForm, dated[cut+1:])
	return dated[:cut], at, err == nil
}

// FarVersion is one entry of a history that a registry keeps.
type FarVersion struct {
	Time time.Time `json:"time"`
	// Ref is the tag, NAME:TAG; Dated the tag that remembers it.
	Ref   string        `json:"ref"`
	Dated string        `json:"dated"`
	To    digest.Digest `json:"to"`
}

// PushDated is Push that leaves a dated tag in the registry, too, unless the
// newest one names the same image already. It adds none to a destination that
// has a digest and no tag.
func (l Link) PushDated(ctx context.Context, d ocispec.Descriptor, dest ref.Reference, now time.Time, tags ...string) error {
	if dated := DatedTag(dest.TagOrDefault(), now); (dest.Tag != "" || dest.Digest == "") && len(dated) <= maxTag {
		asked := dest
		asked.Tag, asked.Digest = dest.TagOrDefault(), ""
		// A registry that cannot say gets the tag: one too many does no harm.
		was, err := l.farHistory(ctx, asked, 1)
		if err != nil || len(was) == 0 || was[0].To != d.Digest {
			tags = append(slices.Clone(tags), dated)
		}
	}
	return l.Push(ctx, d, dest, tags...)
}

// FarHistory lists what a tag of a registry, or every tag of a repository,
// meant, from its dated tags: the newest first, and at most the last 100.
func (l Link) FarHistory(ctx context.Context, r ref.Reference) ([]FarVersion, error) {
	return l.farHistory(ctx, r, maxHistory)
}

func (l Link) farHistory(ctx context.Context, r ref.Reference, most int) ([]FarVersion, error) {
	tags, err := l.Client.Tags(ctx, r)
	if err != nil {
		return nil, err
	}
	versions := datedVersions(r, tags)
	versions = versions[:min(most, len(versions))]
	for i := range versions {
		at := r
		at.Tag, at.Digest = versions[i].Dated, ""
		if versions[i].To, err = l.Client.Peek(ctx, at); err != nil {
			return nil, err
		}
	}
	return versions, nil
}

// datedVersions picks the dated tags of a reference, the newest first.
func datedVersions(r ref.Reference, tags []string) []FarVersion {
	var out []FarVersion
	for _, t := range tags {
		tag, at, ok := parseDated(t)
		if ok && (r.Tag == "" || r.Tag == tag) {
			out = append(out, FarVersion{Time: at, Ref: r.Name + ":" + tag, Dated: t})
		}
	}
	slices.SortStableFunc(out, func(a, b FarVersion) int { return b.Time.Compare(a.Time) })
	return out
}
