package freebsd

import (
	"fmt"
	"strings"
)

// cstyle maps the letter behind a backslash to its byte, as vis(3) writes it
// with VIS_CSTYLE.
var cstyle = map[byte]byte{
	'a': '\a', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t', 'v': '\v',
	's': ' ', 'E': 0x1b, '\\': '\\', '#': '#', '-': '-', '"': '"', '\'': '\'', '*': '*', '?': '?', '[': '[',
}

// unvis undoes vis(3): install(1) writes the paths of a METALOG with
// VIS_OCTAL and the targets of symbolic links with VIS_CSTYLE.
func unvis(s string) (string, error) {
	if !strings.Contains(s, `\`) {
		return s, nil
	}
	var out []byte
	for i := 0; i < len(s); {
		if s[i] != '\\' {
			out = append(out, s[i])
			i++
			continue
		}
		b, n, err := unescape(s[i:])
		if err != nil {
			return "", fmt.Errorf("in %q: %w", s, err)
		}
		out = append(out, b...)
		i += n
	}
	return string(out), nil
}

// unescape reads the one escape that s begins with, and says how many bytes of
// s it took.
func unescape(s string) ([]byte, int, error) {
	if len(s) < 2 {
		return nil, 0, fmt.Errorf("a backslash ends the name")
	}
	c := s[1]
	switch {
	case c >= '0' && c <= '7':
		return octal(s)
	case c == '^' && len(s) > 2:
		return []byte{control(s[2])}, 3, nil
	case c == 'M' && len(s) > 3 && s[2] == '-':
		return []byte{s[3] | 0x80}, 4, nil
	case c == 'M' && len(s) > 3 && s[2] == '^':
		return []byte{control(s[3]) | 0x80}, 4, nil
	case c == '$':
		return nil, 2, nil
	}
	if b, ok := cstyle[c]; ok {
		return []byte{b}, 2, nil
	}
	return nil, 0, fmt.Errorf("%q is no escape of vis(3)", s[:2])
}

// octal reads \0 (vis writes it for NUL where no digit follows) to \377.
func octal(s string) ([]byte, int, error) {
	n, v := 1, 0
	for n < len(s) && n <= 3 && s[n] >= '0' && s[n] <= '7' {
		v = v*8 + int(s[n]-'0')
		n++
	}
	if v > 0xff {
		return nil, 0, fmt.Errorf("%q is larger than a byte", s[:n])
	}
	return []byte{byte(v)}, n, nil
}

func control(c byte) byte {
	if c == '?' {
		return 0x7f
	}
	return c & 0x1f
}
