package measure

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
)

const driver = "eks-hybrid-dra"

// setup is a leader's metrics of a fleet with one machine of four GPUs.
type setup struct {
	*Metrics
	registry *prometheus.Registry
	clock    *clocktesting.FakePassiveClock
	fleet    *fleet.Fleet
}

func newSetup(t testing.TB) *setup {
	t.Helper()
	f := fleet.New(driver)
	for name, managed := range map[string]string{"gpu": "", "managed-gpu": "true"} {
		f.SetClass(class(name, "device.driver == 'eks-hybrid-dra' && device.attributes['eks-hybrid-dra'].type == 'gpu'", managed))
	}
	f.SetClass(class("nic", "device.driver == 'nic.example.com'", ""))
	addMachine(f, "dgx-0")
	s := &setup{registry: prometheus.NewRegistry(), clock: clocktesting.NewFakePassiveClock(time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)), fleet: f}
	var err error
	if s.Metrics, err = New(s.registry, Options{Fleet: f, Clock: s.clock}); err != nil {
		t.Fatal(err)
	}
	s.lead(true)
	return s
}

func class(name, expression, managed string) *resourceapi.DeviceClass {
	c := &resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Generation: 1}}
	if managed != "" {
		c.Labels = map[string]string{v1alpha1.LabelManagedClass: managed}
	}
	c.Spec.Selectors = []resourceapi.DeviceSelector{{CEL: &resourceapi.CELDeviceSelector{Expression: expression}}}
	return c
}

func addMachine(f *fleet.Fleet, node string) {
	s := &resourceapi.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: node}, Spec: resourceapi.ResourceSliceSpec{
		Driver: driver, NodeName: &node, Pool: resourceapi.ResourcePool{Name: node + "/" + driver, Generation: 1, ResourceSliceCount: 1},
	}}
	for i := range 4 {
		s.Spec.Devices = append(s.Spec.Devices, resourceapi.Device{
			Name:       fmt.Sprintf("gpu-%d", i),
			Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{"type": {StringValue: ptr.To("gpu")}},
		})
	}
	f.SetNode(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}})
	f.SetSlice(s)
}

func (s *setup) claim(name, class string) *resourceapi.ResourceClaim {
	c := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{
		Namespace: "ns", Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(s.clock.Now().Truncate(time.Second)),
	}}
	c.Spec.Devices.Requests = []resourceapi.DeviceRequest{{Name: "r", Exactly: &resourceapi.ExactDeviceRequest{DeviceClassName: class}}}
	return c
}

func (s *setup) allocated(c *resourceapi.ResourceClaim, device string) *resourceapi.ResourceClaim {
	c = c.DeepCopy()
	c.Status.Allocation = &resourceapi.AllocationResult{
		AllocationTimestamp: ptr.To(metav1.NewTime(s.clock.Now().Truncate(time.Second))),
		Devices: resourceapi.DeviceAllocationResult{Results: []resourceapi.DeviceRequestAllocationResult{
			{Request: "r", Driver: driver, Pool: "dgx-0/" + driver, Device: device},
		}},
	}
	return c
}

func (s *setup) later(d time.Duration) { s.clock.SetTime(s.clock.Now().Add(d)) }

// expect compares some metrics with what a scrape should have.
func (s *setup) expect(t *testing.T, metric, want string) {
	t.Helper()
	if err := testutil.GatherAndCompare(s.registry, strings.NewReader(want), metric); err != nil {
		t.Error(err)
	}
}

// count returns how many durations were observed, and their sum.
func (s *setup) durationsOf(t *testing.T) (uint64, float64) {
	t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var n uint64
	var sum float64
	for _, f := range families {
		if f.GetName() != "dra_allocation_duration_seconds" {
			continue
		}
		for _, m := range f.GetMetric() {
			n += m.GetHistogram().GetSampleCount()
			sum += m.GetHistogram().GetSampleSum()
		}
	}
	return n, sum
}

