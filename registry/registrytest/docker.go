package registrytest

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"
)

// Registry is a running registry on loopback.
type Registry struct {
	// Host is "127.0.0.1:PORT".
	Host string
	// Dir is its storage.
	Dir string
	// Stop ends it before the test does.
	Stop func()
}

var listening = regexp.MustCompile(`listening on (127\.0\.0\.1:[0-9]+)`)

// Docker starts the registry program at binary ("docker-registry" is Debian's)
// on a free port, with further settings as distribution's REGISTRY_ variables,
// and stops it with the test.
func Docker(t testing.TB, binary string, settings ...string) *Registry {
	t.Helper()
	program, err := exec.LookPath(binary)
	if err != nil {
		t.Skipf("skipped: %s is not installed (.ci/setup brings it)", binary)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := "version: 0.1\nlog: {level: info}\nstorage: {filesystem: {rootdirectory: " + dir + "/data}, delete: {enabled: true}}\nhttp: {addr: '127.0.0.1:0'}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "serve", config)
	cmd.Env = append([]string{"OTEL_TRACES_EXPORTER=none", "PATH=" + os.Getenv("PATH"), "HOME=" + dir}, settings...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	host := make(chan string, 1)
	var log lockedBuffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			log.add(lines.Bytes())
			if m := listening.FindSubmatch(lines.Bytes()); m != nil {
				select {
				case host <- string(m[1]):
				default:
				}
			}
		}
	}()
	stop := sync.OnceFunc(func() {
		_ = cmd.Process.Kill() // it may have ended by itself
		<-done
		_ = cmd.Wait() // "killed" is what we want
	})
	t.Cleanup(stop)
	select {
	case h := <-host:
		return &Registry{Host: h, Dir: filepath.Join(dir, "data"), Stop: stop}
	case <-done:
	case <-time.After(30 * time.Second):
	}
	t.Fatalf("%s did not start:\n%s", binary, log.text())
	return nil
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) add(line []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf.Write(append(bytes.Clone(line), '\n'))
}

func (b *lockedBuffer) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
