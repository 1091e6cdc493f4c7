package doctor

import (
	"fmt"

	"rhizome/recipes"
)

// Recipe gives what lint found.
func Recipe(all recipes.Findings) (out []Finding) {
	for _, l := range all {
		f := findings{what: AboutRecipe}
		f.add(severityOf(l), l.Remedy, "%s: %s", l.Pos, l.Message)
		out = append(out, f.all...)
	}
	return out
}

func severityOf(f recipes.Finding) Severity {
	if f.Severity == recipes.Warning {
		return Warning
	}
	return Error
}

// Needs is what building a recipe anew takes on the disk of downloads and
// objects, and on that of the store, in bytes: what was seen of FreeBSD 15.1 and
// of Debian 12, rounded up.
func Needs(r *recipes.Recipe) (cache, store int64) {
	const gb = int64(1e9)
	store = gb
	for _, s := range r.Stages {
		switch {
		case s.World != nil:
			cache += 10 * gb
		case s.Kernel != nil && r.OS == "freebsd":
			cache += 5 * gb
		}
	}
	if r.Source.Debian != nil {
		cache, store = cache+gb, store+3*gb
	}
	return cache, store
}

// String is a finding in one line.
func (f Finding) String() string {
	return fmt.Sprintf("%s: %s: %s; %s", f.Severity, f.What, f.Message, f.Remedy)
}
