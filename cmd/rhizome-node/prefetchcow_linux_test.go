package main

import (
	"archive/tar"
	"bytes"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"rhizome/registry/layerfmt"
	"rhizome/serve/rootfs"
	"rhizome/serve/volume"
)

// confImage is an image with a few files in DIR/conf.
func confImage(dir string) *rootfs.View {
	var stream, blob bytes.Buffer
	w := tar.NewWriter(&stream)
	add := func(kind byte, name, body string) {
		h := tar.Header{Typeflag: kind, Name: filepath.Join(dir, "conf", name)[1:], Mode: 0o755, Size: int64(len(body)), ModTime: time.Unix(1_700_000_000, 0), Format: tar.FormatPAX}
		if err := w.WriteHeader(&h); err != nil {
			panic(err)
		}
		_, _ = w.Write([]byte(body))
	}
	add(tar.TypeDir, "", "")
	add(tar.TypeDir, "app", "")
	add(tar.TypeReg, "app/a", "the image's a\n")
	add(tar.TypeReg, "app/b", "the image's b\n")
	add(tar.TypeDir, "app/sub", "")
	add(tar.TypeReg, "app/sub/c", "the image's c\n")
	if err := w.Close(); err != nil {
		panic(err)
	}
	if _, err := layerfmt.Encode(&blob, &stream, layerfmt.Options{Jobs: 1}); err != nil {
		panic(err)
	}
	index, err := layerfmt.ReadTail(bytes.NewReader(blob.Bytes()), int64(blob.Len()), nil)
	if err != nil {
		panic(err)
	}
	digest := "sha256:" + strings.Repeat("1", 64)
	l, err := rootfs.OpenLayer(digest, bytes.NewReader(blob.Bytes()), int64(blob.Len()), index, rootfs.NewCache(1<<20))
	if err != nil {
		panic(err)
	}
	v, err := rootfs.NewView(digest, []*rootfs.Layer{l})
	if err != nil {
		panic(err)
	}
	return v
}

// newConf is a cluster whose stories work on a part of the nodes' images.
func newConf(t *testing.T) *cluster {
	c := newCluster(t)
	c.region = filepath.Join(c.dir, "conf", "app")
	return c
}

// holds tells what files of the region have, as the node n1 gets them.
func (c *cluster) holds(files string) string {
	c.Helper()
	code, out := c.do(1, "prefetch", "--read-only", c.src(), "--", "sh", "-c", "cd "+c.src()+" && cat "+files)
	if code != 0 {
		c.Errorf("reading %s: %d %s", files, code, out)
	}
	return out
}

// changed lists what n1 changed of its image, as "rhizome changes" does.
func (c *cluster) changed() (all []string) {
	c.Helper()
	trees, err := volume.Trees(filepath.Join(c.dir, "cow", "c", "n1"))
	if err != nil {
		c.Fatal(err)
	}
	for _, t := range trees {
		for _, ch := range t.Changes {
			all = append(all, ch.What+" "+strings.TrimPrefix(ch.Path, filepath.Join(c.dir, "conf")+"/"))
		}
	}
	return all
}

func TestChangesToAnImagesFilesGoBack(t *testing.T) {
	c := newConf(t)
	cmd, out := c.holding(1, "echo mine > a && chmod 600 b && rm -r sub && mkdir more && echo d > more/d && ln more/d e && ln -s a latest; exit 9")
	if code, said := c.do(1, "prefetch", c.src(), "--", "true"); code != 5 || !strings.Contains(said, `node "n1" has`) {
		t.Errorf("a second one on the same node: %d %s", code, said)
	}
	c.letGo()
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 9 {
		t.Fatalf("%d %s", code, out)
	}
	if got := c.holds("a b more/d e latest; ls; stat -c %a%h b e"); got != "mine\nthe image's b\nd\nd\nmine\na\nb\ne\nlatest\nmore\n6001\n6442\n" {
		t.Errorf("the region holds %q", got)
	}
	want := []string{"changed app/a", "mode app/b", "added app/e", "added app/latest", "added app/more", "added app/more/d", "removed app/sub"}
	if got := c.changed(); !slices.Equal(got, want) {
		t.Errorf("changes are %q, and not %q", got, want)
	}
	if code, out := c.do(2, "prefetch", "--read-only", c.src(), "--", "cat", c.src()+"/sub/c"); code != 0 || out != "the image's c\n" {
		t.Errorf("another node: %d %s", code, out)
	}
}

func TestChangesToAnImagesFilesOutliveTheServer(t *testing.T) {
	c := newConf(t)
	cmd, out := c.holding(1, "echo new > a; exit 7", "--ttl", "5s")
	c.kill()
	c.letGo()
	c.await("a try to write back", func() bool { return strings.Contains(out.String(), "back again") })
	c.start()
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 7 || c.holds("a") != "new\n" {
		t.Errorf("%d %s", code, out)
	}
	c.kill()
	c.start()
	if got := c.holds("a b"); got != "new\nthe image's b\n" {
		t.Errorf("after another start of the server the region holds %q", got)
	}
}

// A prefetch that is stopped for longer than its lease lives finds that another
// wrote: nothing of theirs is overwritten.
func TestChangesToAnImagesFilesBehindALeaseThatEndedAreKeptAside(t *testing.T) {
	c := newConf(t)
	cmd, out := c.holding(1, "echo mine > a", "--ttl", "5s")
	_ = cmd.Process.Signal(syscall.SIGSTOP)
	if code, said := c.do(1, "prefetch", "--wait", "60s", c.src(), "--", "sh", "-c", "echo theirs > "+c.src()+"/a"); code != 0 {
		t.Errorf("the one who waited for the lease's end: %d %s", code, said)
	}
	_ = cmd.Process.Signal(syscall.SIGCONT)
	c.letGo()
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 5 || c.holds("a") != "theirs\n" {
		t.Errorf("%d %s", code, out)
	}
	name := regexp.MustCompile(`/(\.kept/app-\S+\.tar)`).FindStringSubmatch(out.String())
	if name == nil || !slices.Contains(c.changed(), "added "+name[1]) {
		t.Errorf("kept are %q, and the node was told %s", c.changed(), out)
	}
}
