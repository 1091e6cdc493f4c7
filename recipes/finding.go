package recipes

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Severity says whether a finding stops a build.
type Severity uint8

// An Error stops lint and build; a Warning is printed and nothing more.
const (
	Error Severity = iota
	Warning
)

// Finding is one thing that is wrong with a recipe, with its place, and what
// to do about it where that is known.
type Finding struct {
	Pos      Pos
	Severity Severity
	Message  string
	Remedy   string
}

// String gives the place as compilers do, "file:line:column", so that editors
// can jump to it. Parts of the place that are not known are left out.
func (p Pos) String() string {
	switch {
	case p.Line == 0:
		return p.File
	case p.Column == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// String is the line that lint prints: "file:line:column: message; remedy".
func (f Finding) String() string {
	var b strings.Builder
	b.WriteString(f.Pos.String())
	b.WriteString(": ")
	if f.Severity == Warning {
		b.WriteString("warning: ")
	}
	b.WriteString(f.Message)
	if f.Remedy != "" {
		b.WriteString("; ")
		b.WriteString(f.Remedy)
	}
	return b.String()
}

// Findings is all that is wrong with a recipe.
type Findings []Finding

// Errors counts the findings that stop a build.
func (fs Findings) Errors() int {
	n := 0
	for _, f := range fs {
		if f.Severity == Error {
			n++
		}
	}
	return n
}

// Err is nil where nothing stops a build; otherwise a *InvalidError.
func (fs Findings) Err() error {
	if fs.Errors() == 0 {
		return nil
	}
	return &InvalidError{Findings: fs}
}

// Sorted returns the findings in the order of their places, each once.
func (fs Findings) Sorted() Findings {
	out := slices.Clone(fs)
	slices.SortStableFunc(out, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Pos.File, b.Pos.File), cmp.Compare(a.Pos.Line, b.Pos.Line),
			cmp.Compare(a.Pos.Column, b.Pos.Column), cmp.Compare(a.Severity, b.Severity), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(out)
}

// InvalidError says that a recipe cannot be built. A caller finds the single
// findings in it and exits with the code for an invalid recipe.
type InvalidError struct{ Findings Findings }

// Error lists every finding, one a line.
func (e *InvalidError) Error() string {
	lines := make([]string, len(e.Findings))
	for i, f := range e.Findings {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}

// places remembers where a mapping's values stand in the file, by key, so that
// validation can point at the very value.
type places struct{ of map[string]Pos }

func (p *places) place(key string, at Pos) {
	if p.of == nil {
		p.of = map[string]Pos{}
	}
	p.of[key] = at
}

// at returns the place of a key's value, or the fallback where the recipe does
// not name the key.
func (p places) at(key string, fallback Pos) Pos {
	if pos, ok := p.of[key]; ok {
		return pos
	}
	return fallback
}
