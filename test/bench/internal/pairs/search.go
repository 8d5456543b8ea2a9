package pairs

import (
	"context"
	"fmt"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/dynamic-resource-allocation/structured"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/published"
)

// unmeasured is how often a question is asked before its answers count: the
// first ones compile expressions and fill caches.
const unmeasured = 3

// question is something to ask the allocator.
type question struct {
	name    string
	at      situation
	devices resourceapi.DeviceClaim
	// nodes is how many have what is asked for.
	nodes int
}

// oneNode asks for pairs on a node.
func (s *Suite) oneNode(ctx context.Context) error {
	nodes := []string{s.machine.Node}
	free := s.machine.situation(nodes, sets.New[structured.DeviceID]())
	gone := s.machine.situation(nodes, ids(s.machine.Node, s.machine.nicOfFirstGPU()))
	for _, q := range []question{
		{Composite8Fits, free, some(pairClass, gpus), 1},
		{Composite8Unsat, gone, some(pairClass, gpus), 0},
		{Composite4Gone, gone, some(pairClass, gpus/2), 1},
		{Constraints8Fits, free, constrained(gpus), 1},
		{Constraints8Unsat, gone, constrained(gpus), 0},
		{Constraints4Gone, gone, constrained(gpus / 2), 1},
		{InTurn8Fits, free, inTurn(gpus), 1},
		{InTurn8Unsat, gone, inTurn(gpus), 0},
		{InTurn4Gone, gone, inTurn(gpus / 2), 1},
	} {
		if err := s.ask(ctx, s.Size.Searches, q); err != nil {
			return err
		}
	}
	return nil
}

// clusters asks for eight GPUs, and for eight pairs, in a cluster where only the
// last node has them. On half of the others GPUs have been given away, and pairs
// on the other half: all of them, or one of eight.
func (s *Suite) clusters(ctx context.Context) error {
	for _, tc := range []struct {
		gpu, pair string
		taken     int
	}{{GPU500, Composite500, gpus}, {GPU500Split, Composite500Split, 1}} {
		at := s.machine.busy(manyNodes, tc.taken)
		err := s.ask(ctx, s.Size.Clusters,
			question{tc.gpu, at, some(gpuClass, gpus), 1}, question{tc.pair, at, some(pairClass, gpus), 1})
		if err != nil {
			return err
		}
	}
	return nil
}

// situation has nodes like this one, in which devices are taken.
func (m *machine) situation(nodes []string, taken sets.Set[structured.DeviceID]) situation {
	at := situation{taken: taken}
	for _, name := range nodes {
		at.nodes = append(at.nodes, nodeNamed(name))
		at.slices = append(at.slices, m.As(name)...)
	}
	return at
}

// busy has n nodes, of which all but the last lack the first devices: single
// GPUs on every other node, and pairs on those between.
func (m *machine) busy(n, lacking int) situation {
	var nodes []string
	taken := sets.New[structured.DeviceID]()
	for i := range n {
		name := simulatedNode(i)
		nodes = append(nodes, name)
		if i == n-1 {
			break
		}
		kind := []string{published.TypeGPU, published.TypePair}[i%2]
		taken = taken.Union(ids(name, m.Devices(kind)[:lacking]))
	}
	return m.situation(nodes, taken)
}

func simulatedNode(n int) string { return fmt.Sprintf("bench-dgx-%d", n) }

// ask asks questions in turn, so often each, and keeps how long the answers took.
// A question that the allocator has given up too often is asked no more.
func (s *Suite) ask(ctx context.Context, times int, questions ...question) error {
	givenUp, asked := map[string]int{}, map[string]int{}
	for n := range unmeasured + times {
		for _, q := range questions {
			if givenUp[q.name] >= s.Size.GiveUps {
				continue
			}
			got, err := s.library.ask(ctx, q.at, q.devices)
			if err != nil {
				return fmt.Errorf("%s: %w", q.name, err)
			}
			if got.undecided == 0 && got.nodes != q.nodes {
				return fmt.Errorf("%s: the allocator finds what is asked for on %d nodes, and it is on %d", q.name, got.nodes, q.nodes)
			}
			// Where it gives up, the first time is like any other.
			if n < unmeasured && got.undecided == 0 {
				continue
			}
			asked[q.name]++
			if got.undecided > 0 {
				givenUp[q.name]++
			}
			s.keep(q.name, got.took)
		}
	}
	for _, q := range questions {
		if givenUp[q.name] > 0 {
			s.report.Notes = append(s.report.Notes, fmt.Sprintf(
				"`%s`: the allocator gave up %d of %d times, after the %g s that kube-scheduler allows it.",
				q.name, givenUp[q.name], asked[q.name], s.library.timeout.Seconds()))
		}
	}
	return nil
}
