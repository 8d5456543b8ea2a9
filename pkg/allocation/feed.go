package allocation

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// CacheOptions are those of the manager's cache. They leave out of it what
// nobody needs and what takes much memory in large clusters.
func CacheOptions() cache.Options {
	strip := cache.TransformStripManagedFields()
	return cache.Options{
		DefaultTransform: strip,
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Pod{}: {Transform: func(object any) (any, error) {
				if pod, ok := object.(*corev1.Pod); ok {
					stripPod(pod)
				}
				return strip(object)
			}},
			&corev1.Node{}: {Transform: func(object any) (any, error) {
				if node, ok := object.(*corev1.Node); ok {
					node.Annotations = nil
					node.Status = corev1.NodeStatus{}
				}
				return strip(object)
			}},
		},
	}
}

// stripPod keeps what decides on which nodes the pod can run, and which claims
// it has.
func stripPod(pod *corev1.Pod) {
	spec := pod.Spec
	pod.Annotations = nil
	pod.Spec = corev1.PodSpec{}
	conditions := pod.Status.Conditions
	pod.Status = corev1.PodStatus{Phase: pod.Status.Phase, ResourceClaimStatuses: pod.Status.ResourceClaimStatuses}
	if len(spec.ResourceClaims) == 0 {
		pod.Labels, pod.OwnerReferences = nil, nil
		return
	}
	for _, condition := range conditions {
		if condition.Type == ConditionGangAllocated {
			pod.Status.Conditions = append(pod.Status.Conditions, condition)
		}
	}
	pod.Spec = corev1.PodSpec{
		NodeName: spec.NodeName, NodeSelector: spec.NodeSelector, Tolerations: spec.Tolerations,
		ResourceClaims: spec.ResourceClaims, SchedulingGates: spec.SchedulingGates,
	}
	if spec.Affinity != nil && spec.Affinity.NodeAffinity != nil {
		pod.Spec.Affinity = &corev1.Affinity{NodeAffinity: spec.Affinity.NodeAffinity}
	}
}

// feed brings news of the cluster to the controller, on every replica, so that
// one that becomes the leader knows everything already.
type feed struct {
	*Controller
	slices  *sliceWatch
	rules   *ruleWatch
	handled []toolscache.InformerSynced
	// observing keeps news of claims, and of our own writes, in one order.
	observing sync.Mutex
	// gone are claims that were deleted while a list is read; nil otherwise.
	gone map[types.UID]bool
}

func newFeed(ctx context.Context, c *Controller, mgr manager.Manager) (*feed, error) {
	f := &feed{Controller: c, slices: newSliceWatch(c), rules: newRuleWatch(c)}
	for object, handler := range map[client.Object]toolscache.ResourceEventHandler{
		&resourceapi.ResourceClaim{}: handlerOf(func(c *resourceapi.ResourceClaim) { f.observe(c, fromWatch) }, f.claimGone),
		&resourceapi.DeviceClass{}:   handlerOf(f.class, f.classGone),
		&corev1.Node{}:               handlerOf(f.node, f.nodeGone),
		&corev1.Pod{}:                handlerOf(f.pod, f.podGone),
	} {
		informer, err := mgr.GetCache().GetInformer(ctx, object, cache.BlockUntilSynced(false))
		if err != nil {
			return nil, fmt.Errorf("watch objects of type %T: %w", object, err)
		}
		registration, err := informer.AddEventHandler(handler)
		if err != nil {
			return nil, fmt.Errorf("watch objects of type %T: %w", object, err)
		}
		f.handled = append(f.handled, registration.HasSynced)
	}
	f.handled = append(f.handled, f.slices.synced, f.rules.synced)
	return f, nil
}

// Start watches ResourceSlices and DeviceTaintRules until ctx is done.
func (f *feed) Start(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { f.rules.run(ctx) })
	f.slices.run(ctx)
	wg.Wait()
	return nil
}

// NeedLeaderElection tells the manager that every replica watches.
func (f *feed) NeedLeaderElection() bool { return false }

func handlerOf[T any](set, gone func(T)) toolscache.ResourceEventHandler {
	call := func(f func(T), object any) {
		if typed, ok := object.(T); ok {
			f(typed)
		}
	}
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { call(set, object) },
		UpdateFunc: func(_, object any) { call(set, object) },
		DeleteFunc: func(object any) {
			if last, ok := object.(toolscache.DeletedFinalStateUnknown); ok {
				object = last.Obj
			}
			call(gone, object)
		},
	}
}

