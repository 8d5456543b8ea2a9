package consumers

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2/ktesting"
	"k8s.io/utils/ptr"
)

func pod(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: name, UID: types.UID(name)},
		Spec:       corev1.PodSpec{ResourceClaims: []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimName: ptr.To("shared")}}},
	}
	for _, c := range change {
		c(p)
	}
	return p
}

func claim(name string, owner types.UID) *resourceapi.ResourceClaim {
	c := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: name}}
	if owner != "" {
		c.OwnerReferences = []metav1.OwnerReference{{Kind: "Pod", UID: owner, Controller: ptr.To(true)}}
	}
	return c
}

func fromTemplate(status ...string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimTemplateName: ptr.To("template")}}
		for _, name := range status {
			p.Status.ResourceClaimStatuses = append(p.Status.ResourceClaimStatuses, corev1.PodResourceClaimStatus{Name: "gpu", ResourceClaimName: &name})
		}
	}
}

func TestPodsOfAClaim(t *testing.T) {
	ended := func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }
	deleted := func(p *corev1.Pod) { p.DeletionTimestamp = ptr.To(metav1.Now()) }
	older := func(p *corev1.Pod) { p.CreationTimestamp = metav1.NewTime(time.Unix(1, 0)) }
	younger := func(p *corev1.Pod) { p.CreationTimestamp = metav1.NewTime(time.Unix(2, 0)) }
	tests := map[string]struct {
		pods    []*corev1.Pod
		claim   *resourceapi.ResourceClaim
		want    []string
		awaited bool
	}{
		"none":                         {claim: claim("shared", "")},
		"by name, the oldest first":    {pods: []*corev1.Pod{pod("b", younger), pod("a", older)}, claim: claim("shared", ""), want: []string{"a", "b"}},
		"ended":                        {pods: []*corev1.Pod{pod("a", ended)}, claim: claim("shared", "")},
		"deleted before it ran":        {pods: []*corev1.Pod{pod("a", deleted)}, claim: claim("shared", "")},
		"another claim":                {pods: []*corev1.Pod{pod("a")}, claim: claim("other", "")},
		"by status":                    {pods: []*corev1.Pod{pod("a", fromTemplate("a-gpu"))}, claim: claim("a-gpu", ""), want: []string{"a"}},
		"by owner":                     {pods: []*corev1.Pod{pod("a", fromTemplate())}, claim: claim("a-gpu", "a"), want: []string{"a"}},
		"by status and owner":          {pods: []*corev1.Pod{pod("a", fromTemplate("a-gpu"))}, claim: claim("a-gpu", "a"), want: []string{"a"}},
		"owner that is not known yet":  {claim: claim("a-gpu", "a"), awaited: true},
		"owner whose pod ended":        {pods: []*corev1.Pod{pod("a", fromTemplate("a-gpu"), ended)}, claim: claim("a-gpu", "a"), awaited: true},
		"pod without any claim at all": {pods: []*corev1.Pod{pod("a", func(p *corev1.Pod) { p.Spec.ResourceClaims = nil })}, claim: claim("shared", "")},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			index := NewIndex()
			for _, p := range test.pods {
				index.SetPod(p)
			}
			got := index.Of(test.claim)
			var names []string
			for _, p := range got.Pods {
				names = append(names, p.Name)
			}
			if diff := cmp.Diff(test.want, names); diff != "" || got.Awaited != test.awaited {
				t.Errorf("awaited %t, want %t; pods (-want +got):\n%s", got.Awaited, test.awaited, diff)
			}
			for _, p := range test.pods {
				index.DeletePod(p.UID)
			}
			if len(index.pods)+len(index.byClaim) > 0 {
				t.Errorf("left after all pods are gone: %v, %v", index.pods, index.byClaim)
			}
		})
	}
}

