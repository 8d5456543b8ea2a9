package fit

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet/fleettest"
)

// script is a sequence of jobs: in each round jobs come until so much of the fleet
// is busy, and then some go. It is the same for whoever places them.
type script struct {
	seed   uint64
	rounds int
}

// placer gives a job its devices, or nil.
type placer func(*resourceapi.ResourceClaim) *resourceapi.AllocationResult

// outcome is what comes of a script.
type outcome struct {
	// across counts the jobs that were spread over NUMA nodes.
	turnedAway, across, busy int
	// fours and eights are how many jobs of 4 GPUs of one NUMA node, and of 8,
	// could still run in the end.
	fours, eights int
}

func (o *outcome) add(other outcome) {
	o.turnedAway, o.across, o.busy = o.turnedAway+other.turnedAway, o.across+other.across, o.busy+other.busy
	o.fours, o.eights = o.fours+other.fours, o.eights+other.eights
}

func (s script) run(w *world, place placer) outcome {
	var out outcome
	random := rand.New(rand.NewPCG(s.seed, 42))
	running := map[*resourceapi.ResourceClaim]int64{}
	var order []*resourceapi.ResourceClaim // of all that came, so that the same go
	total := 8 * len(w.View().Nodes())
	asked := 0
	for round := range s.rounds {
		for asked < total*3/4 {
			n := []int64{1, 1, 1, 2, 2, 4}[random.IntN(6)]
			asked += int(n)
			c := fleettest.Claim(fmt.Sprint("job-", round, "-", len(order)), gpus(n))
			order = append(order, c)
			running[c] = n
			a := place(c)
			if a == nil {
				out.turnedAway++
				continue
			}
			if err := w.Assume(c.UID, a); err != nil {
				w.Fatal(err)
			}
			if w.isAcross(a) {
				out.across++
			}
		}
		for round < s.rounds-1 && asked > total*2/5 {
			i := random.IntN(len(order))
			c := order[i]
			order = append(order[:i], order[i+1:]...)
			asked -= int(running[c])
			w.Forget(c.UID)
		}
	}
	for _, n := range w.View().Nodes() {
		out.busy += n.Pools[0].Taken.Len()
	}
	out.fours, out.eights = w.stillFit()
	return out
}

// stillFit is how many jobs of 4 GPUs of one NUMA node, and of 8, could run now.
func (w *world) stillFit() (fours, eights int) {
	w.Helper()
	numa := resourceapi.FullyQualifiedName("resource.kubernetes.io/numaNode")
	four := fleettest.Claim("four", gpus(4))
	four.Spec.Devices.Constraints = []resourceapi.DeviceConstraint{{MatchAttribute: &numa}}
	for _, room := range w.rooms(four, 2) {
		fours += room
	}
	for _, room := range w.rooms(fleettest.Claim("eight", gpus(8)), 1) {
		eights += room
	}
	return fours, eights
}

func (w *world) isAcross(a *resourceapi.AllocationResult) bool {
	numas := map[int64]bool{}
	for _, r := range a.Devices.Results {
		shape := w.View().Node(strings.Split(r.Pool, "/")[0]).Pools[0].Shape
		numas[shape.Devices[at(shape.Place(r.Device))].NUMA] = true
	}
	return len(numas) > 1
}

