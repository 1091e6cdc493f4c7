// Package ref parses references: NAME[:TAG][@DIGEST] in the store,
// HOST/NAME[:TAG][@DIGEST] in a registry.
//
// Names, tags and digests follow the distribution specification, "Pulling
// manifests". What tells a host from the first part of a name is docker's rule:
// it has a dot or a colon, or is "localhost".
package ref

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"
)

// DefaultTag is the tag of a reference that names none.
const DefaultTag = "latest"

// maxName is the longest HOST/NAME that registries take.
const maxName = 255

var (
	nameRule = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagRule  = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	hostRule = regexp.MustCompile(`^([a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?$`)
)

// Reference names an image, in the store (Host empty) or in a registry. At
// least one of Name and Digest is set.
type Reference struct {
	Host   string
	Name   string
	Tag    string
	Digest digest.Digest
}

// Parse reads a reference of either kind; a digest alone names an image of the
// store.
func Parse(s string) (Reference, error) {
	r, err := parse(s)
	if err != nil {
		return Reference{}, &SyntaxError{s, err}
	}
	return r, nil
}

// SyntaxError is a text that is no reference.
type SyntaxError struct {
	Text  string
	Cause error
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("reading the reference %q: %v", e.Text, e.Cause)
}

// Unwrap gives the cause.
func (e *SyntaxError) Unwrap() error { return e.Cause }

func parse(s string) (Reference, error) {
	if s == "" {
		return Reference{}, fmt.Errorf("it is empty; write NAME:TAG, or HOST/NAME:TAG for a registry")
	}
	if scheme, _, ok := strings.Cut(s, "://"); ok {
		return Reference{}, fmt.Errorf("leave out %q; for a registry without TLS use --plain-http", scheme+"://")
	}
	if d, err := digest.Parse(strings.TrimPrefix(s, "@")); err == nil {
		return Reference{Digest: d}, nil
	}
	if strings.HasPrefix(s, "sha256:") || strings.HasPrefix(s, "sha512:") {
		// It would be the name sha256 with a tag, which nobody means.
		return Reference{}, notDigest(s)
	}
	var r Reference
	rest, err := r.cutDigest(s)
	if err != nil {
		return r, err
	}
	r.Name = r.cutTag(r.cutHost(rest))
	return r, r.check()
}

func (r *Reference) cutDigest(s string) (string, error) {
	rest, text, ok := strings.Cut(s, "@")
	if !ok {
		return s, nil
	}
	d, err := digest.Parse(text)
	if err != nil {
		return "", notDigest(text)
	}
	r.Digest = d
	return rest, nil
}

func notDigest(text string) error {
	return fmt.Errorf("%q is no digest; one looks like sha256: and 64 hexadecimal digits, as `rhizome images` prints it", text)
}

func (r *Reference) cutHost(s string) string {
	first, rest, ok := strings.Cut(s, "/")
	if !ok || !isHost(first) {
		return s
	}
	r.Host = first
	return rest
}

func isHost(first string) bool {
	return strings.ContainsAny(first, ".:") || first == "localhost"
}

func (r *Reference) cutTag(s string) string {
	i := strings.LastIndexByte(s, ':')
	if i < strings.LastIndexByte(s, '/') || i < 0 {
		return s
	}
	r.Tag = s[i+1:]
	if r.Tag == "" {
		r.Tag = ":" // refused by check: a colon asks for a tag
	}
	return s[:i]
}

func (r Reference) check() error {
	switch {
	case r.Host != "" && !hostRule.MatchString(r.Host):
		return fmt.Errorf("%q is no host name", r.Host)
	case r.Name == "":
		return fmt.Errorf("the name is missing before the tag or digest")
	case !nameRule.MatchString(r.Name):
		return fmt.Errorf("%q is no repository name: lower-case letters and digits, joined by '.', '_', '-' and '/'", r.Name)
	case len(r.Host)+1+len(r.Name) > maxName:
		return fmt.Errorf("the name is longer than %d characters", maxName)
	case r.Tag != "" && !tagRule.MatchString(r.Tag):
		return fmt.Errorf("%q is no tag: at most 128 letters, digits, '_', '.' and '-', the first no '.' or '-'", r.Tag)
	}
	return nil
}

// Remote says whether the reference points into a registry.
func (r Reference) Remote() bool { return r.Host != "" }

// Repository is HOST/NAME, or NAME in the store.
func (r Reference) Repository() string {
	if r.Host == "" {
		return r.Name
	}
	return r.Host + "/" + r.Name
}

// TagOrDefault is the tag, or "latest" where none was named.
func (r Reference) TagOrDefault() string {
	if r.Tag == "" {
		return DefaultTag
	}
	return r.Tag
}

// Tagged is NAME:TAG as the store's index keeps it
// (org.opencontainers.image.ref.name).
func (r Reference) Tagged() string { return r.Name + ":" + r.TagOrDefault() }

// Target is what a registry is asked for: the digest when there is one, since
// it says more than the tag beside it.
func (r Reference) Target() string {
	if r.Digest != "" {
		return r.Digest.String()
	}
	return r.TagOrDefault()
}

// String writes the reference as Parse reads it.
func (r Reference) String() string {
	if r.Name == "" {
		return r.Digest.String()
	}
	s := r.Repository()
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest.String()
	}
	return s
}