func TestNodesThatFitAllPods(t *testing.T) {
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "dgx-1", Labels: map[string]string{"site": "cellar"}},
		Spec:       corev1.NodeSpec{Taints: []corev1.Taint{{Key: "nvidia.com/gpu", Effect: corev1.TaintEffectNoSchedule}, {Key: "soft", Effect: corev1.TaintEffectPreferNoSchedule}}},
	}
	cordoned := node.DeepCopy()
	cordoned.Spec.Unschedulable = true
	tolerant := func(p *corev1.Pod) {
		p.Spec.Tolerations = []corev1.Toleration{{Key: "nvidia.com/gpu", Operator: corev1.TolerationOpExists}}
	}
	affinity := func(site string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "site", Operator: corev1.NodeSelectorOpIn, Values: []string{site}}}}},
			}}}
		}
	}
	selector := func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"site": "attic"} }
	on := func(name string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.NodeName = name } }
	tests := map[string]struct {
		pods []*corev1.Pod
		node *corev1.Node
		// not is a part of why the node does not fit; empty if it does.
		not string
	}{
		"nobody yet":                     {node: node},
		"nobody yet, and it is cordoned": {node: cordoned, not: "node.kubernetes.io/unschedulable"},
		"tolerated":                      {pods: []*corev1.Pod{pod("a", tolerant)}, node: node},
		"not tolerated":                  {pods: []*corev1.Pod{pod("a")}, node: node, not: "pod a does not tolerate the node's taint nvidia.com/gpu:NoSchedule"},
		"cordoned":                       {pods: []*corev1.Pod{pod("a", tolerant)}, node: cordoned, not: "unschedulable"},
		"affinity":                       {pods: []*corev1.Pod{pod("a", tolerant, affinity("cellar"))}, node: node},
		"other affinity":                 {pods: []*corev1.Pod{pod("a", tolerant, affinity("attic"))}, node: node, not: "affinity"},
		"other selector":                 {pods: []*corev1.Pod{pod("a", tolerant, selector)}, node: node, not: "nodeSelector"},
		"one of two":                     {pods: []*corev1.Pod{pod("a", tolerant), pod("b", tolerant, selector)}, node: node, not: "pod b"},
		"there, whatever the taints":     {pods: []*corev1.Pod{pod("a", on("dgx-1"))}, node: cordoned},
		"elsewhere":                      {pods: []*corev1.Pod{pod("a", tolerant, on("dgx-2"))}, node: node, not: "is on node dgx-2"},
	}
	logger, _ := ktesting.NewTestContext(t)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			fits, why := Consumers{Pods: test.pods}.Nodes(logger)(test.node)
			if fits != (test.not == "") || !strings.Contains(why, test.not) {
				t.Errorf("fits: %t, %q; want a reason with %q", fits, why, test.not)
			}
		})
	}
}

func TestPodsThatNoSchedulerPlaces(t *testing.T) {
	on := func(name string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.NodeName = name } }
	c := Consumers{Pods: []*corev1.Pod{pod("a"), pod("b", on("dgx-1")), pod("c", on("dgx-1"))}}
	if c.NodeName() != "dgx-1" {
		t.Errorf("node %q", c.NodeName())
	}
	want := []resourceapi.ResourceClaimConsumerReference{{Resource: "pods", Name: "b", UID: "b"}, {Resource: "pods", Name: "c", UID: "c"}}
	if diff := cmp.Diff(want, c.On("dgx-1")); diff != "" {
		t.Errorf("reserved for (-want +got):\n%s", diff)
	}
	if c.NoneOn("dgx-1", want) || !c.NoneOn("dgx-2", want) {
		t.Error("pods on dgx-1 can use what is on dgx-1, and nothing else")
	}
	if c.NoneOn("dgx-2", append(want, resourceapi.ResourceClaimConsumerReference{Resource: "pods", Name: "a", UID: "a"})) {
		t.Error("a pod without a node may be on its way to dgx-2")
	}
	if got := c.On(""); got != nil {
		t.Errorf("reserved on no node for %v", got)
	}
}
