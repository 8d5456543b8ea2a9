package consumers

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	scheduling "k8s.io/component-helpers/scheduling/corev1"
)

// Consumers are the pods of one claim, the oldest first.
type Consumers struct {
	Pods []*corev1.Pod
	// Awaited is set while the claim belongs to a pod that is not known yet, so
	// that nobody can tell where the claim is of use.
	Awaited bool
}

// NodeName is the node that a pod names itself, or is on already; empty if none
// does.
func (c Consumers) NodeName() string {
	for _, pod := range c.Pods {
		if pod.Spec.NodeName != "" {
			return pod.Spec.NodeName
		}
	}
	return ""
}

// On returns references to the pods that are on the node already: what is
// allocated there has to be reserved for them, since no scheduler will.
func (c Consumers) On(node string) []resourceapi.ResourceClaimConsumerReference {
	var references []resourceapi.ResourceClaimConsumerReference
	for _, pod := range c.Pods {
		if pod.Spec.NodeName == node && node != "" && len(references) < resourceapi.ResourceClaimReservedForMaxSize {
			references = append(references, resourceapi.ResourceClaimConsumerReference{Resource: "pods", Name: pod.Name, UID: pod.UID})
		}
	}
	return references
}

// NoneOn tells whether all that a claim is reserved for are pods that are on
// other nodes, and so can never use what it has on this one.
func (c Consumers) NoneOn(node string, reserved []resourceapi.ResourceClaimConsumerReference) bool {
	for _, reference := range reserved {
		elsewhere := slices.ContainsFunc(c.Pods, func(pod *corev1.Pod) bool {
			return pod.UID == reference.UID && pod.Spec.NodeName != "" && pod.Spec.NodeName != node
		})
		if !elsewhere {
			return false
		}
	}
	return true
}

// Gated tells whether every pod waits for somebody to open its scheduling gates.
func (c Consumers) Gated() bool {
	for _, pod := range c.Pods {
		if len(pod.Spec.SchedulingGates) == 0 {
			return false
		}
	}
	return len(c.Pods) > 0
}

// Nodes returns a function that tells of a node whether all pods can run there,
// and if not, why. Without pods every node will do that takes new pods at all.
func (c Consumers) Nodes(logger klog.Logger) func(*corev1.Node) (bool, string) {
	if len(c.Pods) == 0 {
		return takesPods
	}
	needs := make([]need, 0, len(c.Pods))
	for _, pod := range c.Pods {
		needs = append(needs, need{pod: pod, affinity: nodeaffinity.GetRequiredNodeAffinity(pod)})
	}
	return func(node *corev1.Node) (bool, string) {
		for _, n := range needs {
			if why := n.refuses(logger, node); why != "" {
				return false, fmt.Sprintf("pod %s %s", n.pod.Name, why)
			}
		}
		return true, ""
	}
}

// need is what one pod needs of a node.
type need struct {
	pod      *corev1.Pod
	affinity nodeaffinity.RequiredNodeAffinity
}

// refuses says why the pod cannot run on the node; empty if it can.
func (n need) refuses(logger klog.Logger, node *corev1.Node) string {
	if n.pod.Spec.NodeName != "" {
		// Whatever else the pod says, no scheduler will ask.
		if n.pod.Spec.NodeName != node.Name {
			return "is on node " + n.pod.Spec.NodeName
		}
		return ""
	}
	if fits, err := n.affinity.Match(node); err != nil {
		return fmt.Sprintf("has a node affinity that is not valid: %v", err)
	} else if !fits {
		return "has a nodeSelector or node affinity that the node's labels do not fit"
	}
	taint, untolerated := scheduling.FindMatchingUntoleratedTaint(logger, taintsOf(node), n.pod.Spec.Tolerations, keepsOut, true)
	if untolerated {
		return fmt.Sprintf("does not tolerate the node's taint %s", taint.ToString())
	}
	return ""
}

// takesPods is for claims that nobody uses yet: what taints their pods will
// tolerate is not known, but Kubernetes' own say that the node is out of order.
func takesPods(node *corev1.Node) (bool, string) {
	for _, taint := range taintsOf(node) {
		if keepsOut(&taint) && strings.HasPrefix(taint.Key, "node.kubernetes.io/") {
			return false, "the node has the taint " + taint.ToString()
		}
	}
	return true, ""
}

// taintsOf has the taint of a cordoned node also before it is written there.
func taintsOf(node *corev1.Node) []corev1.Taint {
	if !node.Spec.Unschedulable {
		return node.Spec.Taints
	}
	return append([]corev1.Taint{{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}}, node.Spec.Taints...)
}

func keepsOut(taint *corev1.Taint) bool {
	return taint.Effect == corev1.TaintEffectNoSchedule || taint.Effect == corev1.TaintEffectNoExecute
}
