package httpd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Images is what the registry endpoint reads out of the store. What is not there
// answers with fs.ErrNotExist.
type Images interface {
	// References lists what is tagged, as "NAME:TAG".
	References(ctx context.Context) ([]string, error)
	// Resolve finds the manifest or index behind "NAME:TAG".
	Resolve(ctx context.Context, reference string) (ocispec.Descriptor, error)
	// Describe finds the media type and size of a manifest or index by digest.
	Describe(ctx context.Context, d digest.Digest) (ocispec.Descriptor, error)
	// OpenBlob opens any blob by digest, manifests included.
	OpenBlob(ctx context.Context, digest string) (BlobFile, error)
}

// Registry serves the store's images as a registry from which can be pulled and
// nothing else (OCI distribution-spec 1.1, "Pull" and "Content Discovery"). It
// belongs on the admin address: whoever reaches it reads every layer.
func Registry(images Images) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
		if err := serveRegistry(w, r, images); err != nil {
			writeRegistryError(w, err)
		}
	})
}

// registryError is an error of the specification's list ("Error Codes").
type registryError struct {
	status  int
	code    string
	message string
}

func (e *registryError) Error() string { return e.message }

func writeRegistryError(w http.ResponseWriter, err error) {
	var known *registryError
	if !errors.As(err, &known) {
		known = &registryError{http.StatusInternalServerError, "UNKNOWN", err.Error()}
	}
	type item struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(known.status)
	_ = json.NewEncoder(w).Encode(map[string][]item{"errors": {{known.code, known.message}}})
}

func serveRegistry(w http.ResponseWriter, r *http.Request, images Images) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return &registryError{http.StatusMethodNotAllowed, "UNSUPPORTED", "this registry is read only: push to the store with rhizome push or rhizome build"}
	}
	q := parseRegistryPath(r.URL.Path)
	switch q.call {
	case callBase:
		return writeJSON(w, struct{}{})
	case callCatalog:
		return catalog(w, r, images)
	case callTags:
		return tags(w, r, images, q.repo)
	case callManifest:
		return manifest(w, r, images, q)
	case callBlob:
		return blob(w, r, images, q)
	}
	return &registryError{http.StatusNotFound, "NAME_INVALID", fmt.Sprintf("%.100q is no path of the distribution API", r.URL.Path)}
}

func writeJSON(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(v)
}

func catalog(w http.ResponseWriter, r *http.Request, images Images) error {
	tagged, err := byRepository(r.Context(), images)
	if err != nil {
		return err
	}
	var names []string
	for name := range tagged {
		names = append(names, name)
	}
	return writeJSON(w, map[string][]string{"repositories": page(w, r, names)})
}

func tags(w http.ResponseWriter, r *http.Request, images Images, repo string) error {
	tagged, err := byRepository(r.Context(), images)
	if err != nil {
		return err
	}
	list, ok := tagged[repo]
	if !ok {
		return &registryError{http.StatusNotFound, "NAME_UNKNOWN", fmt.Sprintf("the store has no image %q", repo)}
	}
	return writeJSON(w, map[string]any{"name": repo, "tags": page(w, r, list)})
}

// byRepository groups "NAME:TAG" by name.
func byRepository(ctx context.Context, images Images) (map[string][]string, error) {
	all, err := images.References(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing the store's tags: %w", err)
	}
	tagged := map[string][]string{}
	for _, ref := range all {
		if i := strings.LastIndexByte(ref, ':'); i > 0 {
			tagged[ref[:i]] = append(tagged[ref[:i]], ref[i+1:])
		}
	}
	return tagged, nil
}

// page sorts a list and cuts it by n and last ("Listing Tags"); where more is
// left, a Link header says how to go on.
func page(w http.ResponseWriter, r *http.Request, list []string) []string {
	slices.Sort(list)
	if last := r.URL.Query().Get("last"); last != "" {
		i, found := slices.BinarySearch(list, last)
		if found {
			i++
		}
		list = list[i:]
	}
	n, err := strconv.Atoi(r.URL.Query().Get("n"))
	if err != nil || n < 0 || n >= len(list) {
		return append([]string{}, list...)
	}
	if n > 0 {
		next := url.Values{"n": {strconv.Itoa(n)}, "last": {list[n-1]}}
		w.Header().Set("Link", fmt.Sprintf(`<%s?%s>; rel="next"`, r.URL.EscapedPath(), next.Encode()))
	}
	return append([]string{}, list[:n]...)
}

func manifest(w http.ResponseWriter, r *http.Request, images Images, q registryRequest) error {
	d, err := resolve(r.Context(), images, q)
	if errors.Is(err, fs.ErrNotExist) {
		return &registryError{http.StatusNotFound, "MANIFEST_UNKNOWN", fmt.Sprintf("the store has no manifest %s of %q", q.reference, q.repo)}
	}
	if err != nil {
		return fmt.Errorf("looking for the manifest %s of %q: %w", q.reference, q.repo, err)
	}
	return sendBlob(w, r, images, d, "no-cache")
}

func resolve(ctx context.Context, images Images, q registryRequest) (ocispec.Descriptor, error) {
	if isDigest(q.reference) {
		return images.Describe(ctx, digest.Digest(q.reference))
	}
	return images.Resolve(ctx, q.repo+":"+q.reference)
}

func blob(w http.ResponseWriter, r *http.Request, images Images, q registryRequest) error {
	d := ocispec.Descriptor{MediaType: "application/octet-stream", Digest: digest.Digest(q.reference)}
	return sendBlob(w, r, images, d, "private, max-age=31536000, immutable")
}

func sendBlob(w http.ResponseWriter, r *http.Request, images Images, d ocispec.Descriptor, cache string) error {
	f, err := images.OpenBlob(r.Context(), d.Digest.String())
	if errors.Is(err, fs.ErrNotExist) {
		return &registryError{http.StatusNotFound, "BLOB_UNKNOWN", fmt.Sprintf("the store has no blob %s", d.Digest)}
	}
	if err != nil {
		return fmt.Errorf("opening the blob %s: %w", d.Digest, err)
	}
	defer f.Close()
	h := w.Header()
	h.Set("Content-Type", d.MediaType)
	h.Set("Docker-Content-Digest", d.Digest.String())
	h.Set("ETag", etag(d.Digest.String()))
	h.Set("Cache-Control", cache)
	http.ServeContent(&progress{ResponseWriter: w, control: http.NewResponseController(w)}, r, "", time.Time{}, f)
	return nil
}

// Admin puts the registry and the metrics under one roof; rest answers all other
// paths. Any of them may be nil.
func Admin(registry, metrics, rest http.Handler) http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range map[string]http.Handler{"/v2/": registry, "/v2": registry, "/metrics": metrics, "/": rest} {
		if h != nil {
			mux.Handle(pattern, h)
		}
	}
	return mux
}
