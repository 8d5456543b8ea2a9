package plot

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Sizes are in pixels of the picture, which pages scale.
const (
	fontSize  = 14
	titleSize = 16
	ink       = "#1a1a1a"
	faint     = "#d9d9d9"
	quiet     = "#595959"
)

// Series is the samples of one driver, or of one of the things compared.
type Series struct {
	Name   string
	Values []float64
	// Labels are shown instead of the values of bars, where they are not empty.
	Labels []string
}

// Picture is panels beside each other.
type Picture struct {
	// Title says what the picture shows, also to those who cannot see it.
	Title  string
	Panels []Panel
}

// Panel is a part of a picture.
type Panel interface {
	draw(c *canvas)
}

const (
	panelWidth, panelHeight = 520, 400
	margin                  = 16
)

// SVG returns the picture.
func (p Picture) SVG() string {
	width := panelWidth*len(p.Panels) + margin
	c := &canvas{}
	fmt.Fprintf(&c.out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" font-family="Helvetica, Arial, 'DejaVu Sans', sans-serif" font-size="%d">`+"\n",
		width, panelHeight, width, panelHeight, fontSize)
	fmt.Fprintf(&c.out, "<title>%s</title>\n", html.EscapeString(p.Title))
	// Pages may be dark.
	fmt.Fprintf(&c.out, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", width, panelHeight)
	for n, panel := range p.Panels {
		c.left = float64(margin + n*panelWidth)
		panel.draw(c)
	}
	c.out.WriteString("</svg>\n")
	return c.out.String()
}

// colour is that of the nth series: blue and orange, which everyone can tell
// apart.
func colour(n int) string {
	colours := []string{"#0b5fa5", "#d1600a", "#4d4d4d"}
	return colours[n%len(colours)]
}

// canvas draws with coordinates that count from the left edge of a panel.
type canvas struct {
	out  strings.Builder
	left float64
}

type style struct {
	colour string
	size   int
	anchor string
	bold   bool
}

func (c *canvas) text(x, y float64, s style, format string, args ...any) {
	if s.colour == "" {
		s.colour = ink
	}
	if s.size == 0 {
		s.size = fontSize
	}
	if s.anchor == "" {
		s.anchor = "start"
	}
	weight := "normal"
	if s.bold {
		weight = "bold"
	}
	fmt.Fprintf(&c.out, `<text x="%.1f" y="%.1f" fill="%s" font-size="%d" font-weight="%s" text-anchor="%s">%s</text>`+"\n",
		c.left+x, y, s.colour, s.size, weight, s.anchor, html.EscapeString(fmt.Sprintf(format, args...)))
}

func (c *canvas) line(x1, y1, x2, y2 float64, colour string) {
	fmt.Fprintf(&c.out, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s"/>`+"\n", c.left+x1, y1, c.left+x2, y2, colour)
}

func (c *canvas) rect(x, y, width, height float64, colour string) {
	fmt.Fprintf(&c.out, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`+"\n", c.left+x, y, width, height, colour)
}

// path draws a line through points.
func (c *canvas) path(points [][2]float64, colour string) {
	c.out.WriteString(`<polyline fill="none" stroke-width="2.5" stroke="` + colour + `" points="`)
	for _, p := range points {
		fmt.Fprintf(&c.out, "%.1f,%.1f ", c.left+p[0], p[1])
	}
	c.out.WriteString(`"/>` + "\n")
}

// step is a round distance between ticks such that about five fit below most.
func step(most float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(most/5)))
	for _, factor := range []float64{1, 2, 5} {
		if most/(factor*power) <= 6 {
			return factor * power
		}
	}
	return 10 * power
}
