package wire

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
)

// The peer is Go's own HTTP server.
func serve(t *testing.T, h http.HandlerFunc) Dialer {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return Dialer{Addr: strings.TrimPrefix(s.URL, "http://")}
}

func ask(t *testing.T, d Dialer, r Request) (int, string, error) {
	t.Helper()
	resp, err := d.Do(t.Context(), r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.Status, string(body), err
}

func TestBodiesGoBothWaysWholeHoweverTheyAreFramed(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 1<<16)
	d := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if r.URL.Path == "/length" {
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		}
		w.Header().Set("Seen", r.Header.Get("Authorization"))
		_, _ = w.Write(body)
	})
	for _, path := range []string{"/length", "/chunked"} {
		for _, length := range []int64{-1, int64(len(big))} {
			status, body, err := ask(t, d, Request{Method: "POST", Path: path, Body: strings.NewReader(big), Length: length})
			if status != 200 || body != big || err != nil {
				t.Errorf("%s, length %d: status %d, %d bytes, %v", path, length, status, len(body), err)
			}
		}
	}
	if status, body, err := ask(t, d, Request{Method: "POST", Path: "/"}); status != 200 || body != "" || err != nil {
		t.Errorf("without a body: %d %q %v", status, body, err)
	}
}

func TestABodyThatIsCutOffIsAnError(t *testing.T) {
	for _, length := range []string{"", "1000000"} {
		d := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if length != "" {
				w.Header().Set("Content-Length", length)
			}
			_, _ = w.Write(make([]byte, 100_000))
			panic(http.ErrAbortHandler)
		})
		if _, _, err := ask(t, d, Request{Method: "GET", Path: "/"}); err == nil {
			t.Errorf("length %q: no error", length)
		}
	}
}

func TestARefusalInTheMiddleOfABodyIsHeard(t *testing.T) {
	d := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "the region changed", http.StatusConflict)
	})
	body := io.MultiReader(bytes.NewReader(make([]byte, 200<<10)))
	status, text, err := ask(t, d, Request{Method: "POST", Path: "/", Body: body, Length: -1})
	if status != 409 || !strings.Contains(text, "changed") {
		t.Errorf("%d %q %v", status, text, err)
	}
}

func TestABodyThatFailsIsNotTakenForWhole(t *testing.T) {
	seen := make(chan error, 1)
	d := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		seen <- err
	})
	broken := io.MultiReader(strings.NewReader(strings.Repeat("half", 1<<18)), &failing{errors.New("the file changed")})
	if _, _, err := ask(t, d, Request{Method: "POST", Path: "/", Body: broken, Length: -1}); err == nil || !strings.Contains(err.Error(), "the file changed") {
		t.Errorf("the client says %v", err)
	}
	if err := <-seen; err == nil {
		t.Error("the server took half a body for a whole one")
	}
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

func TestAnEndedContextEndsTheWait(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	d := serve(t, func(w http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	if _, err := d.Do(ctx, Request{Method: "GET", Path: "/"}); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
}

// FuzzAnswer: an answer is read to an end or refused, and never grows beyond
// what came.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"HTTP/1.0 404 No\r\n\r\nrest", "HTTP/1.1 200\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 204 x\n\n", "",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := readHead(bufio.NewReader(bytes.NewReader(data)))
		if err != nil {
			return
		}
		body, _ := io.ReadAll(r.Body)
		if len(body) > len(data) {
			t.Errorf("%d bytes became %d", len(data), len(body))
		}
	})
}
