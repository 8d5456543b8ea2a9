package controller

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

func TestAClaimIsAllocatedAtOnceAndItsPodRunsThere(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3)
	s.start(settings{})
	s.claim("a", 4, nil)
	claim := s.allocated("a")
	s.noneTwice()
	s.event("a", "Allocated", "Allocated on node "+nodeOf(claim))
	s.pod("a", nil, "a")
	if got := s.bound("a"); got != nodeOf(claim) {
		t.Errorf("the pod is on node %s, its devices are on %s", got, nodeOf(claim))
	}
	// The second one joins the first, so that two machines stay whole.
	s.claim("b", 4, nil)
	if got := nodeOf(s.allocated("b")); got != nodeOf(claim) {
		t.Errorf("claim b is on node %s, though %s has room", got, nodeOf(claim))
	}
	s.claim("too-many", 9, nil)
	s.claim("c", 8, nil)
	s.allocated("c")
	if claim := s.get("too-many"); claim.Status.Allocation != nil {
		t.Error("a claim for 9 GPUs was allocated on machines of 8")
	}
	s.noneTwice()
}

func TestAClaimThatWaitedGetsWhatIsFreed(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	s.start(settings{})
	s.claim("first", 8, nil)
	s.allocated("first")
	s.claim("second", 8, nil)
	if err := cluster.Client.ResourceV1().ResourceClaims(s.name).Delete(s.ctx, "first", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.allocated("second")
	// A new machine is news, too.
	s.claim("third", 8, nil)
	s.nodes = append(s.nodes, s.name+"-new")
	s.node(s.name + "-new")
	s.publish(s.name+"-new", managed, 1)
	if got := nodeOf(s.allocated("third")); got != s.name+"-new" {
		t.Errorf("claim third is on node %s", got)
	}
}

func TestAPodThatNamesItsNodeItself(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3)
	s.start(settings{})
	on := func(spec *corev1.PodSpec) { spec.NodeName = s.nodes[2] }
	reserved := func(name string) {
		s.eventually("claim "+name+" is reserved for its pod", func() (bool, string) {
			claim := s.get(name)
			return nodeOf(claim) == s.nodes[2] && len(claim.Status.ReservedFor) == 1 && claim.Status.ReservedFor[0].Name == name, nodeOf(claim)
		})
	}
	// The pod is first.
	s.pod("late-claim", on, "late-claim")
	s.claim("late-claim", 2, nil)
	reserved("late-claim")
	// The claim is first, and was given devices elsewhere.
	s.claim("early-claim", 8, nil)
	if got := nodeOf(s.allocated("early-claim")); got == s.nodes[2] {
		t.Fatalf("claim early-claim fits on %s, which has 6 devices left", got)
	}
	s.deletePod("late-claim")
	s.pod("early-claim", on, "early-claim")
	reserved("early-claim")
	s.event("early-claim", "Freed", "a pod of the claim is on node "+s.nodes[2])
}

func TestAClaimIsOnANodeWhereItsPodsCanRun(t *testing.T) {
	t.Parallel()
	tests := map[string]func(s *site, spec *corev1.PodSpec){
		"nodeSelector": func(s *site, spec *corev1.PodSpec) { spec.NodeSelector[corev1.LabelHostname] = s.nodes[2] },
		"affinity": func(s *site, spec *corev1.PodSpec) {
			spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{s.nodes[2]}}}}},
			}}}
		},
		"taints": func(s *site, _ *corev1.PodSpec) {
			for _, name := range s.nodes[:2] {
				taint := []byte(`{"spec":{"taints":[{"key":"published-only","effect":"NoSchedule"},{"key":"example.com/others","effect":"NoSchedule"}]}}`)
				if _, err := cluster.Client.CoreV1().Nodes().Patch(s.ctx, name, types.StrategicMergePatchType, taint, metav1.PatchOptions{}); err != nil {
					s.t.Fatal(err)
				}
			}
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 3)
			s.pod("p", func(spec *corev1.PodSpec) { change(s, spec) }, "c")
			s.start(settings{})
			s.claim("c", 1, nil)
			if got := nodeOf(s.allocated("c")); got != s.nodes[2] {
				t.Errorf("allocated on %s, but the pod can run on %s only", got, s.nodes[2])
			}
			if got := s.bound("p"); got != s.nodes[2] {
				t.Errorf("the pod is on %s", got)
			}
		})
	}
}

func TestClaimsOfOnePodAreOnOneNode(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3)
	s.start(settings{})
	// One alone fits beside the first, both together do not.
	s.claim("first", 3, nil)
	first := nodeOf(s.allocated("first"))
	s.pod("p", nil, "left", "right")
	s.claim("left", 4, nil)
	s.allocated("left")
	s.claim("right", 4, nil)
	s.bound("p")
	left, right := s.get("left"), s.get("right")
	if nodeOf(left) == "" || nodeOf(left) != nodeOf(right) || nodeOf(left) == first {
		t.Errorf("left on %q, right on %q, first on %q", nodeOf(left), nodeOf(right), first)
	}
	s.noneTwice()
}

