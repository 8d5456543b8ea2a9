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
		Distribution{Title: "One at a time", Unit: "ms", Series: []Series{{"ours", []float64{3, 1, 2}}, {"other", []float64{4, 5}}, {"empty", nil}}},
		Bars{Title: "Eight & more", Unit: "ms", Groups: []string{"prepare", "unprepare"}, Series: []Series{{"ours", []float64{12.34, 8}}, {"other", []float64{40}}}},
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

func TestStep(t *testing.T) {
	for most, want := range map[float64]float64{5: 1, 6: 1, 7: 2, 23: 5, 100: 20, 0.4: 0.1} {
		if got := step(most); got < want*0.999 || got > want*1.001 {
			t.Errorf("step for %v: got %v, want %v", most, got, want)
		}
	}
}
