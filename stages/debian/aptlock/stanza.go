package aptlock

import (
	"fmt"
	"strings"
)

// Stanza is one paragraph of a control file: field names in lower case, values
// with their continuation lines (deb822(5)).
type Stanza map[string]string

// parseStanzas reads a control file. Lines that begin with "#" are comments;
// an empty line ends a paragraph.
func parseStanzas(text string) ([]Stanza, error) {
	var all []Stanza
	cur, field := Stanza{}, ""
	for i, line := range strings.Split(text+"\n\n", "\n") {
		line = strings.TrimSuffix(line, "\r")
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			if len(cur) > 0 {
				all = append(all, cur)
			}
			cur, field = Stanza{}, ""
		case line[0] == ' ' || line[0] == '\t':
			if field == "" {
				return nil, fmt.Errorf("line %d: %q continues no field", i+1, line)
			}
			cur[field] += "\n" + strings.TrimSpace(line)
		default:
			name, value, ok := strings.Cut(line, ":")
			if !ok || strings.TrimSpace(name) == "" {
				return nil, fmt.Errorf("line %d: %q is not \"Field: value\"", i+1, line)
			}
			field = strings.ToLower(strings.TrimSpace(name))
			cur[field] = strings.TrimSpace(value)
		}
	}
	return all, nil
}
