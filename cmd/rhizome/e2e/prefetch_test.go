package e2e

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"rhizome/cmd/rhizome/internal/rig"
)

// This file follows docs/prefetch.md on machines: a C project in the cluster's
// own export, built over NFS and in memory, and two nodes that want it at once.

// project lays a small C project into the export that the nodes share: forty
// files that each read a dozen headers.
func project(t *testing.T, w *world) (dir string) {
	t.Helper()
	dir = filepath.Join(w.store, "persist", "e2e", "@shared", "src")
	files := map[string]string{"Makefile": "OBJS := $(patsubst %.c,%.o,$(wildcard *.c))\nall: prog\nprog: $(OBJS)\n\ttcc -o $@ $(OBJS)\n%.o: %.c\n\ttcc -Iinc -c -o $@ $<\nclean:\n\trm -f *.o prog\n"}
	includes := ""
	for i := range 12 {
		files[fmt.Sprintf("inc/h%d.h", i)] = fmt.Sprintf("extern int f%d(int);\n", i) + strings.Repeat("/* what headers say */\n", 100)
		includes += fmt.Sprintf("#include \"h%d.h\"\n", i)
	}
	for i := range 40 {
		files[fmt.Sprintf("f%d.c", i)] = includes + fmt.Sprintf("int f%d(int x) { return x + %d; }\n", i, i)
	}
	files["main.c"] = includes + "int main(void) { return f1(f2(0)) - 3; }\n"
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// traffic is what a node's kernel sent and got for one mount.
type traffic struct{ calls, bytes, waited int }

// sharedTraffic reads the counters of /shared (nfs(5), /proc/self/mountstats): calls,
// bytes both ways, and milliseconds that calls took in all.
func sharedTraffic(t *testing.T, r *rig.Running) (n traffic) {
	t.Helper()
	const sum = `awk '/ mounted on /{on=/ mounted on \/shared /} on && $1~/^[A-Z]+:$/ && NF>=9{n+=$2;b+=$5+$6;w+=$9} END{print n+0,b+0,w+0}' /proc/self/mountstats`
	if _, err := fmt.Sscan(shell(t, r, sum), &n.calls, &n.bytes, &n.waited); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n traffic) since(before traffic) traffic {
	return traffic{n.calls - before.calls, n.bytes - before.bytes, n.waited - before.waited}
}

// linkVar makes the link to the nodes one of a rate (tc-tbf(8)), for bench/prefetch.sh.
const linkVar = "RHIZOME_E2E_LINK"

// streamOf is how long a stream over HTTP took the server, in milliseconds, and
// its bytes.
func streamOf(t *testing.T, s *rig.Server, from int, kind string) (ms, bytes int) {
	t.Helper()
	g, _ := awaitIn(t, s.Console, from, `node\.`+kind+` node=n1 [^\n]* bytes=(\d+)(?: took=(\S+))?`)
	took, err := time.ParseDuration(cmp.Or(g[2], "0s"))
	if err == nil {
		bytes, err = strconv.Atoi(g[1])
	}
	if err != nil {
		t.Fatal(err)
	}
	return int(took.Milliseconds()), bytes
}

func TestAProjectIsBuiltInMemoryAndTwoNodesCannotBothHaveIt(t *testing.T) {
	w := need(t)
	src := project(t, w)
	n := lan(t)
	s := w.serve(t, n)
	one, two := w.boot(t, n, 1, nil), w.boot(t, n, 2, nil)
	login(t, one, "n1")
	login(t, two, "n2")

	if link := os.Getenv(linkVar); link != "" {
		if err := n.Run(t.Context(), "tc", "qdisc", "add", "dev", n.Bridge, "root", "tbf", "rate", link, "burst", "256kb", "latency", "500ms"); err != nil {
			t.Fatal(err)
		}
	}
	const forget = `sync; echo 3 > /proc/sys/vm/drop_caches; tcc -v > /dev/null; `
	before := sharedTraffic(t, one)
	shell(t, one, forget+`make -s -C /shared/src`)
	direct := sharedTraffic(t, one).since(before)
	shell(t, one, `/shared/src/prog && make -s -C /shared/src clean`)
	before = sharedTraffic(t, one)
	from := len(s.Console.Text())
	shell(t, one, forget+`rhizome-node prefetch /shared/src -- make -s -C /shared/src`)
	held := sharedTraffic(t, one).since(before)
	for _, kind := range []string{"stream", "commit"} {
		took, bytes := streamOf(t, s, from, kind)
		held.waited += took
		held.bytes += bytes
	}
	t.Logf("BUILD over NFS: %d calls, %d bytes, %d ms of waiting; in prefetch: %d calls, %d bytes, %d ms", direct.calls, direct.bytes, direct.waited, held.calls, held.bytes, held.waited)
	if held.calls*20 > direct.calls {
		t.Errorf("the build took %d NFS calls over NFS and %d in prefetch, which is not 20 times fewer", direct.calls, held.calls)
	}
	for _, r := range []*rig.Running{one, two} {
		shell(t, r, `/shared/src/prog`)
	}

	from = len(s.Console.Text())
	shell(t, one, `(rhizome-node prefetch --ttl 60s /shared/src -- sh -c 'while ! [ -e /run/go ]; do sleep 1; done; echo one > /shared/src/winner' > /run/first 2>&1; echo $? > /run/ended) & sleep 0`)
	awaitIn(t, s.Console, from, `node\.stream node=n1`)
	said := shell(t, two, `rhizome-node prefetch /shared/src -- sh -c 'echo two > /shared/src/winner' 2>&1; test $? = 5`)
	if !strings.Contains(said, `node "n1" has /shared/src`) {
		t.Errorf("n2 was told %q", said)
	}
	s.Kill()
	w.serve(t, n)
	if got := shell(t, two, `rhizome-node status`); !regexp.MustCompile(`write n1 /shared/src`).MatchString(got) {
		t.Errorf("after the server's restart, status says\n%s", got)
	}
	shell(t, one, `touch /run/go; while ! [ -e /run/ended ]; do sleep 1; done; cat /run/first; test $(cat /run/ended) = 0`)
	if data, err := os.ReadFile(filepath.Join(src, "winner")); err != nil || string(data) != "one\n" {
		t.Errorf("the winner is %q, %v", data, err)
	}
	shell(t, two, `rhizome-node prefetch /shared/src -- sh -c 'cat /shared/src/winner; echo two > /shared/src/winner'`)
	if data, err := os.ReadFile(filepath.Join(src, "winner")); err != nil || string(data) != "two\n" {
		t.Errorf("the second winner is %q, %v", data, err)
	}
}
