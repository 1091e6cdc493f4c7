package tool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestAFailedToolSaysWhatItSaidLast(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	c := Command{Doing: "installing 2 packages", LogFile: log,
		Args: []string{"sh", "-c", "seq 1 100; echo 'E: no such thing' >&2; echo bye; exit 25"}}
	err := c.Run(t.Context())
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want a tool.Error", err)
	}
	want := fmt.Sprintf("installing 2 packages: sh failed (exit status 25): %q (the whole log is in %q)", "E: no such thing", log)
	if e.Error() != want {
		t.Errorf("got  %s\nwant %s", e, want)
	}
	if len(e.Tail) != KeptLines {
		t.Errorf("kept %d lines, want %d", len(e.Tail), KeptLines)
	}
	whole, _ := os.ReadFile(log)
	if n := bytes.Count(whole, []byte("\n")); n != 102 {
		t.Errorf("the log has %d lines, want 102", n)
	}
}

func TestAToolThatIsMissingIsNamedWithItsPackage(t *testing.T) {
	_, err := Find("no-such-tool", "its-package")
	if err == nil || !strings.Contains(err.Error(), "apt-get install its-package") {
		t.Errorf("got %v", err)
	}
}

func TestAnExplanationTakesThePlaceOfTheLastLine(t *testing.T) {
	c := Command{Doing: "reading", Args: []string{"false"}, Explain: func([]string) Cause {
		return Cause{What: "the mirror is gone", Remedy: "name another", Network: true}
	}}
	err := c.Run(t.Context())
	if got := err.Error(); got != "reading: the mirror is gone; name another" {
		t.Errorf("got %q", got)
	}
	var n interface{ Network() bool }
	if !errors.As(err, &n) || !n.Network() {
		t.Error("the error does not say that the network was at fault")
	}
}

// A stopped build must leave no process behind, not even one that its tool
// had put into the background.
func TestStoppingATakesEverythingItStartedWithIt(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("interrupted")
	var child int
	c := Command{Doing: "waiting", Args: []string{"sh", "-c", "sleep 600 & echo $!; wait"}, Line: func(l string) {
		child, _ = strconv.Atoi(l)
		cancel(why)
	}}
	if err := c.Run(ctx); !errors.Is(err, why) {
		t.Fatalf("got %v, want %v", err, why)
	}
	if child == 0 {
		t.Fatal("the child's number never came")
	}
	for deadline := time.Now().Add(time.Minute); alive(child); {
		if time.Now().After(deadline) {
			t.Fatalf("process %d is still there", child)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// alive takes a zombie for dead: nobody may be there to reap an orphan.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestALineWithoutEndIsCut(t *testing.T) {
	k := &keeper{}
	for range 100 {
		fmt.Fprint(k, strings.Repeat("x", 1000))
	}
	k.flush()
	if len(k.rest) > 0 || len(k.tail()) == 0 {
		t.Errorf("rest %d, lines %d", len(k.rest), len(k.tail()))
	}
}
