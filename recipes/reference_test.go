package recipes

import (
	"os"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

const (
	keysBegin = "<!-- keys: written by \"go test ./recipes -run Reference -update\" -->\n"
	keysEnd   = "<!-- end of keys -->\n"
)

// The reference is made of the tables by which recipes are read, so it cannot
// name a key that is not there, or leave one out.
func TestReferenceInDocsIsThatOfTheDecoder(t *testing.T) {
	const file = "../docs/recipes.md"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, okBegin := strings.Cut(string(data), keysBegin)
	_, tail, okEnd := strings.Cut(rest, keysEnd)
	if !okBegin || !okEnd {
		t.Fatalf("%s has lost the marks around its keys", file)
	}
	want := head + keysBegin + "\n" + Reference() + keysEnd + tail
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(data) != want {
		t.Errorf("%s is not up to date: run go test ./recipes -run Reference -update", file)
	}
}

func TestEveryExampleOfTheReferenceIsTaken(t *testing.T) {
	examples(t, recipeKeys())
	examples(t, sourceKeys())
	examples(t, srcKeys())
	examples(t, distsKeys())
	examples(t, ociKeys())
	examples(t, debianKeys())
	examples(t, stageKeys())
	examples(t, worldKeys())
	examples(t, earlyKeys())
	examples(t, kernelKeys())
	examples(t, packagesKeys())
	examples(t, filesKeys())
	examples(t, scriptKeys())
	examples(t, mediaKeys())
	examples(t, precacheKeys())
	examples(t, networkKeys())
	examples(t, nodeKeys())
	examples(t, secretKeys())
}

func examples[T any](t *testing.T, m mapping[T]) {
	t.Helper()
	for _, k := range m.keys {
		var doc yaml.Node
		if err := yaml.Load([]byte(k.example), &doc); err != nil {
			t.Errorf("%s, %s: %v", m.title, k.name, err)
			continue
		}
		d, into, pair := &decoder{file: k.name}, new(T), doc.Content[0].Content
		if len(pair) != 2 || pair[0].Value != k.name {
			t.Errorf("%s, %s: the example %q is of another key", m.title, k.name, k.example)
			continue
		}
		m.pair(d, pair[0], pair[1], map[string]int{}, into)
		if len(d.findings) > 0 {
			t.Errorf("%s, %s: the example %q: %v", m.title, k.name, k.example, d.findings)
		}
		if k.doc == "" || k.shape == "" {
			t.Errorf("%s, %s has no description", m.title, k.name)
		}
	}
}

func TestTheRecipeInDocsIsValid(t *testing.T) {
	data, err := os.ReadFile("../docs/recipes.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "```yaml\n")
	text, _, _ := strings.Cut(rest, "```")
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/overlay", 0o755); err != nil {
		t.Fatal(err)
	}
	if r, found := Check("web.yaml", []byte(text), os.DirFS(dir)); len(found) > 0 || len(r.Nodes) != 64 {
		t.Errorf("%v", found)
	}
}