// source is where news of a claim come from.
type source int

const (
	fromWatch source = iota
	// fromOwnWrite is the answer to a write of ours, which may be older than
	// what the watch has told of by now.
	fromOwnWrite
	// fromList is a list that was made while the watch went on.
	fromList
)

// observe takes in a claim.
func (f *feed) observe(claim *resourceapi.ResourceClaim, from source) {
	f.observing.Lock()
	before := f.claims.get(keyOf(claim))
	replaced := before != nil && before.UID != claim.UID
	if from == fromOwnWrite && (before == nil || replaced) || from == fromList && f.gone[claim.UID] {
		f.observing.Unlock()
		return // it was deleted since
	}
	if replaced {
		f.drop(before)
	}
	before, isNew := f.claims.set(claim)
	if isNew {
		f.Fleet.SetClaim(claim)
		f.tell(before, claim)
		f.transition(before, claim)
	}
	f.observing.Unlock()
	if !isNew {
		return
	}
	f.look(claim)
	if before != nil && gangOf(before) != gangOf(claim) {
		f.look(before) // the gang that it has left lacks it
	}
	if before != nil && before.Status.Allocation != nil && claim.Status.Allocation == nil {
		f.waiting.changed()
	}
}

// rememberGone says whether claims that are gone are to be remembered, for
// lists that may still have them.
func (f *feed) rememberGone(on bool) {
	f.observing.Lock()
	defer f.observing.Unlock()
	if f.gone = nil; on {
		f.gone = map[types.UID]bool{}
	}
}

// look asks for a look at a claim and its gang.
func (f *feed) look(claim *resourceapi.ResourceClaim) {
	if !f.leads() {
		return
	}
	f.enqueue(Request{NamespacedName: keyOf(claim)})
	if gang := gangOf(claim); gang.Name != "" {
		f.enqueue(Request{NamespacedName: gang, Gang: true})
	}
}

func (f *feed) claimGone(claim *resourceapi.ResourceClaim) {
	f.observing.Lock()
	if f.gone != nil {
		f.gone[claim.UID] = true
	}
	known := f.claims.get(keyOf(claim))
	if known != nil && known.UID == claim.UID {
		f.drop(known)
	}
	f.observing.Unlock()
	f.look(claim)
	f.waiting.changed()
}

func (f *feed) drop(known *resourceapi.ResourceClaim) {
	f.claims.drop(keyOf(known), known.UID)
	f.Fleet.DeleteClaim(known.UID)
	f.tell(known, nil)
	f.memory.forget(known.UID)
}

func (f *feed) tell(before, now *resourceapi.ResourceClaim) {
	f.Metrics.Claim(before, now)
	if f.Observer != nil {
		f.Observer.Claim(before, now)
	}
}

func (f *feed) class(class *resourceapi.DeviceClass) {
	f.Fleet.SetClass(class)
	f.lookAtAll()
}

func (f *feed) classGone(class *resourceapi.DeviceClass) {
	f.Fleet.DeleteClass(class.Name)
	f.classes.Forget(class.Name)
	f.Metrics.ClassGone(class.Name)
}

// lookAtAll is for changes that may make any claim one of ours.
func (f *feed) lookAtAll() {
	if !f.leads() {
		return
	}
	for _, claim := range f.claims.all() {
		f.look(claim)
	}
}

func (f *feed) node(node *corev1.Node) {
	if f.Fleet.SetNode(node) {
		f.waiting.changed()
	}
}

func (f *feed) nodeGone(node *corev1.Node) { f.Fleet.DeleteNode(node.Name) }

func (f *feed) pod(pod *corev1.Pod) {
	f.Consumers.SetPod(pod)
	f.lookAtClaimsOf(pod)
}

func (f *feed) podGone(pod *corev1.Pod) {
	f.Consumers.DeletePod(pod.UID)
	f.lookAtClaimsOf(pod)
}

func (f *feed) lookAtClaimsOf(pod *corev1.Pod) {
	if !f.leads() || len(pod.Spec.ResourceClaims) == 0 {
		return
	}
	for _, claim := range f.claimsOf(pod) {
		f.look(claim)
	}
}
