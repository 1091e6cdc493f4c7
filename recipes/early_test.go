package recipes

import (
	"os"
	"strings"
	"testing"
)

const earlyRecipe = `
version: 1
name: web
os: linux
epoch: 2026-11-01T00:00:00Z
source: {debian: bookworm}
precache: {paths: [/usr/bin]}
stages: [{kernel: {}}, {media: {ipxe: true}}%STAGES]
network: {subnet: 10.77.0.0/24, server: 10.77.0.1}
nodes:
  - {name: n1, mac: "52:54:00:77:00:01", address: 10.77.0.11%KEYS}
`

// What only the early script makes true would be silently without effect.
func TestKeysOfTheEarlyScriptNeedItsStage(t *testing.T) {
	for keys, says := range map[string]string{
		"root: precache":                      `the root mode "precache" needs the stage "early"`,
		"root: ram":                           `the root mode "ram" needs the stage "early"`,
		"etc: volatile":                       `etc: volatile needs the stage "early"`,
		"etc: persistent":                     `etc: persistent needs the stage "early"`,
		"shared: /shared":                     `shared: "/shared" needs the stage "early"`,
		"persist: /persist":                   `nothing mounts "/persist"`,
		"persist: /x, shared: /x, etc: none":  `"/x" cannot be where the cluster's writable export is mounted`,
		"shared: relative, root: nfs":         `"relative" cannot be where`,
		"root: nfs, etc: none, persist: none": "",
	} {
		text := strings.Replace(earlyRecipe, "%KEYS", ", "+keys, 1)
		for stages, more := range map[string]string{"": says, ", {early: {}}": "", ", {early: {}, nodes: n2*}": says} {
			if strings.Contains(says, "cannot be where") {
				more = says
			}
			if strings.Contains(stages, "n2") {
				text := strings.Replace(text, "nodes:", "nodes:\n  - {name: n2, mac: \"52:54:00:77:00:02\", address: 10.77.0.12}", 1)
				checkSays(t, strings.Replace(text, "%STAGES", stages, 1), more)
				continue
			}
			checkSays(t, strings.Replace(text, "%STAGES", stages, 1), more)
		}
	}
}

func checkSays(t *testing.T, text, says string) {
	t.Helper()
	_, found := Check("test.yaml", []byte(text), os.DirFS(t.TempDir()))
	all := ""
	for _, f := range found {
		all += f.String() + "\n"
	}
	if says == "" && all != "" || !strings.Contains(all, says) {
		t.Errorf("got %q, want %q for\n%s", all, says, text)
	}
}

func TestTwoEarlyStagesAreRefused(t *testing.T) {
	text := strings.NewReplacer("%STAGES", ", {early: {}}, {early: {}}", "%KEYS", "").Replace(earlyRecipe)
	checkSays(t, text, `the stage "early" is there twice`)
}
