package plot

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestAPictureIsWellFormedAndLabelled(t *testing.T) {
	p := Plot{Title: "a < b & c", X: "MB of memory", Y: "percent", MaxY: 100, Lines: []Line{
		{"calls", "#225588", []Point{{0, 0}, {10, 80}}}, {"bytes", "#aa4422", []Point{{0, 0}, {10, 82}}}, {"none", "#000000", nil},
	}}
	svg := string(p.SVG())
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"a &lt; b &amp; c", ">MB of memory<", ">percent<", ">calls<", ">bytes<", ">100<", ">10<"} {
		if !strings.Contains(svg, want) {
			t.Errorf("no %q in the picture", want)
		}
	}
}

func TestTicksAreRoundAndFew(t *testing.T) {
	for _, to := range []float64{0.3, 1, 7, 19, 100, 127, 399, 5000} {
		if n := len(ticks(to)); n < 4 || n > 11 {
			t.Errorf("%d ticks to %v: %v", n, to, ticks(to))
		}
	}
}
