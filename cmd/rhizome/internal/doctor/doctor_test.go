package doctor

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"
	"testing"
	"time"

	"rhizome/recipes"
	"rhizome/registry/imagefmt"
	"rhizome/serve/bootspec"
)

// says wants exactly these findings, each by "severity: what: " and a part of
// its message or remedy.
func says(t *testing.T, got []Finding, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d finding(s), want %d: %v", len(got), len(want), got)
		return
	}
	for i, w := range want {
		kind, text, _ := strings.Cut(w, "|")
		if !strings.HasPrefix(got[i].String(), kind) || !strings.Contains(got[i].String(), text) {
			t.Errorf("got %s\nwant %s", got[i], w)
		}
	}
}

func TestStore(t *testing.T) {
	good := Store{Dir: "/s", Mode: 0o700 | fs.ModeDir, Disk: Disk{Free: 1 << 40, Total: 1 << 41, Inodes: 1e6, InodesFree: 1e6}}
	change := func(f func(*Store)) []Finding {
		s := good
		f(&s)
		return s.Check()
	}
	says(t, good.Check())
	says(t, change(func(s *Store) { s.Mode = 0o755 }), "warning: host|chmod 700 /s")
	says(t, change(func(s *Store) { s.Mode, s.Missing = 0o755, true }))
	says(t, change(func(s *Store) { s.Unwritable = fs.ErrPermission }), "error: host|cannot be written to")
	says(t, change(func(s *Store) { s.Unwritable, s.Unreadable = fs.ErrPermission, fs.ErrPermission }), "error: host|cannot be written to")
	says(t, change(func(s *Store) { s.Unreadable = errors.New("a newer rhizome wrote it") }), "error: host|newer")
	says(t, change(func(s *Store) { s.Disk.ReadOnly = true }), "error: host|mounted read-only")
	says(t, change(func(s *Store) { s.Disk.Free = 1 << 20 }), "warning: host|has 1.0 MB free of 2199.0 GB; `rhizome gc`")
	says(t, change(func(s *Store) { s.Disk.Free, s.Leftovers = 0, 5e9 }), "warning: host|5.0 GB in tmp/ are left of interrupted work")
	says(t, change(func(s *Store) { s.Disk.InodesFree = 3 }), "warning: host|room for 3 more files")
	says(t, change(func(s *Store) { s.Disk = Disk{} })) // not known
	says(t, change(func(s *Store) { s.Dangling = []string{"x is not whole"} }), "error: host|x is not whole")
}

func TestClock(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	says(t, Clock{Now: now, Epoch: now.AddDate(0, 0, -19), Record: now.Add(-time.Hour)}.Check())
	says(t, Clock{Now: now, Record: now.Add(time.Minute)}.Check())
	says(t, Clock{Now: now, Record: now.Add(time.Hour)}.Check(), "error: host|it has gone back")
	says(t, Clock{Now: now, Epoch: now.AddDate(0, 1, 0)}.Check(), "warning: host|before the image's date 2026-12-20")
}

func TestLimits(t *testing.T) {
	good := Limits{Files: 1024, Nodes: 10, FrameCache: 1 << 30, Available: 4 << 30, Bound: 2 << 30}
	says(t, good.Check())
	says(t, Limits{}.Check())
	many := good
	many.Nodes = 100
	says(t, many.Check(), "warning: host|1024 files open, and serving 100 node(s) may take 1856")
	bound := good
	bound.Bound = 1 << 30
	says(t, bound.Check(), "warning: host|control group's memory limit is 1.1 GB")
	used := good
	used.Available = 1 << 29
	says(t, used.Check(), "warning: host|536.9 MB of memory are available")
}