// TestBestFitKeepsRoomForLargeJobs runs the same jobs with what kube-scheduler
// does and with what we do, and counts what large jobs still find.
func TestBestFitKeepsRoomForLargeJobs(t *testing.T) {
	const machines = 8
	var table strings.Builder
	fmt.Fprintf(&table, "\n%d machines of 8 GPUs. Jobs of 1, 2 and 4 GPUs come until 75 %% are busy, then some go until 40 %% are, again and again.\n", machines)
	row := func(seed, name string, o outcome) {
		fmt.Fprintf(&table, "%-6s %-10s %12d %18d %10d %24d %12d\n", seed, name, o.turnedAway, o.across, o.busy, o.fours, o.eights)
	}
	fmt.Fprintf(&table, "%-6s %-10s %12s %18s %10s %24s %12s\n", "seed", "placed by", "turned away", "across NUMA nodes", "GPUs busy", "4 of a NUMA node fit", "8 GPUs fit")
	all := map[string]*outcome{firstFit: {}, bestFit: {}}
	for seed := range uint64(8) {
		for _, name := range []string{firstFit, bestFit} {
			w := newWorld(t)
			for i := range machines {
				w.add(fleettest.DGX(fmt.Sprintf("dgx-%d", i)), nil)
			}
			o := script{seed, 5}.run(w, w.placer(name))
			row(fmt.Sprint(seed), name, o)
			all[name].add(o)
		}
	}
	row("all", firstFit, *all[firstFit])
	row("all", bestFit, *all[bestFit])
	t.Log(table.String())
	first, best := all[firstFit], all[bestFit]
	if best.turnedAway > first.turnedAway || best.across >= first.across || best.fours < first.fours || best.eights < first.eights {
		t.Error("best fit is no better than first fit")
	}
}

const firstFit, bestFit = "first fit", "best fit"

// TestFragmentedFleet shows what becomes of a fleet with holes, step by step.
func TestFragmentedFleet(t *testing.T) {
	var table strings.Builder
	fmt.Fprintf(&table, "\nFree GPUs on the two NUMA nodes of each machine: dgx-a 4+4, dgx-b 2+2, dgx-c 1+3, dgx-d 3+4.\n")
	fmt.Fprintf(&table, "%-12s | %-36s %12s %12s | %-36s %12s %12s\n", "comes", firstFit+" gives", "4 GPUs fit", "8 GPUs fit", bestFit+" gives", "4 GPUs fit", "8 GPUs fit")
	worlds := map[string]*world{}
	for _, name := range []string{firstFit, bestFit} {
		w := newWorld(t, fleettest.DGX("dgx-a"), fleettest.DGX("dgx-b"), fleettest.DGX("dgx-c"), fleettest.DGX("dgx-d"))
		w.use("dgx-b", "gpu-0", "gpu-1", "gpu-4", "gpu-5")
		w.use("dgx-c", "gpu-0", "gpu-1", "gpu-2", "gpu-4")
		w.use("dgx-d", "gpu-0")
		worlds[name] = w
	}
	for n, size := range []int64{0, 1, 2, 1, 2, 2, 1, 1} {
		fmt.Fprintf(&table, "%-12s", fmt.Sprintf("%d GPUs", size))
		for _, name := range []string{firstFit, bestFit} {
			w, got := worlds[name], ""
			if size > 0 {
				c := fleettest.Claim(fmt.Sprint("job-", n), gpus(size))
				a := w.placer(name)(c)
				if err := w.Assume(c.UID, a); err != nil {
					t.Fatal(err)
				}
				for _, r := range a.Devices.Results {
					got += " " + r.Device
				}
				got = strings.Split(a.Devices.Results[0].Pool, "/")[0] + got
			}
			fours, eights := w.stillFit()
			fmt.Fprintf(&table, " | %-36s %12d %12d", got, fours, eights)
			if name == bestFit && (fours != 3 || eights != 1) {
				t.Errorf("after %d jobs there is room for %d jobs of 4 and %d of 8: want 3 and 1 all the time", n, fours, eights)
			}
		}
		table.WriteString("\n")
	}
	t.Log(table.String())
	if fours, eights := worlds[firstFit].stillFit(); fours >= 3 || eights > 0 {
		t.Errorf("first fit has still room for %d jobs of 4 and %d of 8: this test shows nothing", fours, eights)
	}
}

func (w *world) placer(name string) placer {
	if name == firstFit {
		return func(c *resourceapi.ResourceClaim) *resourceapi.AllocationResult {
			if _, results := w.firstThatFits(c); results != nil {
				return &results[0]
			}
			return nil
		}
	}
	return func(c *resourceapi.ResourceClaim) *resourceapi.AllocationResult {
		choice, err := w.One(w.Context(), Ask{Claims: []*resourceapi.ResourceClaim{c}})
		if err != nil {
			return nil
		}
		return &choice.Allocation
	}
}