func TestDurations(t *testing.T) {
	for name, test := range map[string]struct {
		do    func(*setup)
		count uint64
		sum   float64
	}{
		"seen live, more exact than the timestamps": {func(s *setup) {
			s.later(300 * time.Millisecond)
			c := s.claim("c", "gpu")
			s.Claim(nil, c)
			s.later(50 * time.Millisecond)
			s.Claim(c, s.allocated(c, "gpu-0"))
		}, 1, .05},
		"waiting since before this program began": {func(s *setup) {
			c := s.claim("c", "gpu")
			s.later(time.Minute)
			s.Claim(nil, c)
			s.later(time.Second)
			s.Claim(c, s.allocated(c, "gpu-0"))
		}, 1, 61},
		"never seen waiting": {func(s *setup) {
			c := s.claim("c", "gpu")
			s.later(3 * time.Second)
			s.Claim(nil, s.allocated(c, "gpu-0"))
		}, 1, 3},
		"allocated before this program began": {func(s *setup) {
			c := s.allocated(s.claim("c", "gpu"), "gpu-0")
			c.CreationTimestamp = metav1.NewTime(s.born.Add(-time.Hour))
			s.Claim(nil, c)
		}, 0, 0},
		"changes of one that is allocated": {func(s *setup) {
			c := s.claim("c", "gpu")
			a := s.allocated(c, "gpu-0")
			s.Claim(nil, a)
			s.Claim(a, a)
			s.Claim(a, nil)
		}, 1, 0},
		"a second allocation": {func(s *setup) {
			c := s.claim("c", "gpu")
			s.Claim(nil, c)
			s.Claim(c, s.allocated(c, "gpu-0"))
			s.later(time.Hour)
			s.Claim(s.allocated(c, "gpu-0"), c)
			s.later(time.Hour)
			s.Claim(c, s.allocated(c, "gpu-1"))
		}, 1, 0},
		"another driver's": {func(s *setup) {
			c := s.claim("c", "nic")
			s.Claim(nil, c)
			a := s.allocated(c, "nic-0")
			a.Status.Allocation.Devices.Results[0].Driver = "nic.example.com"
			s.Claim(c, a)
		}, 0, 0},
		"not the leader": {func(s *setup) {
			s.lead(false)
			c := s.claim("c", "gpu")
			s.Claim(nil, c)
			s.Claim(c, s.allocated(c, "gpu-0"))
			s.lead(true)
		}, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSetup(t)
			test.do(s)
			count, sum := s.durationsOf(t)
			if count != test.count || sum < test.sum-.001 || sum > test.sum+.001 {
				t.Errorf("got %d observations of %v s together, want %d of %v s", count, sum, test.count, test.sum)
			}
		})
	}
}

func TestPending(t *testing.T) {
	s := newSetup(t)
	plain, managed, unknown := s.claim("1", "gpu"), s.claim("2", "managed-gpu"), s.claim("3", "to-come")
	for _, c := range []*resourceapi.ResourceClaim{plain, managed, unknown, s.claim("4", "nic")} {
		s.Claim(nil, c)
	}
	const head = "# HELP dra_pending_claims_total Claims of this driver that are not allocated.\n# TYPE dra_pending_claims_total gauge\n"
	s.expect(t, "dra_pending_claims_total", head+
		"dra_pending_claims_total{allocator=\"controller\",device_class=\"managed-gpu\",kind=\"gpu\"} 1\n"+
		"dra_pending_claims_total{allocator=\"scheduler\",device_class=\"gpu\",kind=\"gpu\"} 1\n")
	// A class may come after its claims; one that is allocated, deleted or gone
	// is not pending.
	s.fleet.SetClass(class("to-come", "device.driver == 'eks-hybrid-dra'", ""))
	s.Claim(plain, s.allocated(plain, "gpu-0"))
	deleted := managed.DeepCopy()
	deleted.DeletionTimestamp = ptr.To(metav1.Now())
	s.Claim(managed, deleted)
	s.expect(t, "dra_pending_claims_total", head+
		"dra_pending_claims_total{allocator=\"controller\",device_class=\"managed-gpu\",kind=\"gpu\"} 0\n"+
		"dra_pending_claims_total{allocator=\"scheduler\",device_class=\"gpu\",kind=\"gpu\"} 0\n"+
		"dra_pending_claims_total{allocator=\"scheduler\",device_class=\"to-come\",kind=\"mixed\"} 1\n")
	s.Claim(unknown, nil)
	s.fleet.DeleteClass("managed-gpu")
	s.ClassGone("managed-gpu")
	s.expect(t, "dra_pending_claims_total", head+
		"dra_pending_claims_total{allocator=\"scheduler\",device_class=\"gpu\",kind=\"gpu\"} 0\n"+
		"dra_pending_claims_total{allocator=\"scheduler\",device_class=\"to-come\",kind=\"mixed\"} 0\n")
}

