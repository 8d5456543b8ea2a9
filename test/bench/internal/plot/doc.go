// Package plot draws figures as SVG: how samples are distributed, and bars to
// compare. It draws just what the documents need, with fonts and colours that
// can be read on any page and by people who see fewer colours.
package plot
