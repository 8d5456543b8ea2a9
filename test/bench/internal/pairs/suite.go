package pairs

import (
	"context"
	"fmt"
	"time"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/figures"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/published"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// Size says how often things are measured.
type Size struct {
	// Searches is how often the allocator is asked about one node, and GiveUps
	// how often it may give up before it is asked no more.
	Searches, GiveUps int
	// Clusters is how often it is asked about all nodes of a cluster.
	Clusters int
	// Rounds is how often Pods pods of a kind are placed by a real scheduler.
	Rounds, Pods int
}

// Full is what figures are published with.
func Full() Size { return Size{Searches: 400, GiveUps: 3, Clusters: 20, Rounds: 5, Pods: 400} }

// Quick shows within about a minute that everything works.
func Quick() Size { return Size{Searches: 10, GiveUps: 1, Clusters: 2, Rounds: 1, Pods: 100} }

const (
	// patience is how long one step may take, also on a busy machine.
	patience = 5 * time.Minute
	// manyNodes is how many nodes the allocator is asked about, and fewNodes how
	// many the real scheduler has.
	manyNodes, fewNodes = 500, 100
	// limit is what a claim for eight, or four, pairs may take on one node.
	limit = 7
)

// Names of figures and samples that are of interest outside.
const (
	Composite8Fits  = "composite_8_fits"
	Composite8Unsat = "composite_8_unsat"
	Composite4Gone  = "composite_4_one_nic_gone"

	Constraints8Fits  = "constraints_8_fits"
	Constraints8Unsat = "constraints_8_unsat"
	Constraints4Gone  = "constraints_4_one_nic_gone"

	// InTurn are the same constraints, but the requests for the GPU and the VF of
	// a pair follow each other.
	InTurn8Fits  = "constraints_in_turn_8_fits"
	InTurn8Unsat = "constraints_in_turn_8_unsat"
	InTurn4Gone  = "constraints_in_turn_4_one_nic_gone"

	GPU500            = "gpu_500_nodes"
	Composite500      = "composite_500_nodes"
	GPU500Split       = "gpu_500_nodes_7_free"
	Composite500Split = "composite_500_nodes_7_free"

	SchedulerGPU       = "scheduler_gpu"
	SchedulerComposite = "scheduler_composite"
	// cpuSuffix is that of the processor time that the scheduler took for a pod.
	cpuSuffix = "_cpu"
)

// Suite measures.
type Suite struct {
	Cluster *harness.Cluster
	Steps   harness.Steps
	Size    Size

	machine *machine
	library *library
	report  figures.Report
}

// Run measures everything and returns what was found.
func (s *Suite) Run(ctx context.Context) (*figures.Report, error) {
	if err := s.look(ctx); err != nil {
		return nil, err
	}
	for _, step := range []struct {
		title string
		do    func(context.Context) error
	}{
		{"One node: composites and constraints", s.oneNode},
		{fmt.Sprintf("One of %d nodes", manyNodes), s.clusters},
		{fmt.Sprintf("A real scheduler and %d nodes", fewNodes), s.scheduler},
	} {
		if err := s.Steps.Do(step.title, func() error { return step.do(ctx) }); err != nil {
			return nil, err
		}
	}
	s.compute()
	return &s.report, nil
}

// PeerTitle is empty: what is compared are forms of claims.
func (s *Suite) PeerTitle() string { return "" }

// look installs the driver and reads what it publishes.
func (s *Suite) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := s.Cluster.InstallDriver(ctx, "deployments/manifests/simulated-dgx-h200"); err != nil {
		return err
	}
	return s.Steps.Do("Reading what the driver publishes", func() (err error) {
		read, err := published.Read(ctx, s.Cluster)
		if err != nil {
			return err
		}
		s.machine = &machine{read}
		s.report.Notes = append(s.report.Notes, s.machine.String())
		s.library, err = newLibrary(ctx, s.Cluster.Client)
		return err
	})
}

func (s *Suite) keep(name string, took time.Duration) {
	s.report.Keep(name, figures.Ours, figures.Samples{figures.Milliseconds(took)})
}

// compute makes the figures from the samples.
func (s *Suite) compute() {
	r := &s.report
	median := func(name string) float64 { return r.Samples[name][figures.Ours].Median() }
	for _, name := range []string{Composite8Fits, Composite8Unsat, Composite4Gone} {
		r.Add(name, "ms", name, figures.Samples.Median, figures.AtMost(limit))
	}
	for _, name := range []string{Constraints8Fits, Constraints8Unsat, Constraints4Gone, InTurn8Fits, InTurn8Unsat, InTurn4Gone} {
		r.Add(name, "ms", name, figures.Samples.Median)
	}
	for _, names := range [][2]string{{GPU500, Composite500}, {GPU500Split, Composite500Split}} {
		r.Add(names[0], "ms", names[0], figures.Samples.Median)
		r.Add(names[1], "ms", names[1], figures.Samples.Median, figures.AtMostTimes(median(names[0]), 2, names[0]))
	}
	r.Add(SchedulerGPU, "pods/s", SchedulerGPU, figures.Samples.Median)
	r.Add(SchedulerComposite, "pods/s", SchedulerComposite, figures.Samples.Median, figures.AtLeastTimes(median(SchedulerGPU), 0.8, SchedulerGPU))
	for _, name := range []string{SchedulerGPU + cpuSuffix, SchedulerComposite + cpuSuffix} {
		if len(r.Samples[name]) > 0 {
			r.Add(name, "ms/pod", name, figures.Samples.Median)
		}
	}
}
