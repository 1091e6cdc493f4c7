package recipes

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// MaxRecipe is the largest recipe that is read, in bytes. A recipe is written
// by hand; what is larger is some other file given by mistake.
const MaxRecipe = 1 << 20

// maxFindings bounds what one file can make us report.
const maxFindings = 200

// maxDepth is how deep a recipe may nest. Its own schema ends at 8.
const maxDepth = 32

// decoder walks a tree of YAML nodes and collects what is wrong with it.
type decoder struct {
	file     string
	findings Findings
	// key is the path of the key whose value is being read, within the
	// mapping that is being filled.
	key string
}

func (d *decoder) pos(n *yaml.Node) Pos { return Pos{File: d.file, Line: n.Line, Column: n.Column} }

func (d *decoder) fail(n *yaml.Node, message, remedy string) { d.failAt(d.pos(n), message, remedy) }

func (d *decoder) failAt(at Pos, message, remedy string) {
	switch {
	case len(d.findings) < maxFindings:
		d.findings = append(d.findings, Finding{Pos: at, Message: message, Remedy: remedy})
	case len(d.findings) == maxFindings:
		d.findings = append(d.findings, Finding{Pos: at, Message: fmt.Sprintf("more than %d findings; the rest is left out", maxFindings)})
	}
}

// document reads the one YAML document that a recipe consists of, down to its
// tree of nodes, or returns nil and has reported why not.
func (d *decoder) document(data []byte) *yaml.Node {
	if at, message, remedy := refuseBytes(data); message != "" {
		at.File = d.file
		d.failAt(at, message, remedy)
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); err != nil {
		d.syntax(data, err)
		return nil
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		if err != nil {
			d.syntax(data, err)
			return nil
		}
		d.fail(&more, "a second YAML document begins here", "a recipe is one document: remove what follows \"---\", or put it into a file of its own")
		return nil
	}
	root := doc.Content[0]
	if !d.plain(root, 0) {
		return nil
	}
	return root
}

// refuseBytes looks at what YAML itself would not explain well.
func refuseBytes(data []byte) (at Pos, message, remedy string) {
	switch {
	case len(data) > MaxRecipe:
		return at, fmt.Sprintf("the file has %d bytes; a recipe has at most %d", len(data), MaxRecipe), "is this a recipe? Move long lists into files that the recipe names"
	case len(bytes.TrimSpace(data)) == 0:
		return at, "the recipe is empty", "begin with \"version: 1\""
	}
	for i, line := range bytes.Split(data, []byte("\n")) {
		if col := badByte(line); col > 0 {
			return Pos{Line: i + 1, Column: col}, "the file is not UTF-8 text", "save it as UTF-8"
		}
	}
	return at, "", ""
}

// badByte returns the 1-based column of the first byte that no text has.
func badByte(line []byte) int {
	for i := 0; i < len(line); {
		r, n := utf8.DecodeRune(line[i:])
		if r == utf8.RuneError && n == 1 || r == 0 {
			return utf8.RuneCount(line[:i]) + 1
		}
		i += n
	}
	return 0
}

// placed finds the position in an error of the YAML library that carries it in
// its text alone.
var placed = regexp.MustCompile(`^(.*?)\bat L(\d+)\.C(\d+)(?:-L(\d+)\.C(\d+))?: (.*)$`)

func (d *decoder) syntax(data []byte, err error) {
	var l *yaml.LoadError
	at, message := Pos{File: d.file}, err.Error()
	if errors.Is(err, io.EOF) {
		d.failAt(at, "the recipe is empty", "begin with \"version: 1\"")
		return
	}
	if errors.As(err, &l) {
		at.Line, at.Column, message = l.Mark.Line, l.Mark.Column, l.Message
		if l.ContextMsg != "" {
			message = l.ContextMsg + ", " + message
		}
	} else if m := placed.FindStringSubmatch(message); m != nil {
		at.Line, _ = strconv.Atoi(m[2])
		at.Column, _ = strconv.Atoi(m[3])
		message = m[6]
	}
	if col := tab(data, at.Line); col > 0 {
		at.Column = col
		d.failAt(at, "the line is indented with a tab", "YAML is indented with spaces alone")
		return
	}
	d.failAt(at, "this is not YAML: "+message, "quote values that hold \": \" or begin with one of []{}&*!|>%@`, and look at the indentation")
}

// tab returns the 1-based column of a tab in a line's indentation, or 0.
func tab(data []byte, line int) int {
	lines := bytes.SplitN(data, []byte("\n"), line+1)
	if line < 1 || len(lines) < line {
		return 0
	}
	text := lines[line-1]
	indent := text[:len(text)-len(bytes.TrimLeft(text, " \t"))]
	return bytes.IndexByte(indent, '\t') + 1
}

// plain refuses what YAML can do and a recipe needs not: anchors and aliases
// (which let a small file name a huge tree), merge keys and tags.
func (d *decoder) plain(n *yaml.Node, depth int) bool {
	before := len(d.findings)
	switch {
	case depth > maxDepth:
		d.fail(n, fmt.Sprintf("the recipe is nested more than %d deep", maxDepth), "")
		return false
	case n.Kind == yaml.AliasNode:
		d.fail(n, fmt.Sprintf("the alias \"*%s\" is not allowed in a recipe", n.Value), "write a profile, which nodes inherit")
	case n.Anchor != "":
		d.fail(n, fmt.Sprintf("the anchor \"&%s\" is not allowed in a recipe", n.Anchor), "write a profile, which nodes inherit")
	case n.Tag == "!!merge":
		d.fail(n, "the merge key \"<<\" is not allowed in a recipe", "write a profile, which nodes inherit")
	case n.Style&yaml.TaggedStyle != 0, !standardTag(n.Tag):
		d.fail(n, fmt.Sprintf("the tag %q is not allowed in a recipe", n.Tag), "remove it; values need no tags")
	}
	for _, c := range n.Content {
		d.plain(c, depth+1)
	}
	return len(d.findings) == before
}

func standardTag(tag string) bool {
	switch tag {
	case "", "!!map", "!!seq", "!!str", "!!int", "!!float", "!!bool", "!!null", "!!timestamp":
		return true
	}
	return false
}