func TestPorts(t *testing.T) {
	mine := []Serving{{PID: 7, Purpose: "serving rack"}}
	same := func(is bool) func(Serving) bool { return func(Serving) bool { return is } }
	says(t, Ports(nil, mine, same(true)))
	says(t, Ports([]Port{{Text: "no", Denied: true}, {Text: "no", Denied: true}}, nil, same(true)), "error: host|CAP_NET_BIND_SERVICE")
	says(t, Ports([]Port{{Text: "69 is taken", Taken: true, PID: 9, Owner: "in.tftpd"}}, mine, same(true)), "error: network|disable --now tftpd-hpa")
	says(t, Ports([]Port{{Text: "80 is taken", Taken: true, PID: 9, Owner: "x"}}, mine, same(true)), "error: network|ps -fp 9")
	says(t, Ports([]Port{{Text: "2049 is taken", Taken: true, Number: 2049, Kernel: true}}, nil, same(true)), "error: network|disable --now nfs-server")
	says(t, Ports([]Port{{Text: "2049 is taken", Taken: true, Number: 2049}}, nil, same(true)), "error: network|ss -lntup")
	says(t, Ports([]Port{{Text: "2049 is taken", Taken: true, PID: 7, Owner: "rhizome"}}, mine, same(true)))
	says(t, Ports([]Port{{Text: "2049 is taken", Taken: true, PID: 7, Owner: "rhizome"}}, mine, same(false)), "error: network|it is serving rack")
	says(t, Ports([]Port{{Text: "too many files"}}, nil, same(true)), "error: network|too many files")
}

func rack() imagefmt.Network {
	return imagefmt.Network{Subnet: netip.MustParsePrefix("10.77.0.0/24"), Server: netip.MustParseAddr("10.77.0.1"), Gateway: netip.MustParseAddr("10.77.0.254"),
		DNS: []netip.Addr{netip.MustParseAddr("10.77.0.253")}}
}

func card(name string, addrs ...string) Interface {
	i := Interface{Name: name, Up: true, Carrier: true, MAC: "02:00:00:00:00:01", MTU: 1500}
	for _, a := range addrs {
		i.Addrs = append(i.Addrs, netip.MustParsePrefix(a))
	}
	return i
}

func TestNetwork(t *testing.T) {
	lo := Interface{Name: "lo", Up: true, Carrier: true, Loopback: true, MTU: 65536, Addrs: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}}
	eth1 := card("eth1", "10.77.0.1/24")
	check := func(w imagefmt.Network, asked string, all ...Interface) []Finding {
		return Network{Want: w, Asked: asked, Interfaces: append([]Interface{lo}, all...)}.Check()
	}
	say := func(w imagefmt.Network, asked string, in Interface, want ...string) {
		t.Helper()
		says(t, check(w, asked, in), want...)
	}
	say(rack(), "", eth1)
	say(rack(), "eth1", eth1)
	say(rack(), "eth7", eth1, `error: network|no interface "eth7" here; name one of lo, eth1`)
	say(rack(), "", card("eth0", "192.0.2.1/24"), "error: network|ip addr add 10.77.0.1/24 dev IF; there are lo, eth0")
	say(rack(), "", card("eth0", "10.77.0.9/24"), "error: network|eth0 has 10.77.0.9/24 in the nodes' subnet 10.77.0.0/24; ip addr add 10.77.0.1/24 dev eth0")
	say(rack(), "eth0", card("eth0"), "error: network|but no address")
	say(rack(), "", card("eth1", "10.77.0.1/16"), "error: network|has 10.77.0.1/16, and nodes are told 10.77.0.0/24")
	off, deaf, none := eth1, eth1, eth1
	off.Up, deaf.Carrier, none.MAC = false, false, ""
	say(rack(), "", off, "error: network|the interface eth1 is down; ip link set eth1 up")
	say(rack(), "", deaf, "error: network|has no carrier")
	say(rack(), "", none, "error: network|is no Ethernet")
	jumbo := rack()
	jumbo.MTU = 9000
	say(jumbo, "", eth1, "error: network|nodes are told an MTU of 9000, and the interface eth1 has 1500")
	says(t, check(rack(), "", eth1, card("eth2", "10.77.0.200/25")), "warning: network|eth2 has 10.77.0.200/25, which overlaps")
	// Behind a router the server is in another network, whatever its length.
	far := rack()
	far.Server = netip.MustParseAddr("192.0.2.1")
	say(far, "", card("eth1", "192.0.2.1/28"))
}

