package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/figures"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/plugin"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/published"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// Size says how much is measured.
type Size struct {
	// Nodes are how many machines there are, and Claims how many claims have
	// devices already while the others are measured.
	Nodes, Claims int
	// Alone is how many claims are made one after the other, and Rounds how often
	// some are made at the same time.
	Alone, Rounds int
	// Gangs is how many gangs are made, one after the other.
	Gangs int
	// Race is how long both allocators fight.
	Race time.Duration
}

// Full is what figures are published with.
func Full() Size {
	return Size{Nodes: 1000, Claims: 5000, Alone: 400, Rounds: 50, Gangs: 5, Race: time.Minute}
}

// Quick shows within a minute or two that everything works.
func Quick() Size {
	return Size{Nodes: 100, Claims: 200, Alone: 40, Rounds: 2, Gangs: 1, Race: 15 * time.Second}
}

const (
	// patience is how long one step may take, also on a busy machine.
	patience = 10 * time.Minute
	// some and many are how many claims are made at the same time.
	some, many = 4, 16
	// gangSize is how many claims a gang has, each for all GPUs of a machine.
	gangSize = 64
	// raceNodes is how many machines both allocators fight over, and settle how
	// long their devices are nobody's in between.
	raceNodes, settle = 6, 2 * time.Second
)

// What is demanded: times in milliseconds, and memory in megabytes.
const (
	LimitAllocate = 20
	LimitGang     = 1000
	LimitRSS      = 500
)

// Names of figures and samples that are of interest outside.
const (
	Allocate       = "allocate"
	AllocateAtOnce = "allocate_4_at_once"
	AllocateMany   = "allocate_16_at_once"
	Gang           = "gang_64x8"
	RSS            = "rss_1000_nodes"

	firstWrite  = "allocate_first_write"
	created     = "create_to_allocated"
	peak        = "rss_1000_nodes_peak"
	rate        = "allocations_per_second"
	race        = "race_double_allocations"
	raceClaims  = "race_claims"
	raceChanges = "race_handovers"
)

// Suite measures.
type Suite struct {
	Cluster *harness.Cluster
	Steps   harness.Steps
	Size    Size
	// Image is the file of our image.
	Image string
	// Work is a folder for programs, logs and files.
	Work string

	client     kubernetes.Interface
	fleet      *fleet
	hearts     *published.Hearts
	kubeconfig string
	process    *plugin.Process
	seen       *sightings
	report     figures.Report
}

// PeerTitle is empty: nothing else is measured.
func (s *Suite) PeerTitle() string { return "" }

// Run measures everything and returns what was found.
func (s *Suite) Run(ctx context.Context) (_ *figures.Report, err error) {
	installCtx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := s.Cluster.InstallDriver(installCtx, "deployments/manifests/simulated-dgx-h200"); err != nil {
		return nil, err
	}
	restore, err := s.setUp(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.cleanUp(ctx), restore()) }()
	for _, step := range []struct {
		title string
		do    func(context.Context) error
	}{
		{fmt.Sprintf("Both allocators at the same devices for %s", s.Size.Race), s.race},
		{fmt.Sprintf("Publishing %d nodes", s.Size.Nodes), s.publish},
		{fmt.Sprintf("Allocating %d claims", s.Size.Claims), s.fill},
		{"Claims, one after the other", s.alone},
		{"Claims, several at once", s.atOnce},
		{"Gangs", s.gangs},
	} {
		if err := s.Steps.Do(step.title, func() error { return s.explain(step.do(ctx)) }); err != nil {
			return nil, err
		}
	}
	bytes, err := s.process.PeakRSS()
	if err != nil {
		return nil, err
	}
	s.report.Keep(peak, figures.Ours, figures.Samples{figures.Megabytes(bytes)})
	s.compute()
	return &s.report, nil
}

// explain adds what the controller said last, if it has ended.
func (s *Suite) explain(err error) error {
	if err == nil || s.process == nil {
		return err
	}
	select {
	case <-s.process.Ended():
		return errors.Join(err, s.process.Failure())
	default:
		return err
	}
}

func (s *Suite) keep(name string, took time.Duration) {
	s.report.Keep(name, figures.Ours, figures.Samples{figures.Milliseconds(took)})
}

// compute makes the figures from the samples.
func (s *Suite) compute() {
	r := &s.report
	p99 := func(samples figures.Samples) float64 { return samples.Percentile(99) }
	for _, name := range []string{Allocate, AllocateAtOnce} {
		r.Add(name+"_p50", "ms", name, figures.Samples.Median, figures.AtMost(LimitAllocate))
		r.Add(name+"_p99", "ms", name, p99, figures.AtMost(LimitAllocate))
	}
	for _, name := range []string{AllocateMany, firstWrite, created} {
		r.Add(name+"_p50", "ms", name, figures.Samples.Median)
		r.Add(name+"_p99", "ms", name, p99)
	}
	r.Add(rate, "claims/s", rate, figures.Samples.Median)
	r.Add(Gang, "ms", Gang, figures.Samples.Max, figures.AtMost(LimitGang))
	r.Add(RSS, "MB", RSS, figures.Samples.Max, figures.AtMost(LimitRSS))
	r.Add(peak, "MB", peak, figures.Samples.Max)
	r.Add(race, "count", race, figures.Samples.Max, figures.AtMost(0))
	r.Add(raceClaims, "count", raceClaims, figures.Samples.Max)
	r.Add(raceChanges, "count", raceChanges, figures.Samples.Max)
}

// node is the name of a machine.
func node(n int) string { return fmt.Sprintf("bench-dgx-%d", n) }

func nodes(from, to int) []string {
	var names []string
	for n := from; n < to; n++ {
		names = append(names, node(n))
	}
	return names
}

// publish makes all machines, and starts the controller anew, so that it begins
// with all of them.
func (s *Suite) publish(ctx context.Context) error {
	if err := s.stop(); err != nil {
		return err
	}
	if err := published.Add(ctx, s.client, nodes(min(raceNodes, s.Size.Nodes), s.Size.Nodes), s.fleet.managed, s.hearts); err != nil {
		return err
	}
	return s.start(ctx)
}
