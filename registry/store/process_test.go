package store_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"rhizome/registry/registrytest"
	"rhizome/registry/store"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// roleVariable makes the test binary one of the processes of a test.
const roleVariable = "RHIZOME_STORE_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "tagger":
		exit(tagMany())
	case "collector":
		exit(collectMany())
	}
	os.Exit(m.Run())
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func process(t *testing.T, role, dir string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], append([]string{dir}, args...)...)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	return cmd
}

const perProcess = 50

// tagMany makes 50 images and tags them PREFIX:0 to 49.
func tagMany() error {
	ctx := context.Background()
	s, err := store.Open(os.Args[1], store.Options{Who: os.Args[2]})
	if err != nil {
		return err
	}
	lease, err := s.Lease(ctx, "build")
	if err != nil {
		return err
	}
	defer lease.Close()
	seed, err := strconv.ParseUint(os.Args[3], 10, 32)
	if err != nil {
		return err
	}
	var t quietTB
	for i := range perProcess {
		// Both processes write the same layer in each round.
		layer := registrytest.OurLayer(&t, s.Images(), registrytest.Tar(uint64(i), 1, 100))
		d := registrytest.Index(&t, s.Images(), registrytest.Manifest(&t, s.Images(), fmt.Sprintf("n%d-%d", seed, i), layer))
		if err := s.Tag(ctx, d, fmt.Sprintf("%s:%d", os.Args[2], i)); err != nil {
			return err
		}
	}
	return nil
}

// quietTB is a testing.TB outside of a test: it panics.
type quietTB struct{ testing.TB }

func (*quietTB) Helper()           {}
func (*quietTB) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

// collectMany collects, without any grace, until it is killed.
func collectMany() error {
	s, err := store.Open(os.Args[1], store.Options{})
	if err != nil {
		return err
	}
	for {
		if _, err := s.GC(context.Background(), store.GCOptions{Grace: -1}); err != nil {
			return err
		}
	}
}

func TestTwoProcessesTagFiftyImagesEachWhileAThirdCollects(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	open(t, dir, store.Options{})
	collector := process(t, "collector", dir)
	a, b := process(t, "tagger", dir, "ada", "1"), process(t, "tagger", dir, "bob", "2")
	for _, cmd := range []*exec.Cmd{a, b} {
		if err := cmd.Wait(); err != nil {
			t.Errorf("a process failed: %v", err)
		}
	}
	if err := collector.Process.Kill(); err != nil {
		t.Errorf("the collector ended by itself: %v", err)
	}
	collector.Wait()
	s := open(t, dir, store.Options{})
	if _, err := s.GC(ctx, store.GCOptions{Grace: -1}); err != nil {
		t.Fatal(err)
	}
	images, err := s.List(ctx)
	if err != nil || len(images) != 2*perProcess {
		t.Errorf("%d tags survived of %d (%v)", len(images), 2*perProcess, err)
	}
	for _, image := range images {
		if findings, err := s.Verify(ctx, image.Descriptor, nil); err != nil || len(findings) > 0 {
			t.Errorf("%q: %v, %v", image.Name, findings, err)
		}
	}
	checkHistories(t, s, "ada", "bob")
}

func checkHistories(t *testing.T, s *store.Store, names ...string) {
	t.Helper()
	for _, name := range names {
		log, err := s.History(context.Background(), name)
		if err != nil || len(log) != perProcess || log[0].Who != name {
			t.Errorf("the history of %q has %d lines, %v", name, len(log), err)
		}
	}
}

// kill -9 at no chosen moment: whatever has a name afterwards is whole.
func TestAProcessThatIsKilledLeavesWholeImages(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	s := open(t, dir, store.Options{})
	cmd := process(t, "tagger", dir, "ada", "1")
	for {
		if images, err := s.List(ctx); err == nil && len(images) >= 5 {
			break
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
	again := open(t, dir, store.Options{})
	images, err := again.List(ctx)
	if err != nil || len(images) < 5 {
		t.Fatalf("%d images, %v", len(images), err)
	}
	for _, image := range images {
		if !whole(again, image.Descriptor) {
			t.Errorf("%q is not whole", image.Name)
		}
	}
	if report, err := again.GC(ctx, store.GCOptions{Grace: -1}); err != nil || len(report.Leases) != 0 {
		t.Errorf("the dead process still has a lease: %+v, %v", report.Leases, err)
	}
	tag(t, again, descriptorOf(t, again, images[0].Name), "mine:1")
}

func descriptorOf(t *testing.T, s *store.Store, name string) ocispec.Descriptor {
	t.Helper()
	d, err := s.Resolve(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
