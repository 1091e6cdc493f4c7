package aptlock

import (
	"os"
	"strings"
	"testing"
)

// What a Debian 12 machine has in its lists, with the neighbours that people
// add: Docker, PostgreSQL, HashiCorp, Node.
const neighbours = `Types: deb
URIs: http://deb.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb deb-src
# a comment
URIs: http://deb.example/debian-security/
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: https://off.example/debian
Suites: bookworm
Components: main
Enabled: no

Types: deb-src
URIs: http://src.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: https://docker.example/linux/debian
Suites: bookworm
Components: stable
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBFit2ioBEADhWpZ8

Types: deb
URIs: https://node.example/node_20.x
Suites: nodistro
Components: main
`

const oneLines = `# comment
deb http://mirror.example/debian/ bookworm main non-free-firmware   # and a comment
deb-src http://mirror.example/debian bookworm main
deb [arch=arm64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://ports.example/debian bookworm main
deb [ signed-by=/usr/share/keyrings/hashicorp.gpg ] https://hashicorp.example bookworm main
deb http://pg.example/apt bookworm-pgdg main
deb http://flat.example ./
deb	http://tab.example/debian	bookworm-updates	main
`

func TestOnlyDebiansOwnArchivesOfTheSuiteAreTaken(t *testing.T) {
	a, err := ParseSources(neighbours)
	if err != nil {
		t.Fatal(err)
	}
	b, err := ParseList(oneLines)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		suite, arch string
		components  []string
		want        string
	}{
		"amd64": {"bookworm", "amd64", []string{"main"}, `deb http://deb.example/debian bookworm main
deb http://deb.example/debian bookworm-updates main
deb http://deb.example/debian-security bookworm-security main
deb http://mirror.example/debian bookworm main
deb http://tab.example/debian bookworm-updates main`},
		"another component": {"bookworm", "amd64", []string{"non-free-firmware"}, `deb http://mirror.example/debian bookworm non-free-firmware`},
		"another machine's": {"bookworm", "arm64", []string{"main"}, `deb http://deb.example/debian bookworm main
deb http://deb.example/debian bookworm-updates main
deb http://deb.example/debian-security bookworm-security main
deb http://mirror.example/debian bookworm main
deb http://ports.example/debian bookworm main
deb http://tab.example/debian bookworm-updates main`},
		"Docker's":      {"bookworm", "amd64", []string{"stable"}, ""},
		"Node's":        {"nodistro", "amd64", []string{"contrib"}, ""},
		"another suite": {"trixie", "amd64", []string{"main"}, ""},
	} {
		var got []string
		for _, s := range ForSuite(append(append([]Source{}, a...), b...), c.suite, c.arch, c.components, DefaultKeyring) {
			got = append(got, strings.Replace(s.line(c.arch), "[arch="+c.arch+" signed-by="+DefaultKeyring+"] ", "", 1))
		}
		if strings.Join(got, "\n") != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, strings.Join(got, "\n"), c.want)
		}
	}
}

func TestAKeyringOfTheRecipesOwnIsDebiansToo(t *testing.T) {
	all := []Source{{URI: "http://m", Suite: "x", Components: []string{"main"}, SignedBy: "/etc/keys/ours.gpg"}}
	if got := ForSuite(all, "x", "amd64", []string{"main"}, "/etc/keys/ours.gpg"); len(got) != 1 {
		t.Errorf("got %v", got)
	}
	if got := ForSuite(all, "x", "amd64", []string{"main"}, DefaultKeyring); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

func TestABrokenListIsReportedWithItsLine(t *testing.T) {
	for text, want := range map[string]string{
		"deb http://x\n":         `line 1: "deb http://x" names no suite`,
		"\ndeb [arch=x http://x": `line 2: "deb [arch=x http://x" has an option list without its end, "]"`,
	} {
		if _, err := ParseList(text); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	for text, want := range map[string]string{
		"Types: deb\n nonsense\nURIs": `line 3: "URIs" is not "Field: value"`,
		"\n continued":                `line 2: " continued" continues no field`,
	} {
		if _, err := ParseSources(text); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestOfTheMachinesSetUpOnlyTheWayToTheMirrorIsTaken(t *testing.T) {
	dump, err := os.ReadFile("testdata/apt-config.dump")
	if err != nil {
		t.Fatal(err)
	}
	want := `Acquire::http "";
Acquire::http::Proxy "http://proxy.example:3128";
Acquire::https::CAInfo "/etc/ssl/ours.pem";
Acquire::Retries "3";
Acquire::Check-Valid-Until "false";`
	if got := strings.Join(acquireLines(string(dump)), "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestAListThatIsMissingIsNoList(t *testing.T) {
	files, err := listFiles("LIST='/no/such/file'\nPARTS='/no/such/folder/'\n")
	if err != nil || len(files) != 0 {
		t.Errorf("got %v, %v", files, err)
	}
}
