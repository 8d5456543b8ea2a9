package consumers

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Index finds the pods of a claim. It is safe for concurrent use. Pods belong to
// an informer's cache and are never changed.
type Index struct {
	mu   sync.RWMutex
	pods map[types.UID]*corev1.Pod
	// byClaim has the pods that name a claim, in their spec or in their status.
	byClaim map[types.NamespacedName]map[types.UID]*corev1.Pod
}

// NewIndex returns an index without pods.
func NewIndex() *Index {
	return &Index{
		pods:    map[types.UID]*corev1.Pod{},
		byClaim: map[types.NamespacedName]map[types.UID]*corev1.Pod{},
	}
}

// SetPod takes in a pod that is new or has changed. Pods without claims are not
// kept.
func (i *Index) SetPod(pod *corev1.Pod) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.drop(pod.UID)
	if len(pod.Spec.ResourceClaims) == 0 || done(pod) {
		return
	}
	i.pods[pod.UID] = pod
	for _, claim := range ClaimsOf(pod) {
		if i.byClaim[claim] == nil {
			i.byClaim[claim] = map[types.UID]*corev1.Pod{}
		}
		i.byClaim[claim][pod.UID] = pod
	}
}

// DeletePod forgets a pod that is gone.
func (i *Index) DeletePod(uid types.UID) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.drop(uid)
}

func (i *Index) drop(uid types.UID) {
	old := i.pods[uid]
	if old == nil {
		return
	}
	delete(i.pods, uid)
	for _, claim := range ClaimsOf(old) {
		if delete(i.byClaim[claim], uid); len(i.byClaim[claim]) == 0 {
			delete(i.byClaim, claim)
		}
	}
}

// Of returns who uses the claim, or will.
func (i *Index) Of(claim *resourceapi.ResourceClaim) Consumers {
	i.mu.RLock()
	defer i.mu.RUnlock()
	pods := maps.Clone(i.byClaim[types.NamespacedName{Namespace: claim.Namespace, Name: claim.Name}])
	var result Consumers
	if owner := podOwner(claim); owner != "" {
		// A claim made from a template is there before its pod's status says
		// so.
		switch pod := i.pods[owner]; {
		case pod == nil && len(pods) == 0:
			result.Awaited = true
		case pod != nil && pods == nil:
			pods = map[types.UID]*corev1.Pod{owner: pod}
		case pod != nil:
			pods[owner] = pod
		}
	}
	result.Pods = slices.SortedFunc(maps.Values(pods), func(a, b *corev1.Pod) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.UID, b.UID))
	})
	return result
}

// ClaimsOf returns the claims of a pod whose names are known: those that its
// spec names, and those made from templates once its status names them.
func ClaimsOf(pod *corev1.Pod) []types.NamespacedName {
	var claims []types.NamespacedName
	add := func(name *string) {
		if name != nil && *name != "" {
			claims = append(claims, types.NamespacedName{Namespace: pod.Namespace, Name: *name})
		}
	}
	for _, claim := range pod.Spec.ResourceClaims {
		add(claim.ResourceClaimName)
	}
	for _, status := range pod.Status.ResourceClaimStatuses {
		add(status.ResourceClaimName)
	}
	return claims
}

// ClaimsToCome tells whether claims of the pod are still to be made from
// templates.
func ClaimsToCome(pod *corev1.Pod) bool {
	return len(pod.Status.ResourceClaimStatuses) < templates(pod)
}

func templates(pod *corev1.Pod) int {
	n := 0
	for _, claim := range pod.Spec.ResourceClaims {
		if claim.ResourceClaimTemplateName != nil {
			n++
		}
	}
	return n
}

// done tells whether the pod will use no claim any more.
func done(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed ||
		pod.DeletionTimestamp != nil && pod.Spec.NodeName == ""
}

func podOwner(claim *resourceapi.ResourceClaim) types.UID {
	if owner := metav1.GetControllerOf(claim); owner != nil && owner.Kind == "Pod" {
		return owner.UID
	}
	return ""
}