func TestWire(t *testing.T) {
	own := []Interface{card("eth1")}
	says(t, Wire([]Seen{{Text: "it is used", MAC: "02:00:00:00:00:09", Node: "n1"}}, own), "error: network|it is used")
	says(t, Wire([]Seen{{Text: "it is used", MAC: "02:00:00:00:00:01"}}, own), "warning: network|own interface eth1 answers")
	says(t, Wire([]Seen{{Text: "another DHCP server"}}, []Interface{{Name: "lo"}}), "error: network|another DHCP server")
}

func TestIdentities(t *testing.T) {
	node := func(name, addr string, macs ...string) imagefmt.Node {
		n := imagefmt.Node{Name: name, MACs: macs}
		n.Address, _ = netip.ParseAddr(addr)
		return n
	}
	mac := "02:00:00:00:00:11"
	one := func(n imagefmt.Node) []Finding { return Identities(rack(), []imagefmt.Node{n}, nil) }
	says(t, one(node("n1", "10.77.0.11", mac)))
	says(t, one(node("n1", "10.77.0.11")), "error: image|no MAC")
	says(t, one(node("n1", "", mac)), "error: image|no address")
	says(t, one(node("n1", "10.77.0.1", mac)), "error: image|is the server's own")
	says(t, one(node("n1", "10.77.0.254", mac)), "error: image|is the gateway's")
	says(t, one(node("n1", "10.77.0.253", mac)), "warning: image|DNS server")
	says(t, one(node("n1", "10.78.0.11", mac)), "error: image|outside the subnet 10.77.0.0/24")
	others := []Claim{{"lab", node("x1", "10.77.0.11", mac)}}
	says(t, Identities(rack(), []imagefmt.Node{node("n1", "10.77.0.11", mac), node("n2", "10.77.0.12", "02:00:00:00:00:12")}, others),
		`warning: image|the MAC 02:00:00:00:00:11 is node "x1"'s of the cluster "lab" as well`, `warning: image|the address 10.77.0.11 is node "x1"'s`)
}

// tree is a root in memory; a nil body is one that cannot be read.
type tree map[string][]byte

func (t tree) Open(p string) (bootspec.File, error) {
	body, ok := t[p]
	switch {
	case !ok:
		return bootspec.File{}, fs.ErrNotExist
	case body == nil:
		return bootspec.File{}, errors.New("a frame is damaged")
	}
	return bootspec.File{ReaderAt: bytes.NewReader(body), Size: int64(len(body)), Digest: fmt.Sprint(len(body))}, nil
}

// but is the tree with some files taken out or put in.
func (t tree) but(with tree, without ...string) tree {
	out := tree{}
	for p, b := range t {
		out[p] = b
	}
	for _, p := range without {
		delete(out, p)
	}
	for p, b := range with {
		out[p] = b
	}
	return out
}

func files(paths ...string) tree {
	t := tree{}
	for _, p := range paths {
		t[p] = []byte(p)
	}
	return t
}

// booting judges a root that a node boots by a spec; change may be nil.
func booting(spec imagefmt.Boot) func(with tree, change func(*imagefmt.Node)) []Finding {
	return func(with tree, change func(*imagefmt.Node)) []Finding {
		n := imagefmt.Node{Name: "n1", Boot: spec, Root: "nfs"}
		if change != nil {
			change(&n)
		}
		return new(Nodes).Check(Node{n, with})
	}
}

