package controller

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Jobs of TestBestFitKeepsRoomForLargeJobs: small ones of 1 GPU, and then large
// ones of 4 GPUs of one NUMA node, as many as fit beside the small ones.
const (
	fleetNodes = 8
	smallJobs  = 8
	largeJobs  = (fleetNodes*gpusPerNode - smallJobs) / 4
)

// placing is what came of the jobs on one fleet.
type placing struct {
	by                  string
	broken, large, idle int
}

// The same jobs come to two fleets that are alike: kube-scheduler gives the
// devices of one, and the controller those of the other.
func TestBestFitKeepsRoomForLargeJobs(t *testing.T) {
	theirs := newSite(t, fleetNodes)
	for _, node := range theirs.nodes {
		theirs.publish(node, unmanaged, 2)
	}
	ours := newSite(t, fleetNodes)
	ours.start(settings{})
	first, best := theirs.place("kube-scheduler", theirs.plain), ours.place("controller", ours.class)
	var table strings.Builder
	for _, p := range []placing{first, best} {
		fmt.Fprintf(&table, "%-16s %24d %24s %10d\n", p.by, p.broken, fmt.Sprintf("%d of %d", p.large, largeJobs), p.idle)
	}
	t.Logf("%d machines of %d GPUs; %d jobs of 1 GPU, then %d of 4 GPUs of one NUMA node\n%-16s %24s %24s %10s\n%s", fleetNodes, gpusPerNode, smallJobs, largeJobs,
		"placed by", "NUMA nodes broken into", "4-GPU jobs that run", "GPUs idle", table.String())
	if best.large != largeJobs {
		t.Errorf("%d large jobs run beside the small ones, want %d", best.large, largeJobs)
	}
	if first.large >= best.large {
		t.Errorf("kube-scheduler runs as many large jobs, %d", first.large)
	}
}

// place makes the jobs, and returns what came of them.
func (s *site) place(by, class string) placing {
	s.t.Helper()
	p := placing{by: by}
	numa := resourceapi.FullyQualifiedName("resource.kubernetes.io/numaNode")
	cpu := func(spec *corev1.PodSpec) { requests(spec, "4") }
	for i := range smallJobs {
		name := fmt.Sprintf("small-%d", i)
		s.make(claimFor(name, class, 1))
		s.pod(name, cpu, name)
		s.bound(name)
	}
	for _, gpus := range s.taken() {
		if gpus > 0 {
			p.broken++
		}
	}
	for i := range largeJobs {
		claim := claimFor(fmt.Sprintf("large-%d", i), class, 4)
		claim.Spec.Devices.Constraints = []resourceapi.DeviceConstraint{{MatchAttribute: &numa}}
		s.make(claim)
		s.pod(claim.Name, cpu, claim.Name)
	}
	s.eventually("no job waits that could run", func() (bool, string) {
		p.large, p.idle = 0, fleetNodes*gpusPerNode
		pods, err := cluster.Client.CoreV1().Pods(s.name).List(s.ctx, metav1.ListOptions{})
		if err != nil {
			return false, err.Error()
		}
		for i := range pods.Items {
			if strings.HasPrefix(pods.Items[i].Name, "large-") && pods.Items[i].Spec.NodeName != "" {
				p.large++
			}
		}
		given := 0
		for _, name := range s.withDevices() {
			if strings.HasPrefix(name, "large-") {
				given++
			}
		}
		whole := 2 * len(s.nodes) // NUMA nodes of which nothing is taken
		for _, gpus := range s.taken() {
			p.idle -= gpus
			if gpus > 0 {
				whole--
			}
		}
		return p.large == given && (given == largeJobs || whole == 0), fmt.Sprintf("%+v, %d whole NUMA nodes", p, whole)
	})
	s.noneTwice()
	return p
}

// taken is how many GPUs are taken, by NUMA node.
func (s *site) taken() map[string]int {
	s.t.Helper()
	taken := map[string]int{}
	for _, claim := range s.list() {
		if claim.Status.Allocation == nil {
			continue
		}
		for _, result := range claim.Status.Allocation.Devices.Results {
			var gpu int
			if _, err := fmt.Sscanf(result.Device, "gpu-%d", &gpu); err != nil {
				s.t.Fatal(err)
			}
			taken[fmt.Sprint(result.Pool, gpu/4)]++
		}
	}
	return taken
}
