package httpd

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"rhizome/serve/boot"
	"rhizome/serve/bootspec"
)

func TestCurlGetsWhatTheBootSpecNames(t *testing.T) {
	s := start(t)
	for p, want := range map[string][]byte{
		"/files/boot/vmlinuz": s.tree["/boot/vmlinuz"], "/boot/vmlinuz": s.tree["/boot/vmlinuz"],
		"/files/vmlinuz": s.tree["/boot/vmlinuz"], "//boot//initrd.img": s.tree["/boot/initrd.img"],
		"/files/boot/%6coader.efi": s.tree["/boot/loader.efi"],
	} {
		got, status := curl(t, "--path-as-is", s.url+p)
		if status != "200" || !bytes.Equal(got, want) {
			t.Errorf("%s: %s, %d bytes of %d", p, status, len(got), len(want))
		}
	}
}

func TestNothingElseCanBeHad(t *testing.T) {
	s := start(t)
	for _, p := range []string{
		"/", "/files", "/files/", "/etc/shadow", "/files/etc/shadow", "/files/../etc/shadow", "/files/boot/../../etc/shadow", "/files/%2e%2e/etc/shadow",
		"/files/boot/..%2f..%2fetc/shadow", "/files/boot%00/vmlinuz", `/files/boot\..\..\etc\shadow`, "/boot", "/files/boot/", "/boot/n2.ipxe",
		"/blobs/", "/blobs/sha256/", "/blobs/sha256/../../etc/shadow", "/blobs/md5/00",
	} {
		got, status := curl(t, "--path-as-is", s.url+p)
		if status != "404" && status != "400" {
			t.Errorf("%s: %s, %q", p, status, got)
		}
		if bytes.Contains(got, []byte("secret")) {
			t.Errorf("%s gave /etc/shadow", p)
		}
	}
	if e := s.await(t, boot.HTTPNotFound); e.Node != "n1" || e.Error == "" {
		t.Errorf("event: %+v", e)
	}
}

func TestAMissNamesWhatIsNear(t *testing.T) {
	s := start(t)
	got, _ := curl(t, s.url+"/files/boot/vmlinux")
	if !strings.Contains(string(got), "nearest: /boot/vmlinuz") {
		t.Errorf("the client was told %q", got)
	}
}

func TestTheScriptIsTheAskingNodesOwn(t *testing.T) {
	s := start(t)
	for address, node := range map[string]string{"127.0.0.1": "n1", "127.0.0.2": "n2"} {
		got, _ := curl(t, "--interface", address, s.url+"/boot.ipxe")
		if !bytes.HasPrefix(got, []byte("#!ipxe\n")) || !bytes.Contains(got, []byte("name="+node)) {
			t.Errorf("%s got %s", address, got)
		}
		if got, status := curl(t, "--interface", address, s.url+"/boot/"+node+".ipxe"); status != "200" {
			t.Errorf("%s: %s %s", address, status, got)
		}
	}
}

func TestStrangersAreRefused(t *testing.T) {
	s := start(t)
	if got, status := curl(t, "--interface", "127.0.0.3", s.url+"/boot.ipxe"); status != "403" || !bytes.Contains(got, []byte("127.0.0.3")) {
		t.Errorf("%s: %s", status, got)
	}
	s.await(t, boot.HTTPRefused)
}

func TestOnlyReadingIsServed(t *testing.T) {
	s := start(t)
	for _, method := range []string{"POST", "PUT", "DELETE", "PROPFIND"} {
		if _, status := curl(t, "-X", method, s.url+"/boot/vmlinuz"); status != "405" {
			t.Errorf("%s: %s", method, status)
		}
	}
}

