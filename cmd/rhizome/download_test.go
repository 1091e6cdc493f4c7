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
		for i := range 5 {
			if r.URL.Path == "/stalls" && i == 2 || r.URL.Path == "/silent" {
				<-gone
				return
			}
			io.WriteString(w, "x")
			w.(http.Flusher).Flush()
			time.Sleep(60 * time.Millisecond)
		}
	}))
	defer server.Close()
	defer close(gone)
	for path, want := range map[string]string{"/slow": "", "/stalls": "no byte came", "/silent": "no byte came"} {
		body, err := downloader(200*time.Millisecond)(t.Context(), server.URL+path)
		if err == nil {
			_, err = io.ReadAll(body)
			body.Close()
		}
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want) || !isNetwork(err)) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
