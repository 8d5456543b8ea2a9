package controller

import (
	"fmt"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
)

// claimFor is a claim for GPUs of a class.
func claimFor(name, class string, count int64) *resourceapi.ResourceClaim {
	return &resourceapi.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: resourceapi.ResourceClaimSpec{Devices: resourceapi.DeviceClaim{Requests: []resourceapi.DeviceRequest{{
			Name: "gpu", Exactly: &resourceapi.ExactDeviceRequest{DeviceClassName: class, AllocationMode: resourceapi.DeviceAllocationModeExactCount, Count: count},
		}}}},
	}
}

func (s *site) make(claim *resourceapi.ResourceClaim) {
	s.t.Helper()
	if _, err := cluster.Client.ResourceV1().ResourceClaims(s.name).Create(s.ctx, claim, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

// claim makes a claim of the managed class.
func (s *site) claim(name string, count int64, labels map[string]string) {
	s.t.Helper()
	claim := claimFor(name, s.class, count)
	claim.Labels = labels
	s.make(claim)
}

// gangOf makes claims of a gang: those from the first to before the last.
func (s *site) gang(name string, size, first, last int, count int64) {
	s.t.Helper()
	for i := first; i < last; i++ {
		s.claim(fmt.Sprintf("%s-%d", name, i), count, map[string]string{
			v1alpha1.LabelGang: name, v1alpha1.LabelGangSize: strconv.Itoa(size), v1alpha1.LabelGangTimeout: "2s",
		})
	}
}

func (s *site) get(name string) *resourceapi.ResourceClaim {
	s.t.Helper()
	claim, err := cluster.Client.ResourceV1().ResourceClaims(s.name).Get(s.ctx, name, metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return claim
}

func (s *site) list() []resourceapi.ResourceClaim {
	s.t.Helper()
	claims, err := cluster.Client.ResourceV1().ResourceClaims(s.name).List(s.ctx, metav1.ListOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return claims.Items
}

// allocated waits until the claim has its devices, and returns it.
func (s *site) allocated(name string) *resourceapi.ResourceClaim {
	s.t.Helper()
	var claim *resourceapi.ResourceClaim
	s.eventually("claim "+name+" is allocated", func() (bool, string) {
		claim = s.get(name)
		return claim.Status.Allocation != nil, ""
	})
	return claim
}

// allAllocated waits until all of the site's claims, so many, have their
// devices, and none has what another has.
func (s *site) allAllocated(want int) {
	s.t.Helper()
	s.eventually(fmt.Sprintf("%d claims are allocated", want), func() (bool, string) {
		got := len(s.withDevices())
		return got == want, fmt.Sprint(got)
	})
	s.noneTwice()
}

// withDevices returns the names of the claims that are allocated.
func (s *site) withDevices() []string {
	s.t.Helper()
	var names []string
	for _, claim := range s.list() {
		if claim.Status.Allocation != nil {
			names = append(names, claim.Name)
		}
	}
	return names
}

// noneTwice fails the test if a device is given to two claims, or a claim that
// has devices could be deleted under them.
func (s *site) noneTwice() {
	s.t.Helper()
	holder := map[string]string{}
	for _, claim := range s.list() {
		if claim.Status.Allocation == nil {
			continue
		}
		if !slices.Contains(claim.Finalizers, resourceapi.Finalizer) || claim.Status.Allocation.AllocationTimestamp == nil {
			s.t.Errorf("claim %s is allocated with finalizers %v at %v", claim.Name, claim.Finalizers, claim.Status.Allocation.AllocationTimestamp)
		}
		for _, result := range claim.Status.Allocation.Devices.Results {
			device := result.Pool + "/" + result.Device
			if other := holder[device]; other != "" {
				s.t.Errorf("%s is given to %s and %s", device, other, claim.Name)
			}
			holder[device] = claim.Name
		}
	}
}

// nodeOf is the node of an allocation.
func nodeOf(claim *resourceapi.ResourceClaim) string {
	if claim.Status.Allocation == nil || claim.Status.Allocation.NodeSelector == nil {
		return ""
	}
	return claim.Status.Allocation.NodeSelector.NodeSelectorTerms[0].MatchFields[0].Values[0]
}

// pod makes a pod that uses claims.
func (s *site) pod(name string, change func(*corev1.PodSpec), claims ...string) {
	s.t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: ptr.To[int64](0),
			NodeSelector:                  map[string]string{"site": s.name},
			Tolerations:                   []corev1.Toleration{{Key: publishedOnly, Operator: corev1.TolerationOpExists}},
			Containers:                    []corev1.Container{{Name: "work", Image: "nvidia/cuda:12.3.0-base-ubuntu22.04"}},
		},
	}
	for _, claim := range claims {
		pod.Spec.ResourceClaims = append(pod.Spec.ResourceClaims, corev1.PodResourceClaim{Name: claim, ResourceClaimName: &claim})
		pod.Spec.Containers[0].Resources.Claims = append(pod.Spec.Containers[0].Resources.Claims, corev1.ResourceClaim{Name: claim})
	}
	if change != nil {
		change(&pod.Spec)
	}
	s.eventually("the namespace takes pods", func() (bool, string) {
		_, err := cluster.Client.CoreV1().Pods(s.name).Create(s.ctx, pod, metav1.CreateOptions{})
		return err == nil, fmt.Sprint(err)
	})
}

// bound waits until the pod has a node, and returns it.
func (s *site) bound(name string) string {
	s.t.Helper()
	node := ""
	s.eventually("pod "+name+" is bound", func() (bool, string) {
		pod, err := cluster.Client.CoreV1().Pods(s.name).Get(s.ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, err.Error()
		}
		node = pod.Spec.NodeName
		return node != "", fmt.Sprint(pod.Status.Conditions)
	})
	return node
}

func (s *site) deletePod(name string) {
	s.t.Helper()
	if err := cluster.Client.CoreV1().Pods(s.name).Delete(s.ctx, name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
		s.t.Fatal(err)
	}
}

// plans returns how many plans of gangs are stored.
func (s *site) plans() int {
	s.t.Helper()
	maps, err := cluster.Client.CoreV1().ConfigMaps(s.name).List(s.ctx, metav1.ListOptions{LabelSelector: "eks-hybrid-dra/gang-plan=true"})
	if err != nil {
		s.t.Fatal(err)
	}
	return len(maps.Items)
}
