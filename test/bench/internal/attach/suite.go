package attach

import (
	"context"
	"time"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/figures"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// Size says how often things are measured.
type Size struct {
	Attach, Pods, Looks int
}

// Full is what figures are published with.
func Full() Size { return Size{Attach: 400, Pods: 20, Looks: 100} }

// Quick shows within about a minute that everything works.
func Quick() Size { return Size{Attach: 24, Pods: 3, Looks: 5} }

// Names of samples that are of interest outside.
const (
	// SamplesAttach are the times of the hook, SamplesPlain and SamplesVF those
	// until a pod runs, without and with a VF.
	SamplesAttach = "attach"
	SamplesPlain  = podStartPlain
	SamplesVF     = podStartVF
)

const (
	podStartPlain = "pod_start_plain"
	podStartVF    = "pod_start_vf"
	discover      = "discover_8x16"
)

// patience is how long one step may take.
const patience = 2 * time.Minute

// Suite measures.
type Suite struct {
	Cluster *harness.Cluster
	Steps   harness.Steps
	Size    Size
	// Image is the file of our image.
	Image string
	// KubeletRoot and CDIRoot are empty folders for the plugin.
	KubeletRoot, CDIRoot string
	// Work is a folder for programs, logs and files.
	Work string

	report figures.Report
}

// Run measures everything and returns what was found.
func (s *Suite) Run(ctx context.Context) (*figures.Report, error) {
	for _, step := range []struct {
		title string
		do    func(context.Context) error
	}{
		{"Looking at 8 ports with 16 VFs each", s.discover},
		{"A VF to a pod, one at a time", s.attach},
		{"Pods with and without a VF", s.pods},
	} {
		if err := s.Steps.Do(step.title, func() error { return step.do(ctx) }); err != nil {
			return nil, err
		}
	}
	s.compute()
	return &s.report, nil
}

// PeerTitle is empty: nothing else is measured.
func (s *Suite) PeerTitle() string { return "" }

func (s *Suite) keep(name string, took time.Duration) {
	s.report.Keep(name, figures.Ours, figures.Samples{figures.Milliseconds(took)})
}

// compute makes the figures from the samples.
func (s *Suite) compute() {
	r := &s.report
	percentile := func(p float64) func(figures.Samples) float64 {
		return func(samples figures.Samples) float64 { return samples.Percentile(p) }
	}
	r.Add("attach_p50", "ms", SamplesAttach, percentile(50), figures.AtMost(50))
	r.Add("attach_p99", "ms", SamplesAttach, percentile(99))
	r.Add(podStartPlain, "ms", podStartPlain, figures.Samples.Median)
	plain := r.Samples[podStartPlain][figures.Ours].Median()
	r.Add(podStartVF, "ms", podStartVF, figures.Samples.Median, figures.AtMostTimes(plain, 1.3, podStartPlain))
	r.Add(discover, "ms", discover, figures.Samples.Median, figures.AtMost(200))
}
