package stages

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"rhizome/stages/dists"
)

// HTTPGetter opens URLs of release sets with a client; nil is the default one.
// Only the answer 200 is a set.
func HTTPGetter(client *http.Client) dists.Getter {
	if client == nil {
		client = http.DefaultClient
	}
	return func(ctx context.Context, url string) (io.ReadCloser, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return nil, fmt.Errorf("fetching %q: %w", url, err)
		}
		resp, err := client.Do(req)
		if err != nil {
			return nil, fmt.Errorf("fetching %q: %w", url, err)
		}
		if resp.StatusCode != http.StatusOK {
			resp.Body.Close()
			return nil, fmt.Errorf("fetching %q: the server answered %s; is the release and architecture in the URL right?", url, resp.Status)
		}
		return resp.Body, nil
	}
}
