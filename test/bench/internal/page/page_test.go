package page

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/figures"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/machine"
)

func TestReplaceKeepsWhatPeopleWrote(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.md")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# Title\n<!-- bench a: begin -->\nold\n<!-- bench a: end -->\nend\n<!-- bench b: begin -->\nother\n<!-- bench b: end -->\n")
	for range 2 { // the second changes nothing
		if err := Replace(path, "a", "new\n"); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want := "# Title\n<!-- bench a: begin -->\n\nnew\n\n<!-- bench a: end -->\nend\n<!-- bench b: begin -->\nother\n<!-- bench b: end -->\n"
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
	write("# Title\n<!-- bench a: begin -->\n")
	if err := Replace(path, "a", "new"); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "bench a: end") {
		t.Errorf("a section without an end: %v", err)
	}
}

func TestText(t *testing.T) {
	r := &figures.Report{Notes: []string{"x was not measured: no y"}}
	r.Keep("prepare", figures.Ours, figures.Samples{2})
	r.Keep("prepare", figures.Peer, figures.Samples{8})
	r.Keep("start", figures.Ours, figures.Samples{1200})
	r.Add("prepare_p50", "ms", "prepare", figures.Samples.Median, figures.AtMost(6), figures.TimesPeer(0.1))
	r.Add("start", "ms", "start", figures.Samples.Median)
	text := Text{
		Conditions: machine.Conditions{Date: time.Date(2026, 8, 1, 10, 0, 0, 0, time.UTC), Cores: 2, Processor: "Z80"},
		Kubernetes: "v1.37.1", Report: r, Plot: "images/p.svg", Caption: "times",
	}.String()
	for _, want := range []string{
		"Measured on 1 August 2026, 10:00 UTC.",
		"| processor | 2 × Z80 |",
		"| compared with (peer) | none |",
		"| `prepare_p50` | ms | 2 | 8 | 0.25 | ≤ 6 ms, ≤ 0.10 × peer | yes, **no** |",
		"| `start` | ms | 1200 |  |  |  |  |",
		"\nx was not measured: no y\n",
		"![times](images/p.svg)",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("lacks %q:\n%s", want, text)
		}
	}
}
