package plot

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestPictureIsWellFormedAndTellsTheValues(t *testing.T) {
	svg := Picture{Title: "a < b", Panels: []Panel{
		Distribution{Title: "One at a time", Unit: "ms", Series: []Series{
			{Name: "ours", Values: []float64{3, 1, 2}}, {Name: "other", Values: []float64{4, 5}}, {Name: "empty"},
		}},
		Bars{Title: "Eight & more", Unit: "ms", Groups: []string{"prepare", "unprepare"}, Series: []Series{
			{Name: "ours", Values: []float64{12.34, 8}}, {Name: "other", Values: []float64{40}},
		}},
	}}.SVG()
	decoder := xml.NewDecoder(strings.NewReader(svg))
	for {
		_, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
	}
	for _, want := range []string{"a &lt; b", "One at a time", "Eight &amp; more", ">12.3 ms<", ">40.0 ms<", ">other<"} {
		if !strings.Contains(svg, want) {
			t.Errorf("lacks %q", want)
		}
	}
	if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
		t.Errorf("has numbers that are none:\n%s", svg)
	}
}

func TestLengthsOfBars(t *testing.T) {
	series := []Series{{Values: []float64{0.5, 20, 0}}, {Values: []float64{50, 5000, 40}, Labels: []string{"", "gave up", ""}}}
	for _, tc := range []struct {
		name  string
		bars  Bars
		group int
		want  []float64
		text  string
	}{
		{"one scale", Bars{Unit: "ms", Series: series}, 0, []float64{0.0001, 0.01}, "50.0 ms"},
		{"a scale for each group", Bars{Units: []string{"ms", "s", "pods/s"}, Series: series}, 2, []float64{0, 1}, "40.0 pods/s"},
		{"logarithms", Bars{Unit: "ms", Log: true, Series: series}, 0, []float64{0.149, 0.574}, "50.0 ms"},
		{"a label", Bars{Unit: "ms", Series: series}, 1, []float64{0.004, 1}, "gave up"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			share, ok := tc.bars.scale(tc.group)
			if !ok {
				t.Fatal("there is no scale")
			}
			for n, want := range tc.want {
				if got := share(tc.bars.Series[n].Values[tc.group]); got < want-0.001 || got > want+0.001 {
					t.Errorf("bar %d has the length %v, want %v", n, got, want)
				}
			}
			if got := tc.bars.value(tc.bars.Series[1], tc.group); got != tc.text {
				t.Errorf("text %q, want %q", got, tc.text)
			}
		})
	}
	if _, ok := (Bars{Series: []Series{{Values: []float64{0}}}}).scale(0); ok {
		t.Error("bars without a length have a scale")
	}
}

func TestStep(t *testing.T) {
	for most, want := range map[float64]float64{5: 1, 6: 1, 7: 2, 23: 5, 100: 20, 0.4: 0.1} {
		if got := step(most); got < want*0.999 || got > want*1.001 {
			t.Errorf("step for %v: got %v, want %v", most, got, want)
		}
	}
}
