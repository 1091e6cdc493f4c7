package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
)

// download opens a URL for the stages that fetch release sets; what it gives
// is checked against a digest by them.
func download(ctx context.Context, url string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("fetching %q: %w", url, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, &downloadError{url, err}
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, &downloadError{url, fmt.Errorf("the server answers %s", resp.Status)}
	}
	return resp.Body, nil
}

// downloadError is a download that failed; the network is to blame.
type downloadError struct {
	url string
	err error
}

func (e *downloadError) Error() string { return fmt.Sprintf("fetching %q: %v", e.url, e.err) }
func (e *downloadError) Unwrap() error { return e.err }

// Network says so to whoever chooses the exit code.
func (e *downloadError) Network() bool { return true }
