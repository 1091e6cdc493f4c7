package recipes

import (
	"fmt"
	"strings"
)

// Reference is the table of every key, in Markdown: the very tables by which
// recipes are read.
func Reference() string {
	var b strings.Builder
	describe(&b, "Recipe", recipeKeys())
	describe(&b, "source", sourceKeys())
	describe(&b, "source.src", srcKeys())
	describe(&b, "source.dists", distsKeys())
	describe(&b, "source.oci", ociKeys())
	describe(&b, "source.debian", debianKeys())
	describe(&b, "An element of stages", stageKeys())
	describe(&b, "world", worldKeys())
	describe(&b, "distribution", distributionKeys())
	describe(&b, "early", earlyKeys())
	describe(&b, "kernel", kernelKeys())
	describe(&b, "packages", packagesKeys())
	describe(&b, "files", filesKeys())
	describe(&b, "script", scriptKeys())
	describe(&b, "media", mediaKeys())
	describe(&b, "precache", precacheKeys())
	describe(&b, "network", networkKeys())
	describe(&b, "An element of nodes", identityKeys())
	describe(&b, "A profile, and a node", profileKeys())
	describe(&b, "An element of secrets", secretKeys())
	return b.String()
}

// identityKeys are the keys that a node has and a profile has not.
func identityKeys() mapping[nodeDraft] {
	m := nodeKeys()
	m.keys = m.keys[:len(m.keys)-len(profileKeys().keys)]
	return m
}

func describe[T any](b *strings.Builder, heading string, m mapping[T]) {
	fmt.Fprintf(b, "### %s\n\n", heading)
	if m.intro != "" {
		fmt.Fprintf(b, "%s\n\n", m.intro)
	}
	if m.short != "" {
		fmt.Fprintf(b, "A plain text in its place is its `%s`.\n\n", m.short)
	}
	if len(m.keys) == 0 {
		return
	}
	b.WriteString("| Key | Type | Default | Meaning | Example |\n|---|---|---|---|---|\n")
	for _, k := range m.keys {
		def := k.def
		if k.required {
			def = "required"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s | `%s` |\n", k.name, k.shape, def, k.doc, k.example)
	}
	b.WriteString("\n")
}
