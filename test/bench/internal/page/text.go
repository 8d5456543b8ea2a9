package page

import (
	"fmt"
	"strings"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/figures"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/machine"
)

// Text is the measured part of a document.
type Text struct {
	Conditions machine.Conditions
	// Kubernetes is the cluster's version, Peer the name and version of the
	// driver that ours was compared with, or empty.
	Kubernetes, Peer string
	Report           *figures.Report
	// Plot is the path of a picture, relative to the document, and Caption
	// what it shows.
	Plot, Caption string
}

// String is the text in Markdown.
func (t Text) String() string {
	var out strings.Builder
	c := t.Conditions
	fmt.Fprintf(&out, "Measured on %s.\n\n| condition | |\n|---|---|\n", c.Date.UTC().Format("2 January 2006, 15:04 UTC"))
	peer := t.Peer
	if peer == "" {
		peer = "none"
	}
	for _, row := range [][2]string{
		{"processor", fmt.Sprintf("%d × %s", c.Cores, c.Processor)},
		{"memory", fmt.Sprintf("%.0f GiB", float64(c.MemoryBytes)/(1<<30))},
		{"kernel", c.Kernel},
		{"Kubernetes", t.Kubernetes},
		{"Go of this program", strings.TrimPrefix(c.Go, "go")},
		{"load average over 1 min, before and after", fmt.Sprintf("%.1f and %.1f", c.LoadBefore, c.LoadAfter)},
		{"file system of the plugins' state", c.FileSystem},
		{"a new file of 4 KiB synced to disk there, median", figures.Format(c.SyncMedian) + " ms"},
		{"compared with (peer)", peer},
	} {
		fmt.Fprintf(&out, "| %s | %s |\n", row[0], row[1])
	}
	out.WriteString("\n| figure | unit | ours | peer | ours ÷ peer | demanded | met |\n|---|---|--:|--:|--:|---|---|\n")
	for _, row := range t.Report.Rows {
		out.WriteString(tableRow(row))
	}
	for _, note := range t.Report.Notes {
		fmt.Fprintf(&out, "\n%s\n", note)
	}
	if t.Plot != "" {
		fmt.Fprintf(&out, "\n![%s](%s)\n", t.Caption, t.Plot)
	}
	return out.String()
}

func tableRow(row figures.Row) string {
	peer, ratio := "", ""
	if row.Peer != nil {
		peer = figures.Format(*row.Peer)
		if *row.Peer > 0 {
			ratio = fmt.Sprintf("%.2f", row.Ours/(*row.Peer))
		}
	}
	var demands, met []string
	for _, d := range row.Demands {
		demands = append(demands, d.Text)
		met = append(met, map[bool]string{true: "yes", false: "**no**"}[d.Met])
	}
	return fmt.Sprintf("| `%s` | %s | %s | %s | %s | %s | %s |\n", row.Name, row.Unit, figures.Format(row.Ours), peer, ratio, strings.Join(demands, ", "), strings.Join(met, ", "))
}
