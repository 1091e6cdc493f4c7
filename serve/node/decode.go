package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"

	"rhizome/serve/node/nodeapi"
)

// decode reads one JSON object of at most nodeapi.MaxBody bytes. Unknown keys
// are left out: a newer node may say more.
func decode(r io.Reader, into any) error {
	body, err := io.ReadAll(io.LimitReader(r, nodeapi.MaxBody+1))
	if err != nil {
		return fmt.Errorf("reading the body: %w", err)
	}
	if len(body) > nodeapi.MaxBody {
		return fmt.Errorf("the body is longer than %d bytes", nodeapi.MaxBody)
	}
	d := json.NewDecoder(bytes.NewReader(body))
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("the body is not the JSON that was expected: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more after the JSON object")
	}
	return nil
}

// text bounds what a node can put into an event, and keeps it on one line.
func text(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), nodeapi.MaxText)], "?")
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

// checkWord refuses what cannot be the name of a step or a job.
func checkWord(what, s string) error {
	plain := func(r rune) bool {
		return r < 0x7f && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("._-/ ", r))
	}
	if s == "" || len(s) > 100 || strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return fmt.Errorf("%q is no name of a %s: at most 100 letters, digits, and \"._-/ \"", text(s), what)
	}
	return nil
}

func decodeReport(r io.Reader) (nodeapi.Report, error) {
	var v nodeapi.Report
	if err := decode(r, &v); err != nil {
		return v, err
	}
	if !slices.Contains([]string{nodeapi.Begin, nodeapi.OK, nodeapi.Failed, nodeapi.Skipped}, v.State) {
		return v, fmt.Errorf("a step's state is begin, ok, failed or skipped, not %q", text(v.State))
	}
	v.Message, v.Bytes = text(v.Message), max(0, v.Bytes)
	return v, checkWord("step", v.Step)
}

func decodeUp(r io.Reader) (nodeapi.Up, error) {
	var v nodeapi.Up
	err := decode(r, &v)
	v.Digest, v.Kernel, v.Root = text(v.Digest), text(v.Kernel), text(v.Root)
	return v, err
}

func decodeJob(r io.Reader) (nodeapi.Job, error) {
	var v nodeapi.Job
	if err := decode(r, &v); err != nil {
		return v, err
	}
	if v.State != nodeapi.Begin && v.State != nodeapi.End {
		return v, fmt.Errorf("a job's state is begin or end, not %q", text(v.State))
	}
	return v, checkWord("job", v.Name)
}