func TestLinuxRoots(t *testing.T) {
	good := files("/boot/vmlinuz", "/boot/initrd.img", "/boot/ipxe.kpxe", "/sbin/init", "/usr/sbin/rhizome-early", "/usr/sbin/rhizome-node")
	spec := imagefmt.Boot{OS: "linux", Kernel: "/boot/vmlinuz", Initrd: "/boot/initrd.img", BIOS: "/boot/ipxe.kpxe", Cmdline: "root=/dev/nfs ro init=/usr/sbin/rhizome-early"}
	check := booting(spec)
	says(t, check(good, nil))
	says(t, check(good.but(nil, "/boot/initrd.img"), nil), "error: image|the boot spec names /boot/initrd.img")
	says(t, check(good.but(tree{"/boot/vmlinuz": {}}), nil), "error: image|/boot/vmlinuz, and the root does not hold it, or it is empty")
	says(t, check(good.but(tree{"/boot/vmlinuz": nil}), nil), "error: image|/boot/vmlinuz cannot be read: a frame is damaged", "error: image|the boot spec names /boot/vmlinuz")
	says(t, check(good.but(nil, "/sbin/init"), nil), "error: image|no init")
	says(t, check(good.but(files("/usr/lib/systemd/systemd"), "/sbin/init"), nil))
	says(t, check(good.but(nil, "/usr/sbin/rhizome-early"), nil), "error: image|told to start /usr/sbin/rhizome-early")
	says(t, check(good.but(nil, "/usr/sbin/rhizome-node"), nil), "error: image|/usr/sbin/rhizome-node is not")
	says(t, check(good, func(n *imagefmt.Node) { n.Boot.Cmdline, n.Root, n.Shared = "", "ram", "/shared" }),
		`error: image|the root mode "ram" needs the early script`, "warning: image|nothing mounts /shared")
	says(t, check(good, func(n *imagefmt.Node) { n.Boot.BIOS = "" }), "warning: image|names no boot program")
	says(t, check(good, func(n *imagefmt.Node) { n.Boot.BIOS, n.Boot.Kernel = "", "" }), "error: image|nothing to boot")
	says(t, check(good.but(tree{"/etc/fstab": []byte("# made\nserver:/x /x nfs rw, noatime 0 0\n/dev/nfs / nfs ro 0 0\n")}), nil),
		"error: image|/etc/fstab:2: the fstab line has a space in its options; write the options without spaces", "error: image|/etc/fstab:3: the fstab line mounts the root")
}

func freebsdRoot() tree {
	t := files("/boot/pxeboot", "/boot/lua/loader.lua", "/sbin/init", "/sbin/rhizome-early", "/sbin/rhizome-node",
		"/etc/rc", "/etc/rc.subr", "/etc/rc.initdiskless", "/etc/defaults/rc.conf", "/etc/rc.d/netif", "/etc/master.passwd", "/etc/pwd.db", "/etc/spwd.db",
		"/etc/group", "/etc/login.conf", "/etc/ttys", "/etc/gettytab", "/etc/termcap", "/boot/device.hints")
	t["/boot/kernel/kernel"] = kernel("15.1", false)
	return t
}

// kernel is the texts of a kernel, the last of them across the pieces that it
// is read in.
func kernel(release string, bootp bool) []byte {
	b := append(bytes.Repeat([]byte{'x'}, 1<<20-10), "@(#)FreeBSD "+release+"-RELEASE-p1 GENERIC\n"...)
	b = append(b, bytes.Repeat([]byte{'y'}, 3<<20/2)...)
	if bootp {
		b = append(append(b, bytes.Repeat([]byte{'z'}, 1<<19-100)...), "bootpc_call\x00"...)
	}
	return b
}

func TestFreeBSDRoots(t *testing.T) {
	good := freebsdRoot()
	spec := imagefmt.Boot{OS: "freebsd", Kernel: "/boot/kernel/kernel", BIOS: "/boot/pxeboot", Kenv: []string{"init_script=/sbin/rhizome-early"}}
	check := booting(spec)
	says(t, check(good, nil))
	says(t, check(good.but(nil, "/boot/lua/loader.lua"), nil), "error: image|the loader stops at its prompt")
	says(t, check(good.but(nil, "/sbin/init"), nil), "error: image|there is no /sbin/init")
	says(t, check(good.but(files("/rescue/init"), "/sbin/init"), func(n *imagefmt.Node) { n.Boot.Kenv = append(n.Boot.Kenv, "init_path=/rescue/init") }))
	says(t, check(good.but(nil, "/sbin/rhizome-early"), nil), "error: image|init is told to run /sbin/rhizome-early first")
	says(t, check(good.but(nil, "/sbin/rhizome-node"), nil), "error: image|/sbin/rhizome-node is not")
	says(t, check(good.but(nil, "/boot/device.hints"), nil), "error: image|no /boot/device.hints, which `make distribution` makes")
	forgotten := good.but(nil, "/etc/rc", "/etc/rc.subr", "/etc/master.passwd", "/etc/pwd.db", "/etc/group", "/etc/ttys")
	says(t, check(forgotten, nil), "error: image|`make distribution` was left out: there is no /etc/rc")
	says(t, check(good, func(n *imagefmt.Node) { n.Boot.BIOS = "" }), "error: image|neither pxeboot nor loader.efi")
	says(t, check(good.but(nil, "/boot/kernel/kernel"), func(n *imagefmt.Node) { n.Boot.Kernel = "" }), "error: image|there is no kernel at /boot/kernel/kernel")
	says(t, check(good.but(tree{"/boot/kernel/kernel": kernel("15.1", true)}), nil), "error: image|is FreeBSD 15 with options BOOTP")
	says(t, check(good.but(tree{"/boot/kernel/kernel": kernel("13.2", true)}), nil))
}

