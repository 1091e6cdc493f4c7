package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// A mirror that stops sending does not hold a build for ever, and one that is
// slow is waited for.
func TestADownloadThatStallsIsGivenUp(t *testing.T) {
	gone := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for i := range 8 {
			if r.URL.Path == "/stalls" && i == 2 || r.URL.Path == "/silent" {
				<-gone
				return
			}
			io.WriteString(w, "x")
			w.(http.Flusher).Flush()
			time.Sleep(400 * time.Millisecond)
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(gone) })
	for path, want := range map[string]string{"/slow": "", "/stalls": "no byte came", "/silent": "no byte came"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			body, err := downloader(2*time.Second)(t.Context(), server.URL+path)
			if err == nil {
				_, err = io.ReadAll(body)
				body.Close()
			}
			if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want) || !isNetwork(err)) {
				t.Errorf("%s: %v", path, err)
			}
		})
	}
}
