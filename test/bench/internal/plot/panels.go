package plot

import (
	"math"
	"slices"
	"strconv"
)

const (
	plotLeft, plotRight = 56, 496
	plotTop, plotBottom = 84, 344
)

// Distribution shows what share of the samples is not above a value.
type Distribution struct {
	Title string
	// Unit is that of the samples.
	Unit   string
	Series []Series
}

func (d Distribution) draw(c *canvas) {
	c.text(0, 26, style{size: titleSize, bold: true}, "%s", d.Title)
	most := 0.0
	for n, s := range d.Series {
		sorted := slices.Sorted(slices.Values(s.Values))
		if len(sorted) == 0 {
			continue
		}
		// The slowest few would squeeze all the others.
		most = max(most, sorted[len(sorted)*99/100]*1.15)
		at := float64(n) * min(220, panelWidth/float64(len(d.Series)))
		c.rect(at, 44, 14, 14, colour(n))
		c.text(at+20, 56, style{}, "%s", s.Name)
	}
	if most == 0 {
		return
	}
	x := func(value float64) float64 { return plotLeft + (plotRight-plotLeft)*min(value/most, 1) }
	y := func(share float64) float64 { return plotBottom - (plotBottom-plotTop)*share }
	for _, percent := range []float64{0, 25, 50, 75, 99} {
		c.line(plotLeft, y(percent/100), plotRight, y(percent/100), faint)
		c.text(plotLeft-8, y(percent/100)+5, style{anchor: "end", colour: quiet}, "%.0f%%", percent)
	}
	for tick, by := 0.0, step(most); tick <= most; tick += by {
		c.line(x(tick), plotBottom, x(tick), plotBottom+5, quiet)
		c.text(x(tick), plotBottom+22, style{anchor: "middle", colour: quiet}, "%s", strconv.FormatFloat(tick, 'g', 4, 64))
	}
	c.text((plotLeft+plotRight)/2, plotBottom+44, style{anchor: "middle", colour: quiet}, "%s", d.Unit)
	for n, s := range d.Series {
		c.path(curve(slices.Sorted(slices.Values(s.Values)), most, x, y), colour(n))
	}
}

// curve is the distribution of sorted samples as a line of steps.
func curve(sorted []float64, most float64, x, y func(float64) float64) [][2]float64 {
	points := [][2]float64{{x(0), y(0)}}
	for i, value := range sorted {
		if value > most {
			break
		}
		points = append(points, [2]float64{x(value), y(float64(i) / float64(len(sorted)))},
			[2]float64{x(value), y(float64(i+1) / float64(len(sorted)))})
	}
	return points
}

// Bars compares values, group by group.
type Bars struct {
	Title string
	// Unit is that of the values.
	Unit string
	// Groups are the labels of the values of each series.
	Groups []string
	Series []Series
	// Units, if there are any, are those of the groups, each of which then has a
	// scale of its own.
	Units []string
	// Log gives ten times the value one more step of length.
	Log bool
	// Legend tells which colour is which series, where no panel beside does.
	Legend bool
}

func (b Bars) draw(c *canvas) {
	c.text(0, 26, style{size: titleSize, bold: true}, "%s", b.Title)
	if b.Legend {
		b.legend(c)
	}
	// Room for the value behind the longest bar.
	const right = plotRight - 90
	height := float64(plotBottom-plotTop) / float64(len(b.Groups))
	bar := min((height-34)/float64(len(b.Series)), 40)
	for g, label := range b.Groups {
		share, ok := b.scale(g)
		if !ok {
			continue
		}
		top := plotTop - 20 + float64(g)*height
		c.text(0, top+14, style{}, "%s", label)
		for n, s := range b.Series {
			if g >= len(s.Values) {
				continue
			}
			y := top + 24 + float64(n)*bar
			width := right * share(s.Values[g])
			c.rect(0, y, width, bar-4, colour(n))
			c.text(width+8, y+bar/2+3, style{colour: colour(n), bold: true}, "%s", b.value(s, g))
		}
	}
	c.line(0, plotTop-4, 0, plotBottom+10, quiet)
}

func (b Bars) legend(c *canvas) {
	const square, letter = 14, 7.5
	x := 0.0
	for n, s := range b.Series {
		c.rect(x, 44, square, square, colour(n))
		c.text(x+20, 56, style{}, "%s", s.Name)
		x += 44 + letter*float64(len(s.Name))
	}
}

// scale returns the share of the longest bar that a value of a group has. There
// is none where no value is above zero.
func (b Bars) scale(group int) (func(float64) float64, bool) {
	least, most := math.Inf(1), 0.0
	for _, s := range b.Series {
		for g, value := range s.Values {
			if value <= 0 || len(b.Units) > 0 && g != group {
				continue
			}
			least, most = min(least, value), max(most, value)
		}
	}
	if most == 0 {
		return nil, false
	}
	if !b.Log {
		return func(value float64) float64 { return value / most }, true
	}
	// The shortest bar has at least a tenth of a step.
	origin := math.Floor(math.Log10(least) - 0.1)
	return func(value float64) float64 {
		if value <= 0 {
			return 0
		}
		return (math.Log10(value) - origin) / (math.Log10(most) - origin)
	}, true
}

// value is the text behind a bar.
func (b Bars) value(s Series, group int) string {
	if group < len(s.Labels) && s.Labels[group] != "" {
		return s.Labels[group]
	}
	unit := b.Unit
	if len(b.Units) > 0 {
		unit = b.Units[group]
	}
	digits := 1
	if b.Log && s.Values[group] < 1 {
		digits = 2
	}
	return strconv.FormatFloat(s.Values[group], 'f', digits, 64) + " " + unit
}