func TestRangesAndConditionsHoldByBodyDigest(t *testing.T) {
	s := start(t)
	kernel := s.tree["/boot/vmlinuz"]
	u, tag := s.url+"/files/boot/vmlinuz", `"`+sum(kernel)+`"`
	for name, c := range map[string]struct {
		header string
		status string
		want   []byte
	}{
		"a range":                      {"Range: bytes=100-199", "206", kernel[100:200]},
		"from a point on":              {"Range: bytes=3145000-", "206", kernel[3145000:]},
		"the tail":                     {"Range: bytes=-5", "206", kernel[len(kernel)-5:]},
		"beyond the end":               {"Range: bytes=99999999-", "416", nil},
		"a copy that still holds":      {"If-None-Match: " + tag, "304", nil},
		"a copy of another body":       {`If-None-Match: "sha256:0"`, "200", kernel},
		"going on with the same body":  {"If-Range: " + tag + "\r\nRange: bytes=0-9", "206", kernel[:10]},
		"going on with another's body": {"If-Range: \"x\"\r\nRange: bytes=0-9", "200", kernel},
	} {
		args := []string{u}
		for h := range strings.SplitSeq(c.header, "\r\n") {
			args = append(args, "-H", h)
		}
		got, status := curl(t, args...)
		if status != c.status || (c.want != nil && !bytes.Equal(got, c.want)) {
			t.Errorf("%s: %s, %d bytes", name, status, len(got))
		}
	}
}

// UEFI HTTP boot asks HEAD for the length first, and goes by the media type.
func TestUEFIHTTPBootGetsLengthAndType(t *testing.T) {
	s := start(t)
	r, err := http.Head(s.url + "/files/boot/loader.efi")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.ContentLength != 10 || r.Header.Get("Content-Type") != "application/efi" || r.Header.Get("Accept-Ranges") != "bytes" || r.Header.Get("Last-Modified") == "" {
		t.Errorf("%v", r.Header)
	}
}

func TestABlobIsHadByTheNodesWhoseManifestNamesIt(t *testing.T) {
	s := start(t)
	at := func(b []byte) string { return s.url + "/blobs/" + strings.Replace(sum(b), ":", "/", 1) }
	if got, status := curl(t, at(s.bundle)); status != "200" || !bytes.Equal(got, s.bundle) {
		t.Errorf("the bundle: %s, %d bytes", status, len(got))
	}
	if got, status := curl(t, "-H", "Range: bytes=1048570-2097160", at(s.bundle)); status != "206" || !bytes.Equal(got, s.bundle[1048570:2097161]) {
		t.Errorf("a range of the bundle: %s, %d bytes", status, len(got))
	}
	if got, status := curl(t, at(s.foreign)); status != "403" {
		t.Errorf("another image's blob: %s %s", status, got)
	}
	if got, status := curl(t, at(s.layer)); status != "403" || !bytes.Contains(got, []byte("below 1024")) {
		t.Errorf("a layer for an ordinary user: %s %s", status, got)
	}
}

func TestRootOfANodeGetsItsLayers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("skipped: only root binds ports below 1024")
	}
	s := start(t)
	u := s.url + "/blobs/" + strings.Replace(sum(s.layer), ":", "/", 1)
	if got, status := curl(t, "--local-port", "600-1000", u); status != "200" || !bytes.Equal(got, s.layer) {
		t.Errorf("%s, %d bytes", status, len(got))
	}
}

func TestABlobTheStoreLostIsSaidToBeLost(t *testing.T) {
	s := start(t)
	os.Remove(filepath.Join(s.blobs, sum(s.bundle)))
	if got, status := curl(t, s.url+"/blobs/"+sum(s.bundle)); status != "404" || !bytes.Contains(got, []byte("pull the image again")) {
		t.Errorf("%s %s", status, got)
	}
}

func TestEveryAnswerLeavesItsEvents(t *testing.T) {
	s := start(t)
	curl(t, "-A", "UefiHttpBoot/1.0", s.url+"/files/boot/initrd.img")
	get, done := s.await(t, boot.HTTPGet), s.await(t, boot.HTTPDone)
	if get.Client != "UefiHttpBoot/1.0" || get.MAC == "" || get.Digest != "sha256:d" {
		t.Errorf("%+v", get)
	}
	if done.Bytes != 1000 || done.Took <= 0 || done.Detail != "GET: 200" {
		t.Errorf("%+v", done)
	}
}

