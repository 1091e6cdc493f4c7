package httpd

import (
	"regexp"
	"strings"
)

// What a path of the distribution API asks for (distribution-spec, "Endpoints").
type registryCall int

const (
	callNone registryCall = iota
	callBase
	callCatalog
	callTags
	callManifest
	callBlob
)

// The grammar of names and tags (distribution-spec, "Pull").
var (
	repoPattern = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagPattern  = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
)

// registryRequest is a path taken apart: reference is a tag or a digest.
type registryRequest struct {
	call      registryCall
	repo      string
	reference string
}

// parseRegistryPath takes a decoded path apart. A path that the specification
// does not know gives callNone.
func parseRegistryPath(p string) registryRequest {
	rest, ok := strings.CutPrefix(p, "/v2/")
	switch {
	case p == "/v2" || p == "/v2/":
		return registryRequest{call: callBase}
	case !ok:
		return registryRequest{}
	case rest == "_catalog":
		return registryRequest{call: callCatalog}
	}
	if repo, ok := strings.CutSuffix(rest, "/tags/list"); ok {
		return named(callTags, repo, "")
	}
	if repo, reference, ok := cutLast(rest, "/manifests/"); ok && (isDigest(reference) || tagPattern.MatchString(reference)) {
		return named(callManifest, repo, reference)
	}
	if repo, reference, ok := cutLast(rest, "/blobs/"); ok && isDigest(reference) {
		return named(callBlob, repo, reference)
	}
	return registryRequest{}
}

func named(call registryCall, repo, reference string) registryRequest {
	if len(repo) > 255 || !repoPattern.MatchString(repo) {
		return registryRequest{}
	}
	return registryRequest{call: call, repo: repo, reference: reference}
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return "", "", false
	}
	return s[:i], s[i+len(sep):], true
}
