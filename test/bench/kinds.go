package main

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/attach"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/controller"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/figures"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/page"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/pairs"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/plot"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/prepare"
)

// kind is something that can be measured.
type kind struct {
	suite   func(bed) suite
	picture func(page.Text) plot.Picture
	// caption says what the picture shows.
	caption string
}

// suite measures.
type suite interface {
	Run(context.Context) (*figures.Report, error)
	// PeerTitle is the name of the driver that ours is compared with, or empty.
	PeerTitle() string
}

// kinds are those there are, by their names.
func kinds() map[string]kind {
	return map[string]kind{
		"prepare": {
			suite: func(b bed) suite {
				size := prepare.Full()
				if b.quick {
					size = prepare.Quick()
				}
				return &prepare.Suite{
					Cluster: b.cluster, Steps: b.steps, Size: size, Image: b.image,
					KubeletRoot: b.kubeletRoot, CDIRoot: b.cdiRoot, Work: b.work,
				}
			},
			picture: picturePrepare,
			caption: "How long preparing one claim takes, and eight at once, with our driver and with the one it is compared with",
		},
		"attach": {
			suite: func(b bed) suite {
				size := attach.Full()
				if b.quick {
					size = attach.Quick()
				}
				return &attach.Suite{
					Cluster: b.cluster, Steps: b.steps, Size: size, Image: b.image,
					KubeletRoot: b.kubeletRoot, CDIRoot: b.cdiRoot, Work: b.work,
				}
			},
			picture: pictureAttach,
			caption: "How long joining a VF to a pod takes, and the start of a pod without and with a VF",
		},
		"pairs": {
			suite: func(b bed) suite {
				size := pairs.Full()
				if b.quick {
					size = pairs.Quick()
				}
				return &pairs.Suite{Cluster: b.cluster, Steps: b.steps, Size: size}
			},
			picture: picturePairs,
			caption: "How long the search for GPUs with a VF beside them takes, as composites and by constraints; 500 nodes, and pods per second",
		},
		"controller": {
			suite: func(b bed) suite {
				size := controller.Full()
				if b.quick {
					size = controller.Quick()
				}
				return &controller.Suite{Cluster: b.cluster, Steps: b.steps, Size: size, Image: b.image, Work: b.work}
			},
			picture: pictureController,
			caption: "How long the controller takes to allocate a claim, alone and several at once, and a gang of 64 machines; its memory",
		},
	}
}

func names() string { return strings.Join(slices.Sorted(maps.Keys(kinds())), ", ") }

// picturePrepare shows the figures that differ most between drivers.
func picturePrepare(text page.Text) plot.Picture {
	names := map[string]string{figures.Ours: "eks-hybrid-dra", figures.Peer: text.Peer}
	alone := plot.Distribution{Title: "Prepare one claim: share done within a time", Unit: "milliseconds"}
	bars := plot.Bars{Title: "Eight claims at once: until the last is done", Unit: "ms", Groups: []string{"prepare", "unprepare"}}
	for _, whose := range []string{figures.Ours, figures.Peer} {
		samples := text.Report.Samples["prepare_alone"][whose]
		if len(samples) == 0 {
			continue
		}
		alone.Series = append(alone.Series, plot.Series{Name: names[whose], Values: samples})
		bars.Series = append(bars.Series, plot.Series{Name: names[whose], Values: []float64{
			text.Report.Samples["prepare_8_last"][whose].Median(), text.Report.Samples["unprepare_8_last"][whose].Median(),
		}})
	}
	return plot.Picture{Title: "Preparing claims: " + alone.Title + "; " + bars.Title, Panels: []plot.Panel{alone, bars}}
}

// pictureAttach shows what a VF adds to the start of a pod.
func pictureAttach(text page.Text) plot.Picture {
	samples := func(name string) figures.Samples { return text.Report.Samples[name][figures.Ours] }
	hook := plot.Distribution{Title: "Join a VF to a pod: share done within a time", Unit: "milliseconds", Series: []plot.Series{
		{Name: "attach-hook", Values: samples(attach.SamplesAttach)},
	}}
	starts := plot.Distribution{Title: "Start a pod: share running within a time", Unit: "milliseconds", Series: []plot.Series{
		{Name: "without a claim", Values: samples(attach.SamplesPlain)}, {Name: "with a VF", Values: samples(attach.SamplesVF)},
	}}
	return plot.Picture{Title: "VFs: " + hook.Title + "; " + starts.Title, Panels: []plot.Panel{hook, starts}}
}

// picturePairs shows how composites compare with constraints, and with GPUs.
func picturePairs(text page.Text) plot.Picture {
	series := func(name string, from ...string) plot.Series {
		s := plot.Series{Name: name}
		for _, sample := range from {
			value, label := text.Report.Samples[sample][figures.Ours].Median(), ""
			if value >= figures.Milliseconds(pairs.FilterTimeout) {
				label = "gave up, 10 s"
			}
			s.Values, s.Labels = append(s.Values, value), append(s.Labels, label)
		}
		return s
	}
	node := plot.Bars{
		Title: "Search on one node, logarithmic scale", Unit: "ms", Log: true, Legend: true,
		Groups: []string{"8 pairs, all free", "8 pairs, a NIC is taken: there are 7", "4 pairs, a NIC is taken"},
		Series: []plot.Series{
			series("composites", pairs.Composite8Fits, pairs.Composite8Unsat, pairs.Composite4Gone),
			series("constraints in turn", pairs.InTurn8Fits, pairs.InTurn8Unsat, pairs.InTurn4Gone),
			series("constraints", pairs.Constraints8Fits, pairs.Constraints8Unsat, pairs.Constraints4Gone),
		},
	}
	cluster := plot.Bars{
		Title: "In a cluster", Units: []string{"ms", "ms", "pods/s"}, Legend: true,
		Groups: []string{"Search for 8: 499 nodes have none, one has 8", "Search for 8: 499 nodes have 7, one has 8", "Pods with one each, 100 nodes (more is better)"},
		Series: []plot.Series{
			series("composites", pairs.Composite500, pairs.Composite500Split, pairs.SchedulerComposite),
			series("GPUs", pairs.GPU500, pairs.GPU500Split, pairs.SchedulerGPU),
		},
	}
	return plot.Picture{Title: "GPUs with the NIC beside them: " + node.Title + "; " + cluster.Title, Panels: []plot.Panel{node, cluster}}
}

// pictureController shows how quickly claims and gangs are allocated, and what
// that takes of memory.
func pictureController(text page.Text) plot.Picture {
	samples := func(name string) figures.Samples { return text.Report.Samples[name][figures.Ours] }
	claims := plot.Distribution{Title: "Allocate a claim: share done within a time", Unit: "milliseconds", Series: []plot.Series{
		{Name: "one at a time", Values: samples(controller.Allocate)},
		{Name: "4 at once", Values: samples(controller.AllocateAtOnce)},
		{Name: "16 at once", Values: samples(controller.AllocateMany)},
	}}
	fleet := plot.Bars{
		Title: "1 000 machines, 5 000 claims", Units: []string{"ms", "MB"}, Legend: true,
		Groups: []string{"A gang of 64 machines, slowest", "Memory of the controller"},
		Series: []plot.Series{
			{Name: "measured", Values: []float64{samples(controller.Gang).Max(), samples(controller.RSS).Max()}},
			{Name: "allowed", Values: []float64{controller.LimitGang, controller.LimitRSS}},
		},
	}
	return plot.Picture{Title: "The controller: " + claims.Title + "; " + fleet.Title, Panels: []plot.Panel{claims, fleet}}
}
