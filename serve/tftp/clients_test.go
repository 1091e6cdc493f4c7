package tftp

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	client "github.com/pin/tftp/v3"

	"rhizome/serve/boot"
)

// fetchers are clients not ours; each writes the file to out.
var fetchers = map[string]func(host string, port int, name, out string) []string{
	"tftp-hpa": func(host string, port int, name, out string) []string {
		return []string{"tftp", "-m", "binary", host, strconv.Itoa(port), "-c", "get", name, out}
	},
	"tftp-hpa in netascii": func(host string, port int, name, out string) []string {
		return []string{"tftp", "-m", "ascii", host, strconv.Itoa(port), "-c", "get", name, out}
	},
	"atftp plain": func(host string, port int, name, out string) []string {
		return []string{"atftp", "-g", "-r", name, "-l", out, host, strconv.Itoa(port)}
	},
	"atftp with every option": func(host string, port int, name, out string) []string {
		return []string{"atftp", "--option", "blksize 1468", "--option", "windowsize 16", "--option", "tsize 0", "--option", "timeout 2", "-g", "-r", name, "-l", out, host, strconv.Itoa(port)}
	},
	"curl": func(host string, port int, name, out string) []string {
		return []string{"curl", "-sS", "-o", out, fmt.Sprintf("tftp://%s:%d/%s", host, port, name)}
	},
	"curl with blksize": func(host string, port int, name, out string) []string {
		return []string{"curl", "-sS", "--tftp-blksize", "1428", "-o", out, fmt.Sprintf("tftp://%s:%d/%s", host, port, name)}
	},
	"curl without options": func(host string, port int, name, out string) []string {
		return []string{"curl", "-sS", "--tftp-no-options", "-o", out, fmt.Sprintf("tftp://%s:%d/%s", host, port, name)}
	},
	"busybox": func(host string, port int, name, out string) []string {
		return []string{"busybox", "tftp", "-g", "-b", "1428", "-r", name, "-l", out, host, strconv.Itoa(port)}
	},
}

func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("skipped: %s is not installed", program)
	}
}

// fetch runs a client and returns what it wrote and said.
func fetch(t *testing.T, argv []string, out string) ([]byte, string) {
	t.Helper()
	need(t, argv[0])
	said, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Logf("%v: %v: %s", argv, err, said)
	}
	b, _ := os.ReadFile(out)
	return b, string(said)
}

func TestRealClientsGetFilesOfEverySize(t *testing.T) {
	files := memory{"/boot/kernel": noise(3<<20 + 17)}
	for _, n := range []int{0, 1, 511, 512, 513, 1428, 2 * 1468, 16 * 1468, 17 * 512} {
		files[fmt.Sprintf("/boot/size%d", n)] = noise(n)
	}
	text := []byte("one line\nand \r another\n")
	files["/boot/text"] = text
	s := start(t, files)
	for name, argv := range fetchers {
		t.Run(name, func(t *testing.T) {
			for p, want := range files {
				ascii := strings.Contains(name, "netascii")
				if ascii != (p == "/boot/text") || (len(want) == 0 && argv("", 0, "", "")[0] == "curl") {
					continue // curl 7.88 fails at an empty file of any server that grants tsize
				}
				out := filepath.Join(t.TempDir(), "out")
				got, said := fetch(t, argv("127.0.0.1", int(s.addr.Port()), p, out), out)
				if !bytes.Equal(got, want) {
					t.Errorf("%s: got %d bytes of %d: %s", p, len(got), len(want), said)
				}
			}
		})
	}
}

func TestThePinTFTPClientGetsAFileWithItsSize(t *testing.T) {
	want := noise(1 << 20)
	s := start(t, memory{"/boot/kernel": want})
	for _, block := range []int{512, 1428, 9000, 65464} {
		c, err := client.NewClient(s.addr.String())
		if err != nil {
			t.Fatal(err)
		}
		c.SetBlockSize(block)
		c.RequestTSize(true)
		from, err := c.Receive("boot/kernel", "octet")
		if err != nil {
			t.Fatal(err)
		}
		if n, ok := from.(client.IncomingTransfer).Size(); !ok || n != 1<<20 {
			t.Errorf("blksize %d: told a size of %d, %v", block, n, ok)
		}
		var got bytes.Buffer
		if _, err := from.WriteTo(&got); err != nil || !bytes.Equal(got.Bytes(), want) {
			t.Errorf("blksize %d: got %d bytes, %v", block, got.Len(), err)
		}
	}
}

func TestWhatIsNotThereIsSaidAtOnceWithTheNearestName(t *testing.T) {
	need(t, "tftp")
	s := start(t, memory{"/boot/vmlinuz": noise(10)})
	out := filepath.Join(t.TempDir(), "out")
	_, said := fetch(t, fetchers["tftp-hpa"]("127.0.0.1", int(s.addr.Port()), "/boot/vmlinux", out), out)
	if !strings.Contains(said, "nearest: /boot/vmlinuz") {
		t.Errorf("the client was told: %s", said)
	}
	e := s.await(t, boot.TFTPNotFound, 1)
	if e.Node != "n1" || e.File != "/boot/vmlinux" || !strings.Contains(e.Error, "nearest: /boot/vmlinuz") {
		t.Errorf("event: %+v", e)
	}
}

func TestWritingIsRefusedWithASentence(t *testing.T) {
	need(t, "tftp")
	s := start(t, memory{"/boot/kernel": noise(10)})
	local := filepath.Join(t.TempDir(), "mine")
	if err := os.WriteFile(local, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	said, _ := exec.Command("tftp", "-m", "binary", "127.0.0.1", strconv.Itoa(int(s.addr.Port())), "-c", "put", local, "/boot/kernel").CombinedOutput()
	if !strings.Contains(string(said), "read only") {
		t.Errorf("the client was told: %s", said)
	}
	s.await(t, boot.TFTPRefused, 1)
}

func TestEveryTransferLeavesItsEvents(t *testing.T) {
	need(t, "curl")
	s := start(t, memory{"/boot/kernel": noise(5000)})
	out := filepath.Join(t.TempDir(), "out")
	fetch(t, fetchers["curl with blksize"]("127.0.0.1", int(s.addr.Port()), "boot/kernel", out), out)
	read, done := s.await(t, boot.TFTPRead, 1), s.await(t, boot.TFTPDone, 1)
	if !strings.Contains(read.Detail, "blksize=1428") || read.Digest != "sha256:d" || read.MAC != "52:54:00:00:00:01" {
		t.Errorf("read: %+v", read)
	}
	if done.Bytes != 5000 || done.Took <= 0 || done.Time.IsZero() || done.Error != "" {
		t.Errorf("done: %+v", done)
	}
}