func TestAPodsClaimsFromTemplates(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	s.start(settings{})
	_, err := cluster.Client.ResourceV1().ResourceClaimTemplates(s.name).Create(s.ctx, &resourceapi.ResourceClaimTemplate{
		ObjectMeta: metav1.ObjectMeta{Name: "gpu"}, Spec: resourceapi.ResourceClaimTemplateSpec{Spec: claimFor("", s.class, 4).Spec},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.pod("p", func(spec *corev1.PodSpec) {
		spec.NodeSelector[corev1.LabelHostname] = s.nodes[1]
		for _, name := range []string{"one", "two"} {
			spec.ResourceClaims = append(spec.ResourceClaims, corev1.PodResourceClaim{Name: name, ResourceClaimTemplateName: ptr.To("gpu")})
		}
	})
	if got := s.bound("p"); got != s.nodes[1] {
		t.Errorf("the pod is on %s", got)
	}
	s.allAllocated(2)
}

func TestAClaimThatNobodyUsesIsFreed(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	s.start(settings{unused: 2 * time.Second})
	s.claim("unused", 8, nil)
	s.allocated("unused")
	s.claim("next", 8, map[string]string{"eks-hybrid-dra/unused-after": "1h"})
	s.allocated("next")
	s.event("unused", "FreedUnused", "no pod reserved them for 2s")
	freed := s.get("unused")
	if freed.Status.Allocation != nil || freed.Annotations["eks-hybrid-dra/freed-unused"] == "" {
		t.Errorf("allocation %v, annotations %v", freed.Status.Allocation, freed.Annotations)
	}
	// It waits for a pod, and takes nothing before.
	if err := cluster.Client.ResourceV1().ResourceClaims(s.name).Delete(s.ctx, "next", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.claim("marker", 1, nil)
	s.allocated("marker")
	if claim := s.get("unused"); claim.Status.Allocation != nil {
		t.Error("a claim that was freed is allocated without a pod")
	}
	if err := cluster.Client.ResourceV1().ResourceClaims(s.name).Delete(s.ctx, "marker", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.pod("p", nil, "unused")
	s.bound("p")
	if claim := s.get("unused"); claim.Annotations["eks-hybrid-dra/freed-unused"] != "" || len(claim.Status.ReservedFor) != 1 {
		t.Errorf("annotations %v, reserved for %v", claim.Annotations, claim.Status.ReservedFor)
	}
}

func TestAClaimWhosePodHasEndedWaitsForTheNext(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	s.start(settings{})
	s.claim("c", 8, nil)
	s.allocated("c")
	s.pod("first", nil, "c")
	s.bound("first")
	s.deletePod("first")
	s.eventually("the claim waits for a pod", func() (bool, string) {
		claim := s.get("c")
		return claim.Status.Allocation == nil && claim.Annotations["eks-hybrid-dra/used"] != "", ""
	})
	// A controller that begins now knows as much.
	s.start(settings{}).stop()
	s.claim("other", 8, nil)
	s.allocated("other")
	if err := cluster.Client.ResourceV1().ResourceClaims(s.name).Delete(s.ctx, "other", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.pod("second", nil, "c")
	s.bound("second")
}

func TestKubeSchedulerTakesAnAllocationBack(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	registry := s.watched()
	s.claim("c", 1, nil)
	first := nodeOf(s.allocated("c"))
	other := s.nodes[0]
	if other == first {
		other = s.nodes[1]
	}
	// Only the scheduler knows that there is no room for this pod: it takes all
	// that the node has of a resource that the controller does not look at.
	s.pod("big", func(spec *corev1.PodSpec) { spec.NodeName = first; requests(spec, "99") })
	s.pod("p", func(spec *corev1.PodSpec) { requests(spec, "50") }, "c")
	s.event("c", "DeallocatedByScheduler", "kube-scheduler took the devices on node "+first+" back")
	if got := s.bound("p"); got != other {
		t.Errorf("the pod is on %s, want %s", got, other)
	}
	if got := nodeOf(s.get("c")); got != other {
		t.Errorf("the claim is on %s, want %s", got, other)
	}
	labels := map[string]string{"reason": "DeallocatedByScheduler", "device_class": s.class, "kind": "gpu", "allocator": "controller"}
	s.eventually("it is counted", func() (bool, string) {
		n := measured(t, registry, "dra_allocation_errors_total", labels)
		return n >= 1, fmt.Sprint(n)
	})
}

func requests(spec *corev1.PodSpec, cpu string) {
	spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: quantity(cpu)}
}

func TestAClaimOfManagedAndOtherClasses(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	s.start(settings{})
	claim := claimFor("mixed", s.class, 1)
	claim.Spec.Devices.Requests = append(claim.Spec.Devices.Requests, resourceapi.DeviceRequest{Name: "plain", FirstAvailable: []resourceapi.DeviceSubRequest{
		{Name: "one", DeviceClassName: s.class}, {Name: "two", DeviceClassName: s.plain},
	}})
	s.make(claim)
	s.event("mixed", "MixedClasses", `request "plain/two" is not of a managed class`)
	s.claim("after", 1, nil)
	s.allocated("after")
	if diff := cmp.Diff([]string{"after"}, s.withDevices()); diff != "" {
		t.Errorf("allocated claims (-want +got):\n%s", diff)
	}
}
