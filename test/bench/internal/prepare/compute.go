package prepare

import (
	"fmt"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/figures"
)

// claimCost is how much longer a pod may take to start for its claim.
const claimCost = 40

func p50(s figures.Samples) float64 { return s.Percentile(50) }

func p99(s figures.Samples) float64 { return s.Percentile(99) }

func sum(s figures.Samples) float64 {
	total := 0.0
	for _, value := range s {
		total += value
	}
	return total
}

// compute makes the figures from the samples.
func (s *Suite) compute() {
	r := &s.report
	r.Add("prepare_alone_p50", "ms", prepareAlone, p50, figures.AtMost(6), figures.BelowPeer)
	r.Add("prepare_alone_p99", "ms", prepareAlone, p99, figures.AtMost(20), figures.BelowPeer)
	r.Add("unprepare_alone_p50", "ms", unprepareAlone, p50)
	r.Add("unprepare_alone_p99", "ms", unprepareAlone, p99)
	r.Add(prepareAtOnce, "ms", prepareAtOnce, p50, figures.TimesPeer(0.7))
	r.Add(undoAtOnce, "ms", undoAtOnce, p50, figures.TimesPeer(0.7))
	r.Add(crowdTotal, "ms", crowdTotal, p50)
	r.Add("cycle_64_longest", "ms", crowdWait, figures.Samples.Max)
	r.Add(crowdTwice, "times", crowdTwice, sum, figures.AtMost(0))
	r.Add(startToSlices, "ms", startToSlices, p50, figures.AtMost(1100))
	r.Add(rssIdle, "MB", rssIdle, p50, figures.AtMost(45))
	r.Add(rssWarm, "MB", rssWarm, p50)
	r.Add(fmt.Sprintf("rss_after_%d", s.Size.MemoryCycles), "MB", rssAfter, p50, figures.AtMostAbove(r.Samples[rssIdle][figures.Ours].Median(), 2, rssIdle))
	r.Add(podStartPlain, "ms", podStartPlain, p50)
	plain := r.Samples[podStartPlain][figures.Ours].Median()
	r.Add(podStartClaim, "ms", podStartClaim, p50, figures.AtMostAbove(plain, claimCost, podStartPlain))
	r.Add(nodePartPlain, "ms", nodePartPlain, p50)
	r.Add(nodePartClaim, "ms", nodePartClaim, p50)
	if len(r.Samples[forceDelete]) > 0 {
		r.Add(forceDelete, "ms", forceDelete, p50, figures.AtMost(1000))
	}
}
