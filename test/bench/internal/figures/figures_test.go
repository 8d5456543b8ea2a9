package figures

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPercentile(t *testing.T) {
	hundred := Samples{}
	for n := 100; n >= 1; n-- {
		hundred = append(hundred, float64(n))
	}
	for _, test := range []struct {
		samples Samples
		p, want float64
	}{
		{Samples{7}, 50, 7},
		{Samples{7}, 99, 7},
		{Samples{3, 1, 2}, 50, 2},
		{Samples{4, 3, 2, 1}, 50, 2},
		{Samples{4, 3, 2, 1}, 100, 4},
		{hundred, 1, 1},
		{hundred, 50, 50},
		{hundred, 99, 99},
		{hundred, 99.5, 100},
	} {
		if got := test.samples.Percentile(test.p); got != test.want {
			t.Errorf("percentile %v of %v: got %v, want %v", test.p, test.samples, got, test.want)
		}
	}
	if got := (Samples{}).Median(); !math.IsNaN(got) {
		t.Errorf("median of nothing: %v", got)
	}
	if hundred[0] != 100 {
		t.Error("the samples were put into another order")
	}
	if got := Milliseconds(1500 * time.Microsecond); got != 1.5 {
		t.Errorf("1500 µs are %v ms", got)
	}
}

func TestReport(t *testing.T) {
	r := &Report{}
	r.Keep("prepare", Ours, Samples{1, 2, 30})
	r.Keep("prepare", Peer, Samples{4})
	r.Keep("start", Ours, Samples{1100})
	r.Add("prepare_p50", "ms", "prepare", Samples.Median, AtMost(1.5), BelowPeer, TimesPeer(0.5))
	r.Add("start", "ms", "start", Samples.Median, AtMost(1100), BelowPeer, AtMostAbove(1000, 50, "idle"), AtMostTimes(1000, 1.1, "idle"))
	want := [][]Demand{
		{{"≤ 1.50 ms", false}, {"below peer", true}, {"≤ 0.50 × peer", true}},
		{{"≤ 1100 ms", true}, {"≤ idle + 50 ms", false}, {"≤ 1.10 × idle", true}},
	}
	for n, row := range r.Rows {
		if diff := cmp.Diff(want[n], row.Demands); diff != "" {
			t.Errorf("demands on %s (-want +got):\n%s", row.Name, diff)
		}
	}
	var out strings.Builder
	if err := r.Print(&out); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("prepare_p50 2 ms\nstart 1100 ms\npeer_prepare_p50 4 ms\n", out.String()); diff != "" {
		t.Error(diff)
	}
}
