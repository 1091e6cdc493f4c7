package early

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rhizome/serve/node/nodeapi"
)

// A server that was away when the node booted, and for longer than "up" tries,
// hears of the node when it is back: that it is up, and then that it lives.
func TestANodeWithoutATokenIsKnownWhenItsServerComesBack(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("skipped: only root can ask from a reserved port")
	}
	var asked []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, strings.TrimPrefix(r.URL.Path, nodeapi.Prefix))
		switch {
		case r.URL.Path == nodeapi.PathBoot:
			fmt.Fprintln(w, `{"token": "secret"}`)
		case r.Header.Get("Authorization") != "Bearer secret":
			w.WriteHeader(http.StatusUnauthorized)
		default:
			fmt.Fprintln(w, `{"interval": 7}`)
		}
	}))
	defer srv.Close()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "server"), []byte(srv.Listener.Addr().String()), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if next, err := beat(t.Context(), dir); err != nil || next.Seconds() != 7 {
			t.Errorf("the next beat comes in %v, %v", next, err)
		}
	}
	if !slices.Equal(asked, []string{"boot", "up", "heartbeat"}) {
		t.Errorf("the server heard %v", asked)
	}
}
