package remote_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rhizome/registry/layout"
	"rhizome/registry/ref"
	"rhizome/registry/registrytest"
	"rhizome/registry/remote"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func open(t *testing.T) *layout.Layout {
	t.Helper()
	l, err := layout.Open(t.TempDir(), layout.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// client makes a client that speaks plain HTTP unless it has a CA, and that
// does not wait between attempts.
func client(t *testing.T, o remote.Options) *remote.Client {
	t.Helper()
	o.PlainHTTP = o.CAFile == ""
	if o.Sleep == nil {
		o.Sleep = func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
	}
	c, err := remote.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func parse(t *testing.T, s string) ref.Reference {
	t.Helper()
	r, err := ref.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func pull(t *testing.T, c *remote.Client, from string, l *layout.Layout) (ocispec.Descriptor, error) {
	t.Helper()
	return c.Pull(context.Background(), parse(t, from), l, remote.PullOptions{Partial: filepath.Join(l.Root(), "ingest")})
}

func push(t *testing.T, c *remote.Client, l *layout.Layout, d ocispec.Descriptor, to string) error {
	t.Helper()
	return c.Push(context.Background(), l, d, parse(t, to), remote.PushOptions{})
}

// kind wants an error of a kind, as a sentence that names the reference.
func kind(t *testing.T, err error, want remote.Kind, part string) {
	t.Helper()
	var e *remote.Error
	if !errors.As(err, &e) || e.Kind != want {
		t.Fatalf("the error is %v; want the kind %q", err, want)
	}
	if !strings.Contains(err.Error(), part) || !strings.Contains(err.Error(), e.Ref.String()) {
		t.Errorf("the error %q does not say %q, or of what", err, part)
	}
}

// served starts a registry with an image in it, and returns a proxy before it.
func served(t *testing.T) (*registrytest.Proxy, *layout.Layout, ocispec.Descriptor) {
	t.Helper()
	reg := registrytest.Docker(t, "docker-registry")
	l := open(t)
	big := registrytest.OurLayer(t, l, registrytest.Tar(1, 4, 1<<20))
	image := registrytest.Index(t, l, registrytest.Manifest(t, l, "n1", big))
	if err := push(t, client(t, remote.Options{}), l, image, reg.Host+"/web:1"); err != nil {
		t.Fatal(err)
	}
	return registrytest.NewProxy(t, reg.Host), l, image
}

func registries(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{"Debian's docker-registry": "docker-registry"}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	all["distribution v3"] = filepath.Join(cache, "rhizome-tools", "registry")
	return all
}

func TestDigestsSurviveRealRegistriesAndSkopeo(t *testing.T) {
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip("skipped: skopeo is not installed")
	}
	ctx := context.Background()
	for name, binary := range registries(t) {
		t.Run(name, func(t *testing.T) {
			reg := registrytest.Docker(t, binary)
			c, l := client(t, remote.Options{}), open(t)
			image := registrytest.Cluster(t, l, 1)
			if err := l.Tag(ctx, image, "web:1"); err != nil {
				t.Fatal(err)
			}
			if err := push(t, c, l, image, reg.Host+"/ours:1"); err != nil {
				t.Fatal(err)
			}
			skopeo(t, "copy", "-q", "--all", "--dest-tls-verify=false", "oci:"+l.Root()+":web:1", "docker://"+reg.Host+"/theirs:1")
			for _, repo := range []string{"ours", "theirs"} {
				back := open(t)
				got, err := pull(t, c, reg.Host+"/"+repo+":1", back)
				if err != nil || got.Digest != image.Digest || back.Complete(ctx, got) != nil {
					t.Errorf("%s came back as %s, %v", repo, got.Digest, err)
				}
				theirs := t.TempDir()
				skopeo(t, "copy", "-q", "--all", "--src-tls-verify=false", "docker://"+reg.Host+"/"+repo+":1", "oci:"+theirs+":web:1")
				copied, err := layout.Open(theirs, layout.Options{})
				if err != nil {
					t.Fatal(err)
				}
				if d, err := copied.Resolve(ctx, "web:1"); err != nil || d.Digest != image.Digest {
					t.Errorf("skopeo brought %s as %s, %v", repo, d.Digest, err)
				}
			}
		})
	}
}

func skopeo(t *testing.T, args ...string) {
	t.Helper()
	args = append([]string{"--insecure-policy"}, args...)
	if out, err := exec.Command("skopeo", args...).CombinedOutput(); err != nil {
		t.Fatalf("skopeo %q: %v\n%s", args, err, out)
	}
}

func TestAPullGoesOnWhereItStopped(t *testing.T) {
	proxy, _, image := served(t)
	size := bigSize(t, proxy)
	proxy.SetCut(1 << 20)
	for name, attempts := range map[string]int{"within one run": 3, "in later runs": 1} {
		t.Run(name, func(t *testing.T) {
			proxy.Forget()
			l := open(t)
			var err error
			for range 20 {
				if _, err = pull(t, client(t, remote.Options{Attempts: attempts}), proxy.Host()+"/web:1", l); err == nil {
					break
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Complete(context.Background(), image); err != nil {
				t.Fatal(err)
			}
			var sent, ranges int64
			for _, s := range proxy.Requests("GET", "/blobs/") {
				sent += s.Sent
				if s.Range != "" {
					ranges++
				}
			}
			if sent > size+64<<10 || ranges < 3 {
				t.Errorf("%d bytes went over the wire for an image of %d, in %d ranges", sent, size, ranges)
			}
		})
	}
}

// bigSize is the size of all blobs of the served image.
func bigSize(t *testing.T, proxy *registrytest.Proxy) int64 {
	t.Helper()
	l := open(t)
	if _, err := pull(t, client(t, remote.Options{}), proxy.Host()+"/web:1", l); err != nil {
		t.Fatal(err)
	}
	blobs, err := l.Blobs()
	if err != nil {
		t.Fatal(err)
	}
	var sum int64
	for _, b := range blobs {
		sum += b.Size
	}
	return sum
}

func TestSpoiltHalvesAreFetchedAgain(t *testing.T) {
	proxy, src, image := served(t)
	l := open(t)
	blobs, err := src.Blobs()
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range blobs {
		// A power cut left zeros, or more than there ever was.
		junk := make([]byte, b.Size/2+int64(i%2)*b.Size)
		name := strings.Replace(b.Digest.String(), ":", "-", 1)
		if err := os.WriteFile(filepath.Join(l.Root(), "ingest", name), junk, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := pull(t, client(t, remote.Options{}), proxy.Host()+"/web:1", l); err != nil {
		t.Fatal(err)
	}
	if err := l.Complete(context.Background(), image); err != nil {
		t.Error(err)
	}
}

func TestTwoPullsAtOnceFetchEachBlobOnce(t *testing.T) {
	proxy, _, image := served(t)
	l := open(t)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if _, err := pull(t, client(t, remote.Options{}), proxy.Host()+"/web:1", l); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := l.Complete(context.Background(), image); err != nil {
		t.Error(err)
	}
	seen := map[string]int{}
	for _, s := range proxy.Requests("GET", "/blobs/") {
		if seen[s.Path]++; seen[s.Path] > 1 {
			t.Errorf("%s was fetched twice", s.Path)
		}
	}
}

func TestOnePlatformIsTakenOutOfAnIndex(t *testing.T) {
	ctx := context.Background()
	reg := registrytest.Docker(t, "docker-registry")
	c, l := client(t, remote.Options{}), open(t)
	amd := registrytest.Manifest(t, l, "", registrytest.GzipLayer(t, l, registrytest.Tar(1, 1, 100)))
	arm := registrytest.Manifest(t, l, "", registrytest.GzipLayer(t, l, registrytest.Tar(2, 1, 100)))
	arm.Platform = &ocispec.Platform{OS: "linux", Architecture: "arm64"}
	if err := push(t, c, l, registrytest.Index(t, l, amd, arm), reg.Host+"/debian:12"); err != nil {
		t.Fatal(err)
	}
	to := open(t)
	take := func(arch string) (ocispec.Descriptor, error) {
		return c.Pull(ctx, parse(t, reg.Host+"/debian:12"), to, remote.PullOptions{Partial: filepath.Join(to.Root(), "ingest"),
			Platform: &ocispec.Platform{OS: "linux", Architecture: arch}})
	}
	got, err := take("arm64")
	if err != nil || got.Digest != arm.Digest || to.Complete(ctx, arm) != nil || to.Complete(ctx, amd) == nil {
		t.Errorf("took %v, %v", got.Digest, err)
	}
	if _, err := take("riscv64"); err == nil || !strings.Contains(err.Error(), "no manifest for linux/riscv64") {
		t.Errorf("a platform that is not there: %v", err)
	}
}

func TestBlobsThatTheRegistryHasAreMountedAndNotSent(t *testing.T) {
	reg := registrytest.Docker(t, "docker-registry")
	proxy, l := registrytest.NewProxy(t, reg.Host), open(t)
	image := registrytest.Cluster(t, l, 1)
	var notes []string
	c := client(t, remote.Options{MountFrom: func(string) []string { return []string{"nothing/here", "team/web"} },
		Progress: func(p remote.Progress) { notes = append(notes, p.Note) }})
	if err := push(t, c, l, image, proxy.Host()+"/team/web:1"); err != nil {
		t.Fatal(err)
	}
	proxy.Forget()
	if err := push(t, c, l, image, proxy.Host()+"/other:1"); err != nil {
		t.Fatal(err)
	}
	if sent := proxy.Requests("PUT", "/blobs/uploads/"); len(sent) > 0 {
		t.Errorf("%d blobs were sent", len(sent))
	}
	if !slices.Contains(notes, "mounted") {
		t.Errorf("the progress notes are %q", notes)
	}
	proxy.Forget()
	if err := push(t, c, l, image, proxy.Host()+"/other:2"); err != nil {
		t.Fatal(err)
	}
	if sent := proxy.Requests("POST", "/blobs/uploads/"); len(sent) > 0 {
		t.Errorf("a second push began %d uploads", len(sent))
	}
}

func TestProgressEndsAtTheTotal(t *testing.T) {
	reg := registrytest.Docker(t, "docker-registry")
	l := open(t)
	image := registrytest.Cluster(t, l, 1)
	var last remote.Progress
	c := client(t, remote.Options{Progress: func(p remote.Progress) { last = p }})
	check := func(doing string) {
		t.Helper()
		if last.Doing != doing || last.Done != last.Total || last.Blobs != last.BlobsTotal || last.Total == 0 {
			t.Errorf("%s ends with %+v", doing, last)
		}
	}
	if err := push(t, c, l, image, reg.Host+"/web:1"); err != nil {
		t.Fatal(err)
	}
	check("pushing")
	if _, err := pull(t, c, reg.Host+"/web:1", open(t)); err != nil {
		t.Fatal(err)
	}
	check("pulling")
}

func TestTagsAreListedWithoutTheReferrersOwn(t *testing.T) {
	reg := registrytest.Docker(t, "docker-registry")
	c, l := client(t, remote.Options{}), open(t)
	image := registrytest.Cluster(t, l, 1)
	for _, tag := range []string{"2", "1", strings.Replace(image.Digest.String(), ":", "-", 1)} {
		if err := push(t, c, l, image, reg.Host+"/web:"+tag); err != nil {
			t.Fatal(err)
		}
	}
	tags, err := c.Tags(context.Background(), parse(t, reg.Host+"/web"))
	if err != nil || !slices.Equal(tags, []string{"1", "2"}) {
		t.Errorf("the tags are %q, %v", tags, err)
	}
}

func TestAPartOfABlobIsFetchedByItsRange(t *testing.T) {
	ctx := context.Background()
	proxy, l, _ := served(t)
	blobs, _ := l.Blobs()
	big := slices.MaxFunc(blobs, func(a, b layout.Stored) int { return int(a.Size - b.Size) })
	d := ocispec.Descriptor{Digest: big.Digest, Size: big.Size}
	want := make([]byte, 1000)
	b, err := l.Open(ctx, d)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := b.ReadAt(want, 5000); err != nil {
		t.Fatal(err)
	}
	c, r := client(t, remote.Options{}), parse(t, proxy.Host()+"/web:1")
	if got, err := c.FetchRange(ctx, r, d, 5000, 1000); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the range: %d bytes, %v", len(got), err)
	}
	if _, err := c.FetchRange(ctx, r, d, big.Size-10, 11); err == nil {
		t.Error("a range beyond the end was fetched")
	}
}