func TestAClientThatHangsUpIsReported(t *testing.T) {
	s := start(t, func(r *running) { r.tree["/boot/vmlinuz"] = noise(64 << 20) })
	c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(c, "GET /boot/vmlinuz HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	_ = c.(*net.TCPConn).SetLinger(0)
	c.Close()
	if e := s.await(t, boot.HTTPAborted); !strings.Contains(e.Error, "bytes") || e.Bytes >= 64<<20 {
		t.Errorf("%+v", e)
	}
}

func TestAFileThatCannotBeReadIsReported(t *testing.T) {
	s := start(t, func(r *running) {
		r.Machines = func(a netip.Addr) (bootspec.Machine, bool) {
			m, ok := r.machine(a)
			m.Tree = rot{}
			return m, ok
		}
	})
	curl(t, s.url+"/boot/vmlinuz")
	if e := s.await(t, boot.HTTPAborted); !strings.Contains(e.Error, "bit rot") {
		t.Errorf("%+v", e)
	}
}

type rot struct{}

func (rot) Open(string) (bootspec.File, error) {
	return bootspec.File{ReaderAt: rot{}, Size: 1000}, nil
}

func (rot) ReadAt([]byte, int64) (int, error) { return 0, errors.New("bit rot") }

func TestOneClientCannotTakeAllConnections(t *testing.T) {
	s := start(t, func(r *running) { r.PerClient = 2 })
	at := strings.TrimPrefix(s.url, "http://")
	var held []net.Conn
	for range 2 {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		held = append(held, c)
		fmt.Fprint(c, "GET /boot.ipxe HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	third, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	if n, err := third.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Error("a third connection was served")
	}
	held[0].Close()
	if _, status := curl(t, "--interface", "127.0.0.2", s.url+"/boot.ipxe"); status != "200" {
		t.Errorf("another node: %s", status)
	}
}

func TestHugeHeadersAreRefused(t *testing.T) {
	s := start(t)
	if _, status := curl(t, "-H", "X: "+strings.Repeat("a", 40<<10), s.url+"/boot.ipxe"); status != "431" {
		t.Errorf("%s", status)
	}
}

func TestOtherPartsOfServeAnswerBelowTheirPath(t *testing.T) {
	s := start(t, func(r *running) {
		r.Under = map[string]func(http.ResponseWriter, *http.Request, bootspec.Machine){
			"/node/": func(w http.ResponseWriter, _ *http.Request, m bootspec.Machine) {
				_, _ = io.WriteString(w, m.Node.Name)
			},
		}
	})
	if got, _ := curl(t, "-X", "POST", s.url+"/node/up"); string(got) != "n1" {
		t.Errorf("%s", got)
	}
}

func TestWgetAndBusyboxGetTheFile(t *testing.T) {
	s := start(t)
	need(t, "busybox")
	out := filepath.Join(t.TempDir(), "out")
	if said, err := exec.Command("busybox", "wget", "-q", "-O", out, s.url+"/files/boot/vmlinuz").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	if got, _ := os.ReadFile(out); !bytes.Equal(got, s.tree["/boot/vmlinuz"]) {
		t.Errorf("%d bytes", len(got))
	}
}

// The law: a route is either a well-formed digest or a name, and a name that
// opens a file is one that the boot spec holds.
func FuzzRoutes(f *testing.F) {
	for _, p := range []string{"/", "/files/boot/vmlinuz", "/blobs/sha256/" + strings.Repeat("0", 64), "/blobs/sha256:x", "/files/../etc/shadow", "/boot.ipxe"} {
		f.Add(p)
	}
	r := &running{tree: memory{"/etc/shadow": []byte("secret"), "/boot/vmlinuz": []byte("k")}}
	f.Fuzz(func(t *testing.T, p string) {
		to := routeOf(p)
		if to.digest != "" && (!isDigest(to.digest) || to.name != "") {
			t.Fatalf("%q: %+v", p, to)
		}
		m, _ := r.machine(clientOf("127.0.0.1:1").Addr())
		if file, err := bootspec.Open(m, to.name); err == nil && !file.Generated && file.Name != "/boot/vmlinuz" {
			t.Fatalf("%q opened %q", p, file.Name)
		}
	})
}
