// Package plot draws lines over labelled axes as an SVG picture.
package plot

import (
	"cmp"
	"fmt"
	"html"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Point is one value of a line.
type Point struct{ X, Y float64 }

// Line is a line with its name and colour.
type Line struct {
	Name, Colour string
	Points       []Point
}

// Plot is a picture. Y runs from 0 to MaxY, X from 0 to the largest of all.
type Plot struct {
	Title, X, Y string
	MaxY        float64
	Lines       []Line
}

// The picture's size and the plot's place in it.
const (
	width, height = 760, 440
	left, right   = 70, 640
	top, bottom   = 60, 380
)

// SVG draws the plot.
func (p Plot) SVG() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", width, height)
	text(&b, left, 30, "start", "#222222", ` font-size="16"`, p.Title)
	maxX := p.maxX()
	p.grid(&b, maxX)
	for _, l := range p.Lines {
		p.line(&b, l, maxX)
	}
	p.names(&b, maxX)
	b.WriteString("</svg>\n")
	return []byte(b.String())
}

func (p Plot) maxX() float64 {
	m := 0.0
	for _, l := range p.Lines {
		for _, at := range l.Points {
			m = max(m, at.X)
		}
	}
	if m == 0 {
		return 1
	}
	return m
}

// grid draws the axes with their ticks and names.
func (p Plot) grid(b *strings.Builder, maxX float64) {
	for _, y := range ticks(p.MaxY) {
		at := placeY(y, p.MaxY)
		fmt.Fprintf(b, `<path d="M%d %.1fH%d" stroke="#dddddd"/>`+"\n", left, at, right)
		text(b, left-8, at+4, "end", "#444444", "", number(y))
	}
	for _, x := range ticks(maxX) {
		at := placeX(x, maxX)
		fmt.Fprintf(b, `<path d="M%.1f %dv5" stroke="#444444"/>`+"\n", at, bottom)
		text(b, at, bottom+20, "middle", "#444444", "", number(x))
	}
	fmt.Fprintf(b, `<path d="M%d %dV%dH%d" fill="none" stroke="#444444"/>`+"\n", left, top, bottom, right)
	text(b, (left+right)/2, bottom+45, "middle", "#222222", "", p.X)
	text(b, 0, 0, "middle", "#222222", fmt.Sprintf(` transform="translate(22 %d) rotate(-90)"`, (top+bottom)/2), p.Y)
}

// line draws a line.
func (p Plot) line(b *strings.Builder, l Line, maxX float64) {
	var d strings.Builder
	for i, at := range l.Points {
		letter := "L"
		if i == 0 {
			letter = "M"
		}
		fmt.Fprintf(&d, "%s%.1f %.1f", letter, placeX(at.X, maxX), placeY(at.Y, p.MaxY))
	}
	fmt.Fprintf(b, `<path d="%s" fill="none" stroke="%s" stroke-width="2" stroke-linejoin="round"/>`+"\n", d.String(), l.Colour)
}

// names writes each line's name at its end, the highest first, none over
// another.
func (p Plot) names(b *strings.Builder, maxX float64) {
	lines := slices.DeleteFunc(slices.Clone(p.Lines), func(l Line) bool { return len(l.Points) == 0 })
	end := func(l Line) Point { return l.Points[len(l.Points)-1] }
	slices.SortStableFunc(lines, func(x, y Line) int { return cmp.Compare(end(y).Y, end(x).Y) })
	free := 0.0
	for _, l := range lines {
		y := max(placeY(end(l).Y, p.MaxY)+4, free)
		text(b, placeX(end(l).X, maxX)+8, y, "start", l.Colour, "", l.Name)
		free = y + 17
	}
}

func placeX(x, maxX float64) float64 { return left + x/maxX*(right-left) }
func placeY(y, maxY float64) float64 { return bottom - y/maxY*(bottom-top) }

func text(b *strings.Builder, x, y float64, anchor, colour, more, s string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s" fill="%s"%s>%s</text>`+"\n", x, y, anchor, colour, more, html.EscapeString(s))
}

// ticks are four to ten round numbers from 0 to a value.
func ticks(to float64) []float64 {
	step := math.Pow(10, math.Floor(math.Log10(to)))
	switch {
	case to/step < 2:
		step /= 5
	case to/step < 4:
		step /= 2
	}
	var out []float64
	for i := 0; float64(i)*step <= to*1.0001; i++ {
		out = append(out, float64(i)*step)
	}
	return out
}

func number(x float64) string { return strconv.FormatFloat(x, 'g', 4, 64) }