func TestSecretsAndExports(t *testing.T) {
	says(t, Secrets([]Secret{{Node: "n1", File: "/s/key", Mode: 0o600}}))
	says(t, Secrets([]Secret{{Node: "n1", Missing: errors.New(`put it at "/s/key"`)}}), `error: image|put it at "/s/key"`)
	says(t, Secrets([]Secret{{Node: "n1", File: "/s/key", Mode: 0o640}}), "warning: image|chmod 600 /s/key")
	says(t, Exports{Quotas: 10e9, Nodes: 2, Disk: Disk{Total: 20e9}}.Check())
	says(t, Exports{Quotas: 10e9}.Check())
	says(t, Exports{Quotas: 30e9, Nodes: 6, Disk: Disk{Total: 20e9}}.Check(), "warning: host|exports of 6 node(s) may take 30.0 GB together")
	says(t, Exports{Unwritable: map[string]error{"n2": fs.ErrPermission, "n1": fs.ErrPermission}}.Check(), "error: host|cannot be served", "error: host|cannot be served")
	says(t, Gone(map[string]string{"n1": "sha256:1"}), "error: image|runs from sha256:1")
}

func TestBuilding(t *testing.T) {
	says(t, Tools([]error{errors.New(`the program "m4" is not installed`)}), "error: host|m4")
	says(t, Room{Dir: "/c", Free: 2e9, Need: 1e9}.Check())
	says(t, Room{Dir: "/c", Free: 2e9, Need: 10e9}.Check(), `warning: host|may take 10.0 GB in "/c", which has 2.0 GB free`)
	at := recipes.Pos{File: "web.yaml", Line: 3, Column: 5}
	says(t, Recipe(recipes.Findings{{Pos: at, Message: "a MAC used twice", Remedy: "a card is in one node"}, {Pos: at, Severity: recipes.Warning, Message: "no media"}}),
		"error: recipe|web.yaml:3:5: a MAC used twice; a card is in one node", "warning: recipe|no media")
	world := recipes.Recipe{OS: "freebsd", Stages: []recipes.Stage{{World: &recipes.World{}}, {Kernel: &recipes.Kernel{}}}}
	if cache, _ := Needs(&world); cache != 15e9 {
		t.Errorf("a world and a kernel take %d", cache)
	}
}

// What nodes share is said once, with their names.
func TestMergeNamesTheNodes(t *testing.T) {
	var all []Finding
	for i := range 7 {
		all = append(all, Finding{Error, AboutImage, []string{fmt.Sprintf("n%d", i+1)}, "no init", "add one"})
	}
	all = append(all, Finding{Warning, AboutHost, nil, "low", ""}, Finding{Error, AboutImage, []string{"n9"}, "no kernel", ""})
	merged := Merge(all)
	var b strings.Builder
	if err := Write(&b, merged); err != nil {
		t.Fatal(err)
	}
	const want = "error: nodes n1, n2, n3 and 4 more: no init\n    add one\nwarning: host: low\nerror: node n9: no kernel\n"
	if b.String() != want {
		t.Errorf("got %s", b.String())
	}
	if len(merged[0].Nodes) != 7 {
		t.Errorf("%v", merged[0].Nodes)
	}
	if errs, warnings := Count(merged); errs != 2 || warnings != 1 {
		t.Errorf("%d, %d", errs, warnings)
	}
}