func TestUtilization(t *testing.T) {
	s := newSetup(t)
	s.fleet.SetClaim(s.allocated(s.claim("c", "gpu"), "gpu-3"))
	const head = "# HELP dra_resource_utilization_ratio Which part of a node's devices cannot be given any more because they, or what they consist of, are allocated.\n" +
		"# TYPE dra_resource_utilization_ratio gauge\n"
	s.expect(t, "dra_resource_utilization_ratio", head+"dra_resource_utilization_ratio{kind=\"gpu\",node=\"dgx-0\"} 0.25\n")
	s.fleet.DeleteNode("dgx-0")
	s.expect(t, "dra_resource_utilization_ratio", "")
}

func TestErrors(t *testing.T) {
	s := newSetup(t)
	c := s.claim("c", "managed-gpu")
	s.Failed(c, ReasonDeallocatedByScheduler)
	s.Failed(s.claim("d", "made up by a user"), "made up by a programmer")
	resource := schema.GroupResource{Resource: "resourceclaims"}
	for _, err := range []error{
		nil, fmt.Errorf("stopped: %w", context.Canceled),
		fmt.Errorf("write: %w", apierrors.NewConflict(resource, "c", nil)), apierrors.NewNotFound(resource, "c"),
		apierrors.NewTooManyRequests("later", 1), apierrors.NewForbidden(resource, "c", nil), apierrors.NewBadRequest("x"),
	} {
		s.WriteFailed(c, err)
	}
	line := func(reason, class, kind, allocator string, n int) string {
		return fmt.Sprintf("dra_allocation_errors_total{allocator=%q,device_class=%q,kind=%q,reason=%q} %d\n", allocator, class, kind, reason, n)
	}
	s.expect(t, "dra_allocation_errors_total", "# HELP dra_allocation_errors_total What went wrong when claims were to be allocated, by reason.\n"+
		"# TYPE dra_allocation_errors_total counter\n"+
		line("Conflict", "managed-gpu", "gpu", "controller", 2)+line("DeallocatedByScheduler", "managed-gpu", "gpu", "controller", 1)+
		line("Forbidden", "managed-gpu", "gpu", "controller", 1)+line("Other", "other", "mixed", "scheduler", 1)+
		line("Throttled", "managed-gpu", "gpu", "controller", 1)+line("WriteFailed", "managed-gpu", "gpu", "controller", 1))
}

func TestOnlyTheLeaderShows(t *testing.T) {
	s := newSetup(t)
	s.lead(false)
	s.Claim(nil, s.claim("c", "gpu"))
	s.Failed(s.claim("c", "gpu"), ReasonConflict)
	if n, err := testutil.GatherAndCount(s.registry); err != nil || n != 0 {
		t.Errorf("a replica that does not lead shows %d series, %v", n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Start(ctx); err != nil || s.leading || !s.NeedLeaderElection() {
		t.Errorf("Start: %v, leads afterwards: %v", err, s.leading)
	}
}

// BenchmarkScrape is of 1 000 nodes and 5 000 claims that wait.
func BenchmarkScrape(b *testing.B) {
	s := newSetup(b)
	for i := range 1000 {
		addMachine(s.fleet, fmt.Sprintf("node-%d", i))
	}
	for i := range 5000 {
		s.Claim(nil, s.claim(fmt.Sprint(i), "gpu"))
	}
	s.fleet.View()
	for b.Loop() {
		if _, err := s.registry.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}
